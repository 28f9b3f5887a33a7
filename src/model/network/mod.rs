//! The network: a small residual net of dense 3x3 convolutions, from pixels to 128 numbers of unit length.
//!
//! He et al. 2016 (arXiv:1512.03385), basic blocks; the embedding and its normalisation follow the FaceNet paper (section 3). Dense
//! convolutions, because depthwise ones are slower for the same accuracy on the kernels that we have. Batch normalisation
//! disappears into the weights after training ([`FaceNet::folded`]), and the same definition then embeds.

mod input;
mod unit;

use candle_core::backprop::GradStore;
use candle_core::{DType, Result, Tensor, Var, bail};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

pub use input::input;
use unit::{Block, BlockTrace, Trace, Unit};

use super::conv::{Activation, ConvParams};
use super::graph::Graph;
use crate::{Crop, Embedding};

/// The size of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkConfig {
    /// Pixels on a side of the input: 112 or a whole fraction of it (crops are averaged down).
    pub input_side: usize,
    /// Channels of the first convolution (3x3, stride 2).
    pub stem: usize,
    /// Channels of the 1x1 convolution between the last stage and the head, if there is one: the head's weights are most of a network
    /// without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neck: Option<usize>,
    /// Stages of residual blocks; the first block of each halves height and width.
    pub stages: Vec<StageConfig>,
}

/// One stage of residual blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageConfig {
    /// Channels of every block.
    pub channels: usize,
    /// How many blocks.
    pub blocks: usize,
}

impl Default for NetworkConfig {
    /// The first model: 56x56 input, 70 million multiplications a crop.
    fn default() -> Self {
        let stage = |channels| StageConfig { channels, blocks: 2 };
        Self { input_side: 56, stem: 32, neck: None, stages: vec![stage(64), stage(128), stage(192)] }
    }
}

impl NetworkConfig {
    /// Side of the last feature map.
    fn final_side(&self) -> usize {
        (0..=self.stages.len()).fold(self.input_side, |side, _| side.div_ceil(2))
    }

    /// Whether such a network can be made.
    ///
    /// # Errors
    /// When a size is zero, unreasonably large, or the input side does not divide 112.
    pub fn check(&self) -> Result<()> {
        let channels = |c: usize| (1..=4096).contains(&c);
        if self.input_side < 14 || !Crop::SIDE.is_multiple_of(self.input_side) {
            bail!("input side {}: expected 112 or a whole fraction of it, at least 14", self.input_side);
        }
        if self.neck.is_some_and(|neck| !channels(neck)) {
            bail!("expected a neck of 1 to 4096 channels");
        }
        if !channels(self.stem) || self.stages.is_empty() || self.stages.len() > 5 {
            bail!("expected a stem of 1 to 4096 channels and 1 to 5 stages");
        }
        if self.stages.iter().any(|s| !channels(s.channels) || !(1..=64).contains(&s.blocks)) {
            bail!("expected stages of 1 to 4096 channels and 1 to 64 blocks");
        }
        Ok(())
    }

    /// Multiplications of one crop, for sizes that pass [`check`](Self::check).
    pub fn multiplications(&self) -> u64 {
        let mut side = self.input_side.div_ceil(2) as u64;
        let mut channels = self.stem as u64;
        let mut sum = side * side * 27 * channels;
        for stage in &self.stages {
            side = side.div_ceil(2);
            let (area, out) = (side * side, stage.channels as u64);
            sum += area * out * (10 * channels + 9 * out) + (stage.blocks as u64 - 1) * area * 18 * out * out;
            channels = out;
        }
        if let Some(neck) = self.neck {
            sum += side * side * channels * neck as u64;
            channels = neck as u64;
        }
        sum + side * side * channels * Embedding::DIMENSIONS as u64
    }
}

/// The embedding network.
#[derive(Clone)]
pub struct FaceNet {
    stem: Unit,
    blocks: Vec<Block>,
    neck: Option<Unit>,
    head: Unit,
}

impl FaceNet {
    /// Takes its weights from `weights`, by name; a builder over a `VarMap` makes them.
    ///
    /// # Errors
    /// When the configuration is unreasonable, or a tensor is missing or has another shape.
    pub fn new(config: &NetworkConfig, weights: &VarBuilder<'_>) -> Result<Self> {
        config.check()?;
        let down = |activation| ConvParams { stride: 2, padding: 1, groups: 1, activation };
        let stem = Unit::new(&weights.pp("stem"), (3, 3, config.stem), down(Activation::Relu))?;
        let mut blocks = Vec::new();
        let mut channels = config.stem;
        for stage in &config.stages {
            for place in 0..stage.blocks {
                let weights = weights.pp(format!("blocks.{}", blocks.len()));
                blocks.push(Block::new(&weights, channels, stage.channels, if place == 0 { 2 } else { 1 })?);
                channels = stage.channels;
            }
        }
        let alone = ConvParams { activation: Activation::Relu, ..ConvParams::default() };
        let neck = config.neck.map(|neck| Unit::new(&weights.pp("neck"), (1, channels, neck), alone)).transpose()?;
        let channels = config.neck.unwrap_or(channels);
        let whole = ConvParams::default();
        let head = Unit::new(&weights.pp("head"), (config.final_side(), channels, Embedding::DIMENSIONS), whole)?;
        Ok(Self { stem, blocks, neck, head })
    }

    /// Pixels to embeddings, normalised by the running statistics.
    ///
    /// - `x`: `(batch, side, side, 3)`, values -1 to 1 (see [`input`]), of the type of the weights.
    /// - Returns `(batch, 128)`, rows of unit length; `f32` where `x` is `bf16`.
    ///
    /// # Errors
    /// When shapes disagree.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = self.stem.forward(x, None)?;
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        if let Some(neck) = &self.neck {
            x = neck.forward(&x, None)?;
        }
        unit_length(&self.head.forward(&x, None)?)
    }

    /// The same, normalised by the batch, towards which the running statistics move: a step's way forward.
    ///
    /// - `x`: as for [`forward`](Self::forward); the network computes in its type, `bf16` from `f32` weights too.
    /// - `dropped`: factors of what the head reads, of [`head_input`](Self::head_input)'s shape: dropout.
    ///
    /// # Errors
    /// When shapes disagree.
    pub fn train(&self, x: &Tensor, dropped: Option<&Tensor>) -> Result<Pass<'_>> {
        let stem = self.stem.train(x, None)?;
        let mut blocks: Vec<BlockTrace> = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let trace = block.train(blocks.last().map_or(&stem.out, |trace| trace.out()))?;
            blocks.push(trace);
        }
        let body = blocks.last().map_or(&stem.out, |trace| trace.out());
        let neck = self.neck.as_ref().map(|neck| neck.train(body, None)).transpose()?;
        let before = neck.as_ref().map_or(body, |trace| &trace.out);
        let dropped = dropped.map(|factors| factors.to_dtype(before.dtype())).transpose()?;
        let head = match &dropped {
            Some(factors) => self.head.train(&(before * factors)?, None)?,
            None => self.head.train(before, None)?,
        };
        let features = Var::from_tensor(&head.out)?;
        let embeddings = unit_length(features.as_tensor())?;
        Ok(Pass { net: self, stem, blocks, neck, dropped, head, features, embeddings })
    }

    /// The shape of what the head reads of a batch: `(batch, side, side, channels)`.
    pub fn head_input(&self, batch: usize) -> [usize; 4] {
        let [side, channels] = self.head.input();
        [batch, side, side, channels]
    }

    /// The same function with batch normalisation multiplied into the weights: for embedding only.
    ///
    /// # Errors
    /// Only if the tensors' types are unusable.
    pub fn folded(&self) -> Result<Self> {
        let blocks = self.blocks.iter().map(Block::folded).collect::<Result<_>>()?;
        let neck = self.neck.as_ref().map(Unit::folded).transpose()?;
        Ok(Self { stem: self.stem.folded()?, blocks, neck, head: self.head.folded()? })
    }

    /// A folded network with its numbers in another type: what it computes in.
    ///
    /// # Errors
    /// When it is not folded, or the type is unusable.
    pub(crate) fn to_dtype(&self, dtype: DType) -> Result<Self> {
        let block = |block: &Block| {
            let shortcut = block.shortcut.as_ref().map(|unit| unit.to_dtype(dtype)).transpose()?;
            Ok(Block { first: block.first.to_dtype(dtype)?, second: block.second.to_dtype(dtype)?, shortcut })
        };
        let blocks = self.blocks.iter().map(block).collect::<Result<_>>()?;
        let neck = self.neck.as_ref().map(|unit| unit.to_dtype(dtype)).transpose()?;
        Ok(Self { stem: self.stem.to_dtype(dtype)?, blocks, neck, head: self.head.to_dtype(dtype)? })
    }

    /// The same function up to the last normalisation to unit length, as layers with numbers: for embedding without candle, and
    /// for export.
    ///
    /// # Errors
    /// Only if the tensors' types are unusable.
    pub(crate) fn graph(&self) -> Result<Graph> {
        let mut graph = Graph::default();
        let mut value = graph.push(0, self.stem.layer(None, self.stem.params.activation)?);
        for block in &self.blocks {
            let shortcut = match &block.shortcut {
                Some(shortcut) => graph.push(value, shortcut.layer(None, Activation::None)?),
                None => value,
            };
            value = graph.push(value, block.first.layer(None, Activation::Relu)?);
            value = graph.push(value, block.second.layer(Some(shortcut), block.second.params.activation)?);
        }
        if let Some(neck) = &self.neck {
            value = graph.push(value, neck.layer(None, neck.params.activation)?);
        }
        graph.push(value, self.head.layer(None, Activation::None)?);
        Ok(graph)
    }
}

/// The head's weights for another input side, by bilinear interpolation: what each place of the last map counts for, at the new map's places.
///
/// - `weight`: `(side, side, channels, 128)`; `shape`: the same with another side.
///
/// # Errors
/// When other than the sides differ.
pub(crate) fn resized(weight: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let (from, _, channels, out) = weight.dims4()?;
    let [to, _, ..] = shape else { bail!("expected four sizes, found {shape:?}") };
    if shape != [*to, *to, channels, out] {
        bail!("{:?} can't be resized to {shape:?}", weight.dims());
    }
    // Row `i`: what each of the old places gives to the new place `i`; as many places more share as much less each.
    let mut factors = vec![0.0f32; to * from];
    for i in 0..*to {
        let at = ((i as f32 + 0.5) * from as f32 / *to as f32 - 0.5).clamp(0.0, (from - 1) as f32);
        let (low, share) = (at.floor() as usize, at.fract());
        factors[i * from + low] += (1.0 - share) * from as f32 / *to as f32;
        factors[i * from + (low + 1).min(from - 1)] += share * from as f32 / *to as f32;
    }
    let factors = Tensor::from_vec(factors, (*to, from), weight.device())?;
    let rows = factors.matmul(&weight.reshape((from, from * channels * out))?)?.reshape((*to, from, channels * out))?;
    let columns = rows.transpose(0, 1)?.contiguous()?.reshape((from, to * channels * out))?;
    let both = factors.matmul(&columns)?.reshape((*to, *to, channels * out))?.transpose(0, 1)?.contiguous()?;
    both.reshape(shape)
}

/// Rows scaled to unit length, as `f32` where they were `bf16`.
fn unit_length(features: &Tensor) -> Result<Tensor> {
    let x = features.flatten_from(1)?;
    let x = if x.dtype() == DType::BF16 { x.to_dtype(DType::F32)? } else { x };
    let length = (x.sqr()?.sum_keepdim(1)? + 1e-12)?.sqrt()?;
    x.broadcast_div(&length)
}

/// One way forward, and what the way back needs.
///
/// The way back is written out, layer by layer: candle would begin each gradient with zeros and add to them, two passes more over memory
/// for each layer. What follows the embeddings is differentiated by candle.
pub struct Pass<'a> {
    net: &'a FaceNet,
    stem: Trace,
    blocks: Vec<BlockTrace>,
    neck: Option<Trace>,
    dropped: Option<Tensor>,
    head: Trace,
    /// What the embeddings were scaled from: where candle's gradients end.
    features: Var,
    embeddings: Tensor,
}

impl Pass<'_> {
    /// `(batch, 128)`, rows of unit length.
    pub fn embeddings(&self) -> &Tensor {
        &self.embeddings
    }

    /// The gradients of a loss, of all variables that it depends on: those of the network, and others that it was computed from.
    ///
    /// # Errors
    /// When the loss does not depend on the embeddings, or the device fails.
    pub fn backward(self, loss: &Tensor) -> Result<GradStore> {
        let mut grads = loss.backward()?;
        let Some(grad) = grads.remove(&self.features) else { bail!("the loss does not depend on the embeddings") };
        let mut grad = self.net.head.backward(self.head, &grad, &mut grads)?.input;
        if let Some(factors) = &self.dropped {
            grad = (grad * factors)?;
        }
        if let (Some(neck), Some(trace)) = (&self.net.neck, self.neck) {
            grad = neck.backward(trace, &grad, &mut grads)?.input;
        }
        for (block, trace) in self.net.blocks.iter().zip(self.blocks).rev() {
            grad = block.backward(trace, &grad, &mut grads)?;
        }
        // Nobody asks for the gradient of the pixels.
        self.net.stem.backward_weights(self.stem, &grad, &mut grads)?;
        Ok(grads)
    }
}
