#!/usr/bin/env python3
"""What the FaceNet paper replaced, as a baseline: wide features of the network, reduced by PCA, against the embedding that it was trained for.

    vultus export --out face.onnx
    scripts/bottleneck.py face.onnx --fit train-00.tar --held-out dev-00.tar [--crops 5000]

Section 2 of the paper: "the size of a representation per face is usually very large (1000s of dimensions). Some recent work has reduced this
dimensionality using PCA". The wide features are what the last layer reads, scaled to unit length; PCA is fitted on crops of the training
people, with and without whitening. Printed is the share of pairs of one held-out person that are accepted (VAL) at false-accept rates, over all pairs.
Crops are read as `vultus train` reads them (a sixteenth of margin around the template). Needs NumPy, Pillow, onnx and onnxruntime.
"""

import argparse
import io
import tarfile

import numpy as np
import onnx
import onnxruntime
from PIL import Image

DIMENSIONS = 128
RATES = [1e-3, 1e-2, 1e-1]


def crops(path, side, most=None):
    """Identities, and pixels from -1 to 1: (crops, 3, side, side)."""
    with tarfile.open(path) as tar:
        names = sorted(member.name for member in tar if member.isfile())
        if most is not None:
            names = [names[i * len(names) // most] for i in range(min(most, len(names)))]
        pixels = []
        for name in names:
            image = Image.open(io.BytesIO(tar.extractfile(name).read())).convert("RGB")
            margin = image.width / 16
            box = (margin, margin, image.width - margin, image.height - margin)
            pixels.append(np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box=box)))
    people = np.unique([name.split("/")[-2] for name in names], return_inverse=True)[1]
    return people, np.stack(pixels).transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1


def features(session, pixels):
    """What the last layer reads, and what it gives: a row a crop, of unit length."""
    found = [session.run(None, {session.get_inputs()[0].name: part}) for part in np.array_split(pixels, len(pixels) // 32 + 1)]
    embedding, wide = (np.concatenate([part[i].reshape(len(part[i]), -1) for part in found]) for i in (0, 1))
    return unit(wide), unit(embedding)


def unit(rows):
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def accepted(people, rows):
    """VAL at each rate, over all pairs."""
    first, second = np.triu_indices(len(rows), 1)
    products = (rows @ rows.T)[first, second]
    same = people[first] == people[second]
    strangers = np.sort(products[~same])[::-1]
    return [float((products[same] > strangers[int(rate * len(strangers))]).mean()) for rate in RATES]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="what `vultus export` wrote")
    parser.add_argument("--fit", required=True, help="shard of training people")
    parser.add_argument("--held-out", required=True, help="shard of people to measure on")
    parser.add_argument("--crops", type=int, default=5000, help="how many PCA is fitted on")
    arguments = parser.parse_args()

    model = onnx.load(arguments.model)
    before = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")][-1].input[0]
    model.graph.output.append(onnx.ValueInfoProto(name=before))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    side = session.get_inputs()[0].shape[2]

    _, pixels = crops(arguments.fit, side, arguments.crops)
    fitted, _ = features(session, pixels)
    mean = fitted.mean(0)
    _, values, axes = np.linalg.svd(fitted - mean, full_matrices=False)
    axes, scale = axes[:DIMENSIONS], values[:DIMENSIONS] / np.sqrt(len(fitted))

    people, pixels = crops(arguments.held_out, side)
    wide, embedding = features(session, pixels)
    reduced = (wide - mean) @ axes.T
    print(f"{len(people)} crops of {people.max() + 1} people; VAL at {', '.join(f'{rate:g}' for rate in RATES)}")
    for name, rows in [
        ("embedding", embedding),
        (f"{wide.shape[1]} wide features", wide),
        (f"PCA to {DIMENSIONS}", unit(reduced)),
        ("the same, whitened", unit(reduced / scale)),
    ]:
        print(f"{name:>24}: " + "  ".join(f"{value:.3f}" for value in accepted(people, rows)))


if __name__ == "__main__":
    main()
