//! Networks, in floats or in bytes, to plans: which borders values have, and which weights are packed how.

use std::sync::Mutex;

use super::Plan;
use super::quantise::{ByteGraph, ByteLayer};
use super::step::{Kind, Step, Work};
use crate::model::graph::{ConvLayer, Graph, Op};
use crate::model::kernel::{ByteConvolution, ByteWeights, Convolution, Level};

/// The most pictures that go through a layer together. Weights of bytes are soon read, and values of few pictures stay in the cache.
const TOGETHER_IN_FLOATS: usize = 8;
const TOGETHER_IN_BYTES: usize = 4;

impl Plan {
    /// Packs the weights of `graph` for this CPU.
    ///
    /// - `size`: height and width that inputs have, about: others work, and may be slower.
    pub(crate) fn new(graph: &Graph, size: [usize; 2]) -> Self {
        Self::at_level(graph, size, Level::best())
    }

    /// The same for a network in bytes: the same bits on every CPU behind the first convolution, which computes with floats.
    pub(crate) fn in_bytes(graph: &ByteGraph, size: [usize; 2]) -> Self {
        Self::in_bytes_at_level(graph, size, Level::best())
    }

    pub(super) fn at_level(graph: &Graph, size: [usize; 2], level: Level) -> Self {
        let channels = graph.layers.iter().find_map(|layer| match &layer.op {
            Op::Conv(conv) => Some(conv.shape.channels),
            _ => None,
        });
        let mut plan = Self::empty(level, TOGETHER_IN_FLOATS, channels.unwrap_or(0));
        let mut sizes = vec![Some([size[0], size[1], plan.channels])];
        for layer in &graph.layers {
            let output = sizes[layer.input].and_then(|size| layer.op.output(size));
            let outputs = output.map_or(0, |[height, width, _]| height * width);
            sizes.push(output);
            let (work, residual, padding) = match &layer.op {
                Op::Conv(conv) => (Work::Conv(floats(level, conv, outputs)), conv.residual, conv.shape.padding),
                Op::MaxPool { window, stride } => (Work::MaxPool { window: *window, stride: *stride }, None, 0),
                Op::Flatten => (Work::Flatten, None, 0),
            };
            plan.push(layer.input, residual, padding, work);
        }
        plan
    }

    pub(super) fn in_bytes_at_level(graph: &ByteGraph, size: [usize; 2], level: Level) -> Self {
        let stem = &graph.stem;
        let mut plan = Self::empty(level, TOGETHER_IN_BYTES, stem.shape.channels);
        let outputs = stem.shape.output(size[0], size[1]).map_or(0, |[height, width]| height * width);
        plan.push(0, None, stem.shape.padding, Work::Stem(floats(level, stem, outputs), 1.0 / graph.steps[1]));
        for (index, layer) in graph.layers.iter().enumerate() {
            let step = graph.steps[index + 2];
            let residual_step = layer.residual.map_or(0.0, |value| graph.steps[value]);
            // Floats have no step.
            let residual_step = if residual_step > 0.0 { residual_step } else { 1.0 };
            let work = bytes(level, layer, graph.steps[layer.input], residual_step, step);
            plan.push(layer.input, layer.residual, layer.shape.padding, work);
        }
        plan
    }

    fn empty(level: Level, together: usize, channels: usize) -> Self {
        Self { level, together, steps: Vec::new(), channels, borders: vec![0], spare: Mutex::new(Vec::new()) }
    }

    fn push(&mut self, input: usize, residual: Option<usize>, padding: usize, work: Work) {
        self.borders[input] = self.borders[input].max(padding);
        self.borders.push(0);
        self.steps.push(Step { input, residual, work });
    }
}

fn floats(level: Level, conv: &ConvLayer, outputs: usize) -> Convolution {
    let rectifier = conv.rectifier.map(|slope| &slope[..]);
    Convolution::new(level, conv.shape, outputs, &conv.weight, &conv.bias, rectifier)
}

/// A layer in bytes: its sums, biases and residuals are reckoned in steps of its output, where that is bytes.
fn bytes(level: Level, layer: &ByteLayer, input_step: f32, residual_step: f32, step: f32) -> Work {
    let (kind, unit) = if step > 0.0 { (Kind::Bytes, 1.0 / step) } else { (Kind::Floats, 1.0) };
    let weights = ByteWeights {
        values: &layer.weights,
        scale: layer.scale.iter().map(|scale| scale * input_step * unit).collect(),
        bias: layer.bias.iter().map(|bias| bias * unit).collect(),
        residual_step: residual_step * unit,
    };
    Work::Bytes(ByteConvolution::new(level, layer.shape, weights), kind)
}
