"""Writes tiny.hdf5 beside it: a data set as ann-benchmarks has them, small enough to read byte by byte. Needs h5py 3 and numpy."""

import pathlib

import h5py
import numpy as np

rng = np.random.default_rng(1)
train, test = rng.standard_normal((60, 8)), rng.standard_normal((5, 8))
unit = train / np.linalg.norm(train, axis=1, keepdims=True)
with h5py.File(pathlib.Path(__file__).with_name("tiny.hdf5"), "w") as file:
    file.attrs.update({"type": "dense", "distance": "angular", "dimension": 8, "point_type": "float"})
    file["train"], file["test"] = train.astype("f4"), test.astype("f4")
    order = np.argsort(-test @ unit.T)[:, :4]
    file["neighbors"] = order.astype("i4")
    file["distances"] = (1 - np.take_along_axis(test @ unit.T, order, 1) / np.linalg.norm(test, axis=1, keepdims=True)).astype("f4")
