#!/usr/bin/env python3
"""Makes tests/data/lfw_protocol: embeddings, pairs, and the figures that lfw_eval.py gives for them.
Usage: lfw_fixture.py FOLDER. Invented people, with what protocols trip over: pairs that tie (repeated pairs, two copied
embeddings), faces that were not found (rows of zeros) and photos that are not there. Needs NumPy."""
import json, os, sys
import numpy as np
from lfw_eval import read_pairs, run

PEOPLE, PHOTOS, FOLDS, EACH = 30, 4, 10, 130
folder = sys.argv[1]
rng = np.random.default_rng(20)
centres = rng.normal(size=(PEOPLE, 128))
names, rows = [], []
for person in range(PEOPLE):
    for photo in range(1, PHOTOS + 1):
        names.append(f"p{person}_{photo:04d}")
        rows.append(centres[person] + rng.normal(size=128) * rng.uniform(0.8, 2.4))
emb = np.array(rows)
emb /= np.linalg.norm(emb, axis=1, keepdims=True)
emb[17] = emb[16]
emb[63] = emb[90]
emb[[5, 44, 101]] = 0
emb = emb.astype(np.float32)
lines = [f"{FOLDS}\t{EACH}"]
for _ in range(FOLDS):
    for _ in range(EACH):
        a, b = rng.choice(PHOTOS, 2, replace=False) + 1
        lines.append(f"p{rng.integers(PEOPLE)}\t{a}\t{b}")
    for _ in range(EACH):
        p, q = rng.choice(PEOPLE, 2, replace=False)
        lines.append(f"p{p}\t{rng.integers(PHOTOS) + 1}\tp{q}\t{rng.integers(PHOTOS) + 1}")
keep = [i for i in range(len(names)) if i != 77]
np.savez(os.path.join(folder, "embeddings.npz"), names=np.array(names)[keep], emb=emb[keep])
pairs = os.path.join(folder, "pairs.txt")
with open(pairs, "w") as file:
    file.write("\n".join(lines) + "\n")
z = np.load(os.path.join(folder, "embeddings.npz"))
with open(os.path.join(folder, "figures.json"), "w") as file:
    json.dump(run([str(n) for n in z["names"]], z["emb"], read_pairs(pairs)), file, indent=1)
    file.write("\n")
