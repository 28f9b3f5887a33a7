//! A network in bytes: which numbers its weights and values are rounded to.
//!
//! Weights are signed bytes with one scale an output channel. Values behind a ReLU are unsigned bytes with one scale each, which is measured on
//! the values of real pictures; zero is the byte 0, so that borders stay zeros. The first convolution reads pixels and
//! stays in floats, and so do values that may be negative: those that are only added to others, and the output.
//!
//! Follows Jacob et al. 2018 (arXiv:1712.05877), with the clipping that gives the smallest squared error.

use super::Plan;
use crate::model::graph::{ConvLayer, Graph, Op};
use crate::model::kernel::{Rectifier, Shape};
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
}

/// Bins of the values from zero to the largest.
const BINS: usize = 4096;

impl ByteGraph {
    /// Measures the steps of the values of `graph` on pictures.
    ///
    /// - `x`: `(n, height, width, channels)` of `shape`, row after row.
    ///
    /// # Errors
    /// `Argument` when the pictures don't fit the network.
    pub(crate) fn measure(graph: &Graph, x: &[f32], shape: [usize; 4]) -> Result<Vec<f32>> {
        let plan = Plan::new(graph, [shape[1], shape[2]]);
        let behind_relu = |value: usize| {
            matches!(&graph.layers[value - 1].op, Op::Conv(ConvLayer { rectifier: Rectifier::Relu, .. }))
        };
        let mut counts: Vec<Histogram> = (0..=graph.layers.len()).map(|_| Histogram::default()).collect();
        plan.watch(x, shape, |value, values| {
            counts[value].largest = values.iter().fold(counts[value].largest, |most, value| most.max(*value));
        })?;
        plan.watch(x, shape, |value, values| counts[value].add(values))?;
        Ok(counts
            .iter()
            .enumerate()
            .map(|(value, counts)| if value > 0 && behind_relu(value) { counts.step() } else { 0.0 })
            .collect())
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
            let plain = conv.shape.groups == 1 && matches!(conv.rectifier, Rectifier::None | Rectifier::Relu);
            // A value is bytes if it has a step; what may be negative has none.
            let fits = relu == (steps[index + 1] > 0.0);
            if !plain || !fits || steps[layer.input] == 0.0 || conv.residual == Some(0) {
                return Err(unfit(index));
            }
            let (weights, scale) = round(&conv.weight, conv.shape.out);
            let (shape, residual, bias) = (conv.shape, conv.residual, conv.bias.clone());
            layers.push(ByteLayer { input: layer.input, residual, shape, weights, scale, bias });
        }
        let stem = stem.filter(|_| !layers.is_empty()).ok_or_else(|| unfit(0))?;
        if steps.last().is_some_and(|step| *step > 0.0) {
            return Err(Error::argument("network", "ends behind a ReLU: expected an output of floats"));
        }
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

/// How often values that are not negative have which size.
#[derive(Clone, Default)]
struct Histogram {
    largest: f32,
    bins: Vec<u64>,
}

impl Histogram {
    /// Counts values, none of them larger than `largest`.
    fn add(&mut self, values: &[f32]) {
        self.bins.resize(BINS, 0);
        let scale = BINS as f32 / self.largest;
        for value in values.iter().filter(|value| **value > 0.0) {
            self.bins[((value * scale) as usize).min(BINS - 1)] += 1;
        }
    }

    /// The step with which bytes are nearest to the values.
    fn step(&self) -> f32 {
        if self.largest == 0.0 {
            return 1.0;
        }
        let error = |step: f64| {
            let of = |(bin, count): (usize, &u64)| {
                let value = (bin as f64 + 0.5) / BINS as f64;
                let kept = (value / step).round_ties_even().min(255.0) * step;
                *count as f64 * (value - kept).powi(2)
            };
            self.bins.iter().enumerate().map(of).sum::<f64>()
        };
        let candidates = (10..=100).map(|percent| f64::from(percent) / 100.0 / 255.0);
        let best = candidates.min_by(|a, b| error(*a).total_cmp(&error(*b))).unwrap_or(1.0 / 255.0);
        best as f32 * self.largest
    }
}
