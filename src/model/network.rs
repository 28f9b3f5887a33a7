//! The network: a small residual net of dense 3x3 convolutions, from pixels to 128 numbers of unit length.
//!
//! He et al. 2016 (arXiv:1512.03385), basic blocks; the embedding and its normalisation follow the FaceNet paper (section 3). Dense
//! convolutions, because depthwise ones are slower for the same accuracy on the kernels that we have. Batch normalisation
//! disappears into the weights after training ([`FaceNet::folded`]), and the same definition then embeds.

use candle_core::{DType, Device, Result, Tensor, Var, bail};
use candle_nn::{Init, VarBuilder};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::conv::{Activation, ConvParams, conv2d};
use super::graph::{ConvLayer, Graph, Op};
use super::kernel::{Rectifier, Shape};
use super::norm::{EPSILON, Moments, batch_norm};
use crate::{Crop, Embedding};

/// The size of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkConfig {
    /// Pixels on a side of the input: 112 or a whole fraction of it (crops are averaged down).
    pub input_side: usize,
    /// Channels of the first convolution (3x3, stride 2).
    pub stem: usize,
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
        Self { input_side: 56, stem: 32, stages: vec![stage(64), stage(128), stage(192)] }
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
        sum + side * side * channels * Embedding::DIMENSIONS as u64
    }
}

/// Whether statistics come from the batch (and are remembered) or from memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Normalise by the batch, and move the running statistics towards it.
    Train,
    /// Normalise by the running statistics.
    Embed,
}

/// The embedding network.
#[derive(Clone)]
pub struct FaceNet {
    stem: Unit,
    blocks: Vec<Block>,
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
        let whole = ConvParams::default();
        let head = Unit::new(&weights.pp("head"), (config.final_side(), channels, Embedding::DIMENSIONS), whole)?;
        Ok(Self { stem, blocks, head })
    }

    /// Pixels to embeddings.
    ///
    /// - `x`: `(batch, side, side, 3)`, values -1 to 1 (see [`input`]). Training computes in its type, `bf16` from `f32` weights too.
    /// - Returns `(batch, 128)`, rows of unit length; `f32` where `x` is `bf16`.
    ///
    /// # Errors
    /// When shapes disagree.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let mut x = self.stem.forward(x, mode)?;
        for block in &self.blocks {
            x = block.forward(&x, mode)?;
        }
        let x = self.head.forward(&x, mode)?.flatten_from(1)?;
        let x = if x.dtype() == DType::BF16 { x.to_dtype(DType::F32)? } else { x };
        let length = (x.sqr()?.sum_keepdim(1)? + 1e-12)?.sqrt()?;
        x.broadcast_div(&length)
    }

    /// The same function with batch normalisation multiplied into the weights: for embedding only.
    ///
    /// # Errors
    /// Only if the tensors' types are unusable.
    pub fn folded(&self) -> Result<Self> {
        let blocks = self.blocks.iter().map(Block::folded).collect::<Result<_>>()?;
        Ok(Self { stem: self.stem.folded()?, blocks, head: self.head.folded()? })
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
        Ok(Self { stem: self.stem.to_dtype(dtype)?, blocks, head: self.head.to_dtype(dtype)? })
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
        graph.push(value, self.head.layer(None, Activation::None)?);
        Ok(graph)
    }
}

/// A convolution, its normalisation and its activation.
#[derive(Clone)]
struct Unit {
    weight: Tensor,
    norm: Norm,
    params: ConvParams,
}

#[derive(Clone)]
enum Norm {
    Batch { gamma: Tensor, beta: Tensor, mean: Var, variance: Var },
    Folded { bias: Tensor },
}

impl Unit {
    fn new(weights: &VarBuilder<'_>, size: (usize, usize, usize), params: ConvParams) -> Result<Self> {
        let (kernel, channels, out) = size;
        let one = |name, value| weights.get_with_hints(out, name, Init::Const(value));
        let norm = Norm::Batch {
            gamma: one("gamma", 1.0)?,
            beta: one("beta", 0.0)?,
            mean: Var::from_tensor(&one("running_mean", 0.0)?)?,
            variance: Var::from_tensor(&one("running_variance", 1.0)?)?,
        };
        let weight = weights.get_with_hints((kernel, kernel, channels, out), "weight", Init::Const(0.0))?;
        Ok(Self { weight, norm, params })
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.forward_beside(x, None, mode)
    }

    /// With something added before the activation.
    fn forward_beside(&self, x: &Tensor, residual: Option<&Tensor>, mode: Mode) -> Result<Tensor> {
        let plain = ConvParams { activation: Activation::None, ..self.params };
        match (&self.norm, mode, residual) {
            (Norm::Folded { bias }, _, None) => conv2d(x, &self.weight, Some(bias), &self.params),
            (Norm::Folded { bias }, _, Some(residual)) => {
                let y = (conv2d(x, &self.weight, Some(bias), &plain)? + residual)?;
                if self.params.activation == Activation::Relu { y.relu() } else { Ok(y) }
            }
            (Norm::Batch { .. }, Mode::Embed, _) => self.folded()?.forward_beside(x, residual, mode),
            (Norm::Batch { gamma, beta, mean, variance }, Mode::Train, _) => {
                let y = conv2d(x, &self.weight.to_dtype(x.dtype())?, None, &plain)?;
                let moments = Moments::of(&y)?;
                let count = y.elem_count() as f64 / gamma.elem_count() as f64;
                remember(mean, &moments.mean()?, 1.0)?;
                // The running variance is the unbiased one.
                remember(variance, &moments.variance()?, count / (count - 1.0).max(1.0))?;
                let affine = Tensor::stack(&[gamma, beta], 0)?;
                batch_norm(&y, &affine, residual, moments, self.params.activation)
            }
        }
    }

    fn folded(&self) -> Result<Self> {
        let Norm::Batch { gamma, beta, mean, variance } = &self.norm else {
            return Ok(self.clone());
        };
        let scale = (gamma / (variance.as_tensor() + EPSILON)?.sqrt()?)?.detach();
        let bias = (beta - (mean.as_tensor() * &scale)?)?.detach();
        let weight = self.weight.detach().broadcast_mul(&scale)?;
        Ok(Self { weight, norm: Norm::Folded { bias }, params: self.params })
    }
}

impl Unit {
    fn to_dtype(&self, dtype: DType) -> Result<Self> {
        let Norm::Folded { bias } = &self.norm else { bail!("only a folded network changes its type") };
        let norm = Norm::Folded { bias: bias.to_dtype(dtype)? };
        Ok(Self { weight: self.weight.to_dtype(dtype)?, norm, params: self.params })
    }

    fn layer(&self, residual: Option<usize>, activation: Activation) -> Result<Op> {
        let folded = self.folded()?;
        let Norm::Folded { bias } = &folded.norm else { bail!("a folded unit has a bias") };
        let floats = |tensor: &Tensor| tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>();
        let (kernel_height, kernel_width, channels, out) = folded.weight.dims4()?;
        Ok(Op::Conv(ConvLayer {
            shape: Shape {
                kernel: [kernel_height, kernel_width],
                channels,
                out,
                groups: 1,
                stride: self.params.stride,
                padding: self.params.padding,
            },
            weight: floats(&folded.weight)?,
            bias: floats(bias)?,
            residual,
            rectifier: if activation == Activation::Relu { Rectifier::Relu } else { Rectifier::None },
        }))
    }
}

/// Moves a running statistic a tenth of the way to the batch's.
fn remember(running: &Var, batch: &Tensor, scale: f64) -> Result<()> {
    let batch = batch.to_dtype(running.dtype())?;
    running.set(&((running.as_tensor().detach() * 0.9)? + (batch * (0.1 * scale))?)?)
}

/// Two convolutions beside a shortcut.
#[derive(Clone)]
struct Block {
    first: Unit,
    second: Unit,
    shortcut: Option<Unit>,
}

impl Block {
    fn new(weights: &VarBuilder<'_>, channels: usize, out: usize, stride: usize) -> Result<Self> {
        let params = |stride, padding, activation| ConvParams { stride, padding, groups: 1, activation };
        let first = Unit::new(&weights.pp("first"), (3, channels, out), params(stride, 1, Activation::Relu))?;
        let second = Unit::new(&weights.pp("second"), (3, out, out), params(1, 1, Activation::Relu))?;
        let shortcut = match stride == 1 && channels == out {
            true => None,
            false => {
                let params = params(stride, 0, Activation::None);
                Some(Unit::new(&weights.pp("shortcut"), (1, channels, out), params)?)
            }
        };
        Ok(Self { first, second, shortcut })
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let shortcut = match &self.shortcut {
            Some(shortcut) => shortcut.forward(x, mode)?,
            None => x.clone(),
        };
        self.second.forward_beside(&self.first.forward(x, mode)?, Some(&shortcut), mode)
    }

    fn folded(&self) -> Result<Self> {
        let shortcut = self.shortcut.as_ref().map(Unit::folded).transpose()?;
        Ok(Self { first: self.first.folded()?, second: self.second.folded()?, shortcut })
    }
}

/// Crops as the network's input: averaged down to `side`, scaled to -1 to 1; `(batch, side, side, 3)`, `f32`, on `device`.
///
/// The bytes are what travels to another device; there they are averaged by the same sums.
///
/// # Errors
/// When `side` does not divide 112, or the device fails.
pub fn input(crops: &[Crop], side: usize, device: &Device) -> Result<Tensor> {
    if side == 0 || !Crop::SIDE.is_multiple_of(side) {
        bail!("input side {side}: expected a divisor of 112");
    }
    let step = Crop::SIDE / side;
    let scale = 1.0 / (127.5 * (step * step) as f32);
    if device.is_cpu() {
        let mut values = vec![0.0; crops.len() * side * side * 3];
        let rows = values.par_chunks_exact_mut(side * side * 3).zip(crops).with_min_len(CROPS);
        rows.for_each(|(values, crop)| average(crop, side, scale, values));
        return Tensor::from_vec(values, (crops.len(), side, side, 3), device);
    }
    averaged_there(crops, side, scale, device)
}

/// Averages on another device by adding slices: candle's sums there take a block of threads for each output.
fn averaged_there(crops: &[Crop], side: usize, scale: f32, device: &Device) -> Result<Tensor> {
    let step = Crop::SIDE / side;
    let mut bytes = Vec::with_capacity(crops.len() * Crop::SIDE * Crop::SIDE * 3);
    crops.iter().for_each(|crop| bytes.extend_from_slice(crop.pixels()));
    let cells = Tensor::from_vec(bytes, (crops.len() * side, step, side, step, 3), device)?.to_dtype(DType::F32)?;
    let sum = |cells: &Tensor, dim| {
        (1..step).try_fold(cells.get_on_dim(dim, 0)?, |sum, at| sum + cells.get_on_dim(dim, at)?)
    };
    let sums = sum(&sum(&cells, 1)?, 2)?.reshape((crops.len(), side, side, 3))?;
    sums.affine(f64::from(scale), -1.0)
}

/// Crops that one task averages at least: fewer are done sooner than another thread wakes.
const CROPS: usize = 4;

/// Rows are added first, in one long loop; what is left are sums of a few neighbours.
fn average(crop: &Crop, side: usize, scale: f32, values: &mut [f32]) {
    let (step, row) = (Crop::SIDE / side, Crop::SIDE * 3);
    let mut sums = vec![0u16; row];
    for (values, rows) in values.chunks_exact_mut(side * 3).zip(crop.pixels().chunks_exact(step * row)) {
        sums.fill(0);
        for row in rows.chunks_exact(row) {
            sums.iter_mut().zip(row).for_each(|(sum, byte)| *sum += u16::from(*byte));
        }
        for (values, cells) in values.chunks_exact_mut(3).zip(sums.chunks_exact(step * 3)) {
            let mut pixel = [0u32; 3];
            for cell in cells.as_chunks::<3>().0 {
                pixel.iter_mut().zip(cell).for_each(|(sum, value)| *sum += u32::from(*value));
            }
            values.iter_mut().zip(pixel).for_each(|(value, sum)| *value = sum as f32 * scale - 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use candle_nn::VarMap;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn crops_are_averaged_to_the_same_numbers_on_every_device() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let mut crop = || Crop::from_rgb((0..Crop::SIDE * Crop::SIDE * 3).map(|_| rng.random()).collect()).unwrap();
        let crops = [crop(), crop(), crop()];
        for side in [112, 56, 28, 16, 14] {
            let scale = 1.0 / (127.5 * ((Crop::SIDE / side) as f32).powi(2));
            let there = averaged_there(&crops, side, scale, &Device::Cpu).unwrap();
            let error = (there - input(&crops, side, &Device::Cpu).unwrap()).unwrap().abs().unwrap();
            assert!(error.max_all().unwrap().to_scalar::<f32>().unwrap() < 1e-6, "side {side}");
        }
    }

    #[test]
    fn folding_normalises_by_the_running_statistics() {
        let map = VarMap::new();
        let weights = VarBuilder::from_varmap(&map, DType::F64, &Device::Cpu);
        let params = ConvParams { padding: 1, activation: Activation::Relu, ..ConvParams::default() };
        let unit = Unit::new(&weights, (3, 2, 4), params).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut random = |shape: &[usize], low: f64| {
            let values: Vec<f64> = (0..shape.iter().product()).map(|_| rng.random_range(low..1.5)).collect();
            Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
        };
        for (name, var) in map.data().lock().unwrap().iter() {
            var.set(&random(var.dims(), if name.contains("variance") { 0.1 } else { -1.0 })).unwrap();
        }
        let x = random(&[2, 5, 4, 2], -1.0);
        let get = |name: &str| weights.get(4, name).unwrap();
        let plain = ConvParams { activation: Activation::None, ..params };
        let y = conv2d(&x, &unit.weight, None, &plain).unwrap();
        let deviation = (get("running_variance") + EPSILON).unwrap().sqrt().unwrap();
        let y = y.broadcast_sub(&get("running_mean")).unwrap().broadcast_div(&deviation).unwrap();
        let y = y.broadcast_mul(&get("gamma")).unwrap().broadcast_add(&get("beta")).unwrap().relu().unwrap();
        let folded = unit.forward(&x, Mode::Embed).unwrap();
        let error = (folded - y).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
        assert!(error < 1e-12, "off by {error}");
    }
}
