"""The detector against the same three nets in ONNX Runtime, on 640 x 480 pixels with faces from 40 px, one thread.

    python3 benches/peers/detect.py [--photo samples/groups/group00.jpg] [--check]

Two measures. "nets only" is the fair one, and the one with a target: both sides run the three nets on the same inputs, the levels and
candidates of the peer's own pipeline. "pipeline" is all of it, where the peer's pyramid and suppression are NumPy and Pillow, in Python: it
says what somebody gains who changes over, not whose nets are faster.
"""

import argparse

import common

common.inside(["numpy==2.4.6", "onnxruntime==1.32.0", "pillow==13.0.0"])

import numpy as np  # noqa: E402
import onnxruntime as ort  # noqa: E402
from PIL import Image  # noqa: E402

TARGET = 1.0
# As src/detect/mtcnn.rs has them.
CELL, STRIDE, SCALE_STEP, FACE_PX_MIN = 12, 2, 0.709, 40
THRESHOLDS = [0.6, 0.7, 0.7]
NETS = ["proposal", "refine", "output"]


class Peer:
    """MTCNN in Python. `seen` holds what each net was shown in the last run."""

    def __init__(self, ours):
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.sessions, self.seen = {}, []
        for name in NETS:
            path = common.scratch(f"{name}.onnx")
            ours(f"export-{name}", output=path)
            self.sessions[name] = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(self, name, pixels):
        """`pixels`: `(n, height, width, 3)` bytes; returns `(n, outputs, …)`."""
        x = np.ascontiguousarray(((pixels.astype(np.float32) - 127.5) / 128).transpose(0, 3, 1, 2))
        self.seen.append((name, x))
        return self.sessions[name].run(None, {"pixels": x})[0]

    def detect(self, photo):
        self.seen = []
        whole = Image.fromarray(photo)
        boxes = self.propose(whole)
        for name, side, threshold in (("refine", 24, THRESHOLDS[1]), ("output", 48, THRESHOLDS[2])):
            boxes = np.trunc(boxes)
            boxes = boxes[(boxes[:, 2] >= boxes[:, 0]) & (boxes[:, 3] >= boxes[:, 1])]
            if not len(boxes):
                return boxes
            # What lies beyond the photo's edges is black.
            parts = [whole.crop((x1 - 1, y1 - 1, x2, y2)).resize((side, side), Image.BOX) for x1, y1, x2, y2 in boxes]
            heads = self.run(name, np.stack([np.asarray(part) for part in parts]))
            scores = probability(heads)
            kept = scores > threshold
            boxes, heads, scores = boxes[kept], heads[kept], scores[kept]
            sides = np.tile(boxes[:, 2:] - boxes[:, :2] + 1, 2)
            if name == "refine":
                order = suppress(boxes, scores, 0.7)
                boxes = squared(boxes[order] + heads[order, 2:6] * sides[order])
            else:
                boxes = boxes + heads[:, 2:6] * sides
                boxes = boxes[suppress(boxes, scores, 0.7, smaller=True)]
        return boxes

    def propose(self, whole):
        scale, found = CELL / FACE_PX_MIN, []
        while min(whole.size) * scale >= CELL:
            size = [int(np.ceil(side * scale)) for side in whole.size]
            heads = self.run("proposal", np.asarray(whole.resize(size, Image.BOX))[None])[0]
            scores = probability(heads[None])[0]
            rows, columns = np.nonzero(scores > THRESHOLDS[0])
            x, y = STRIDE * columns, STRIDE * rows
            boxes = np.trunc(np.stack([x + 1, y + 1, x + CELL, y + CELL], 1) / scale)
            offsets, scores = heads[2:6, rows, columns].T, scores[rows, columns]
            order = suppress(boxes, scores, 0.5)
            found.append((boxes[order], offsets[order], scores[order]))
            scale *= SCALE_STEP
        boxes, offsets, scores = (np.concatenate(part) for part in zip(*found))
        order = suppress(boxes, scores, 0.7)
        boxes, offsets = boxes[order], offsets[order]
        return squared(boxes + offsets * np.tile(boxes[:, 2:] - boxes[:, :2], 2))


def probability(heads):
    """Of "face", from the first two of axis 1."""
    return 1 / (1 + np.exp(heads[:, 0] - heads[:, 1]))


def squared(boxes):
    """Squares with the longer side, around the same middles."""
    sides = boxes[:, 2:] - boxes[:, :2]
    longer = sides.max(1, keepdims=True)
    corners = boxes[:, :2] + (sides - longer) / 2
    return np.concatenate([corners, corners + longer], 1)


def suppress(boxes, scores, threshold, smaller=False):
    """Indices of the best of those that overlap by more than `threshold`, best first."""
    areas = np.prod(boxes[:, 2:] - boxes[:, :2] + 1, 1)
    order, kept = np.argsort(-scores), []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        shared = np.minimum(boxes[rest, 2:], boxes[best, 2:]) - np.maximum(boxes[rest, :2], boxes[best, :2]) + 1
        shared = np.prod(np.maximum(shared, 0), 1)
        against = np.minimum(areas[rest], areas[best]) if smaller else areas[rest] + areas[best] - shared
        order = rest[shared / against <= threshold]
    return kept


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--photo", default="samples/groups/group00.jpg", help="JPEG (default: %(default)s)")
    arguments.add_argument("--check", action="store_true", help="exit with 1 when the ratio misses its target")
    arguments = arguments.parse_args()

    ours = common.Ours(common.built())
    peer = Peer(ours)
    pixels = common.scratch("photo.rgb")
    ours("photo", photo=arguments.photo, output=pixels)
    photo = np.fromfile(pixels, np.uint8).reshape(480, 640, 3)

    faces = len(peer.detect(photo))
    seen = list(peer.seen)
    levels = sum(name == "proposal" for name, _ in seen)
    counts = ", ".join(f"{len(x)} to {name}" for name, x in seen if name != "proposal")
    found = ours("detect", photo=arguments.photo, repeat=1)["faces"]
    print(f"{faces} faces, ours {found}; {levels} levels, {counts}")

    questions = []
    for at, (name, x) in enumerate(seen):
        path, answer = common.scratch(f"seen{at}.f32"), common.scratch(f"heads{at}.f32")
        x.transpose(0, 2, 3, 1).tofile(path)
        shape = {"count": len(x), "height": x.shape[2], "width": x.shape[3]}
        questions.append((f"net-{name}", {"input": path, **shape}))
        ours(f"net-{name}", input=path, output=answer, repeat=1, **shape)
        theirs = peer.sessions[name].run(None, {"pixels": x})[0]
        theirs = np.moveaxis(theirs, 1, -1).ravel()
        common.agree(f"{name} net on {shape}", np.fromfile(answer, "<f4"), theirs)

    table = common.Table()
    timers = [ours.timer(name, **values) for name, values in questions]
    nets = common.timer(lambda: [peer.sessions[name].run(None, {"pixels": x}) for name, x in seen])
    table.add("detect, nets only", *common.interleave(lambda repeat: sum(t(repeat) for t in timers), nets), TARGET)
    pipeline = common.timer(lambda: peer.detect(photo))
    table.add("detect, pipeline", *common.interleave(ours.timer("detect", photo=arguments.photo), pipeline))
    table.end(arguments.check)


if __name__ == "__main__":
    main()
