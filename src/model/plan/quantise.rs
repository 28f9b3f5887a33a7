//! A network in bytes: which numbers its weights and values are rounded to.
//!
//! Weights are signed bytes with one scale an output channel. Values behind a ReLU are unsigned bytes with one scale each, which is measured on
//! the values of real pictures; zero is the byte 0, so that borders stay zeros. The first convolution reads pixels and
//! stays in floats, and so do values that may be negative: those that are only added to others, and the output.
//!
//! Follows Jacob et al. 2018 (arXiv:1712.05877), with the clipping that gives the smallest squared error.

use super::{Plan, Threads};
use crate::model::graph::{ConvLayer, Graph, Op, Rectifier};
use crate::model::kernel::Shape;
use crate::{Error, Result};

/// A network of convolutions, all but the first one in bytes.
#[derive(Clone, Debug)]
pub(crate) struct ByteGraph {
    pub(crate) stem: ConvLayer,
    /// The stem's values are number 1, as in [`Graph`].
    pub(crate) layers: Vec<ByteLayer>,
    /// How much one step of each value's bytes is worth, by the value's number; values of floats have 0.
    pub(crate) steps: Vec<f32>,
}

/// One convolution in bytes.
#[derive(Clone, Debug)]
pub(crate) struct ByteLayer {
    pub(crate) input: usize,
    pub(crate) residual: Option<usize>,
    pub(crate) shape: Shape,
    /// `(kernel height, kernel width, channels, out)`.
    pub(crate) weights: Vec<i8>,
    /// What one step of the weights is worth, an output channel.
    pub(crate) scale: Vec<f32>,
    pub(crate) bias: Vec<f32>,
    /// Whether the values are bytes; floats have no rectifier.
    pub(crate) relu: bool,
}

/// Bins of the values from zero to the largest.
const BINS: usize = 4096;

/// Pictures whose values are counted at once.
const TOGETHER: usize = 32;

impl ByteGraph {
    /// Measures the steps of the values of `graph` on pictures.
    ///
    /// - `x`: `(n, height, width, channels)` of `shape`, row after row.
    ///
    /// # Errors
    /// `Argument` when the pictures don't fit the network.
    pub(crate) fn measure(graph: &Graph, x: &[f32], shape: [usize; 4]) -> Result<Vec<f32>> {
        let mut steps = vec![0.0; graph.layers.len() + 1];
        for (index, layer) in graph.layers.iter().enumerate() {
            let Op::Conv(ConvLayer { rectifier: Rectifier::Relu, .. }) = layer.op else { continue };
            let plan = Plan::new(&Graph { layers: graph.layers[..=index].to_vec() });
            let each = (shape[1] * shape[2] * shape[3]).max(1);
            let values = x.chunks(TOGETHER * each).map(|x| {
                let shape = [x.len() / each, shape[1], shape[2], shape[3]];
                plan.run(x, shape, Threads::All).map(|(values, _)| values)
            });
            steps[index + 1] = step(&values.collect::<Result<Vec<_>>>()?.concat());
        }
        Ok(steps)
    }

    /// Rounds the weights of `graph`.
    ///
    /// # Errors
    /// `Argument` when the network is not one of plain convolutions with ReLU, or the steps are not those of its values.
    pub(crate) fn new(graph: &Graph, steps: Vec<f32>) -> Result<Self> {
        if steps.len() != graph.layers.len() + 1 || steps.iter().any(|step| !step.is_finite() || *step < 0.0) {
            return Err(Error::argument("steps", "expected a step for each value of the network"));
        }
        let unfit = |layer: usize| {
            let what =
                format!("layer {layer} is not a plain convolution behind a ReLU, and such alone can be in bytes");
            Error::argument("network", what)
        };
        let mut stem = None;
        let mut layers = Vec::new();
        for (index, layer) in graph.layers.iter().enumerate() {
            let Op::Conv(conv) = &layer.op else { return Err(unfit(index)) };
            let relu = conv.rectifier == Rectifier::Relu;
            if index == 0 && relu && conv.residual.is_none() && steps[1] > 0.0 {
                stem = Some(conv.clone());
                continue;
            }
            let plain = conv.groups == 1 && matches!(conv.rectifier, Rectifier::None | Rectifier::Relu);
            let positive = !relu || steps[index + 1] > 0.0;
            if !plain || !positive || steps[layer.input] == 0.0 || conv.residual == Some(0) {
                return Err(unfit(index));
            }
            let (weights, scale) = round(&conv.weight, conv.out);
            let shape = Shape {
                kernel: conv.kernel,
                channels: conv.channels,
                out: conv.out,
                groups: 1,
                stride: conv.stride,
                padding: conv.padding,
            };
            let (residual, bias) = (conv.residual, conv.bias.clone());
            layers.push(ByteLayer { input: layer.input, residual, shape, weights, scale, bias, relu });
        }
        let stem = stem.filter(|_| !layers.is_empty()).ok_or_else(|| unfit(0))?;
        Ok(Self { stem, layers, steps })
    }
}

/// Weights `(rows, out)` as multiples of a scale an output channel.
fn round(weights: &[f32], out: usize) -> (Vec<i8>, Vec<f32>) {
    let mut scale = vec![0.0f32; out];
    for row in weights.chunks_exact(out) {
        scale.iter_mut().zip(row).for_each(|(most, weight)| *most = most.max(weight.abs() / 127.0));
    }
    // A channel of zeros has no largest weight.
    scale.iter_mut().filter(|scale| **scale == 0.0).for_each(|scale| *scale = 1.0);
    let round = |(weight, scale): (&f32, &f32)| (weight / scale).round_ties_even() as i8;
    let rounded = weights.chunks_exact(out).flat_map(|row| row.iter().zip(&scale).map(round)).collect();
    (rounded, scale)
}

/// The step with which bytes are nearest to `values`, which are not negative.
fn step(values: &[f32]) -> f32 {
    let largest = values.iter().fold(0.0f32, |largest, value| largest.max(*value));
    if largest == 0.0 {
        return 1.0;
    }
    let mut bins = vec![0u64; BINS];
    for value in values.iter().filter(|value| **value > 0.0) {
        bins[((value / largest * BINS as f32) as usize).min(BINS - 1)] += 1;
    }
    let error = |step: f64| {
        let of = |(bin, count): (usize, &u64)| {
            let value = (bin as f64 + 0.5) / BINS as f64;
            let kept = (value / step).round_ties_even().min(255.0) * step;
            *count as f64 * (value - kept).powi(2)
        };
        bins.iter().enumerate().map(of).sum::<f64>()
    };
    let candidates = (10..=100).map(|percent| f64::from(percent) / 100.0 / 255.0);
    let best = candidates.min_by(|a, b| error(*a).total_cmp(&error(*b))).unwrap_or(1.0 / 255.0);
    best as f32 * largest
}
