//! A network after training, as a list of layers: what embedding and detection run, and what ONNX export writes.
//!
//! Batch normalisation is already in the weights. Values are NHWC maps, numbered: 0 is the network's input, `i + 1` is what layer
//! `i` gave. A layer reads only values before it, and the last layer's value is the network's output.

use super::kernel::{Rectifier, Shape};

/// A chain of layers with shortcuts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Graph {
    pub(crate) layers: Vec<Layer>,
}

/// One layer and the number of the value that it reads.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) input: usize,
    pub(crate) op: Op,
}

/// What a layer does.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Convolution, then the residual, then the activation.
    Conv(ConvLayer),
    /// Largest value of each channel in windows of `window` pixels a side; windows are cut off at the far edges, and there are as many as it
    /// takes to see every pixel (ONNX's `ceil_mode`).
    MaxPool { window: usize, stride: usize },
    /// The whole map as one pixel: `(height, width, channels)` to `(1, 1, height · width · channels)`.
    Flatten,
}

/// Height, width and channels behind max-pooling.
pub(crate) fn pooled([height, width, channels]: [usize; 3], window: usize, stride: usize) -> Option<[usize; 3]> {
    let side = |side: usize| Some(side.checked_sub(window)?.div_ceil(stride) + 1);
    Some([side(height)?, side(width)?, channels])
}

/// A convolution with everything that is done to its output in the same pass.
#[derive(Clone, Debug)]
pub(crate) struct ConvLayer {
    pub(crate) shape: Shape,
    /// `(kernel height, kernel width, channels / groups, out)`, row after row.
    pub(crate) weight: Vec<f32>,
    /// One an output channel.
    pub(crate) bias: Vec<f32>,
    /// The value that is added before the activation.
    pub(crate) residual: Option<usize>,
    pub(crate) rectifier: Rectifier<Vec<f32>>,
}

impl Op {
    /// Height, width and channels of the output for those of the input, if it fits.
    pub(crate) fn output(&self, [height, width, channels]: [usize; 3]) -> Option<[usize; 3]> {
        match self {
            Self::Conv(conv) => conv.shape.output_of([height, width, channels]),
            Self::MaxPool { window, stride } => pooled([height, width, channels], *window, *stride),
            Self::Flatten => Some([1, 1, height * width * channels]),
        }
    }
}

impl Graph {
    /// Appends a layer; returns the number of its value.
    pub(crate) fn push(&mut self, input: usize, op: Op) -> usize {
        self.layers.push(Layer { input, op });
        self.layers.len()
    }
}
