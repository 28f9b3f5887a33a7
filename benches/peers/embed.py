"""The embedding network against ONNX Runtime running our own export of it, and two of our threads against one.

    python3 benches/peers/embed.py [--precision fp32 int8] [--check]

Both sides get the same inputs, made from the faces of samples/. fp32 outputs must agree. int8 of ONNX Runtime is its own static
quantisation (QDQ, i8 weights a channel, u8 activations), calibrated on these faces; ours has the ranges that ship with the weights.
"""

import argparse

import common

common.inside(["numpy==2.4.6", "onnx==1.23.2", "onnxruntime==1.32.0"])

import numpy as np  # noqa: E402
import onnxruntime as ort  # noqa: E402
from onnxruntime import quantization as quant  # noqa: E402

# Of each precision: theirs / ours that we want, at batches of 1 and 32.
TARGETS = {"fp32": 1.0, "int8": 1.1}
BATCHES = [1, 32]
# Two threads at batch 32 against one.
THREADS_TARGET = 1.8


def session(path):
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class Calibration(quant.CalibrationDataReader):
    """One crop at a time."""

    def __init__(self, crops):
        self.crops = iter(crops)

    def get_next(self):
        crop = next(self.crops, None)
        return None if crop is None else {"crops": crop[None]}


def models(ours, crops, precisions):
    """The file of each precision."""
    fp32, int8 = common.scratch("face.onnx"), common.scratch("face-int8.onnx")
    ours("export-embedding", output=fp32)
    if "int8" in precisions:
        types = {"weight_type": quant.QuantType.QInt8, "activation_type": quant.QuantType.QUInt8}
        quant.quantize_static(fp32, int8, Calibration(crops), quant.QuantFormat.QDQ, per_channel=True, **types)
    return {"fp32": fp32, "int8": int8}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--precision", nargs="+", choices=TARGETS, default=["fp32", "int8"])
    arguments.add_argument("--photos", default=common.ROOT / "samples", help="folder of JPEGs (default: samples/)")
    arguments.add_argument("--check", action="store_true", help="exit with 1 when a ratio misses its target")
    arguments = arguments.parse_args()

    program = common.built()
    one, two = common.Ours(program), common.Ours(program, threads=2)
    all_crops = common.scratch("crops.f32")
    side = int(one("crops", photos=arguments.photos, output=all_crops)["side"])
    crops = np.fromfile(all_crops, "<f4").reshape(-1, side, side, 3)
    files = models(one, crops.transpose(0, 3, 1, 2), arguments.precision)

    table = None
    for precision in arguments.precision:
        theirs = session(files[precision])
        for batch in BATCHES:
            x, y = common.scratch(f"batch{batch}.f32"), common.scratch(f"embedding{batch}.f32")
            nhwc = np.resize(crops, (batch, side, side, 3))
            nhwc.tofile(x)
            nchw = {"crops": np.ascontiguousarray(nhwc.transpose(0, 3, 1, 2))}
            one(f"embed-{precision}", input=x, output=y, repeat=1)
            found = np.fromfile(y, "<f4").reshape(batch, -1)
            if precision == "fp32":
                common.agree(f"embed fp32, batch {batch}", found, theirs.run(None, nchw)[0])
            table = table or common.Table()
            run = common.timer(lambda: theirs.run(None, nchw))
            seconds = common.interleave(one.timer(f"embed-{precision}", input=x), run)
            table.add(f"embed {precision}, batch {batch}, a crop", *seconds, TARGETS[precision], per=batch)
        single, double = (side.timer(f"embed-{precision}", input=x) for side in (one, two))
        seconds = common.interleave(double, single)
        table.add(f"embed {precision}, batch 32: 2 threads | 1", *seconds, THREADS_TARGET, per=32)
    table.end(arguments.check)


if __name__ == "__main__":
    main()
