//! What the network is made of: a convolution with its normalisation and activation, and two of these beside a shortcut.
//!
//! Each has its way forward for embedding, one for training that keeps what the way back needs, and that way back.

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Result, Tensor, Var, WithDType, bail};
use candle_nn::{Init, VarBuilder};
use rayon::prelude::*;

use crate::model::conv::{Activation, ConvParams, conv2d, input_gradient, narrowed, values, weight_gradient, widened};
use crate::model::graph::{ConvLayer, Op};
use crate::model::kernel::{Level, Rectifier, Shape};
use crate::model::norm::{BatchNorm, EPSILON, Moments};

/// A convolution, its normalisation and its activation.
#[derive(Clone)]
pub(super) struct Unit {
    weight: Tensor,
    norm: Norm,
    pub(super) params: ConvParams,
}

#[derive(Clone)]
enum Norm {
    Batch { gamma: Tensor, beta: Tensor, mean: Var, variance: Var },
    Folded { bias: Tensor },
}

impl Unit {
    pub(super) fn new(weights: &VarBuilder<'_>, size: (usize, usize, usize), params: ConvParams) -> Result<Self> {
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

    /// The side of the kernel, and the channels that it reads.
    pub(super) fn input(&self) -> [usize; 2] {
        [self.weight.dims()[0], self.weight.dims()[2]]
    }

    /// With something added before the activation.
    pub(super) fn forward(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let folded = self.folded()?;
        let Norm::Folded { bias } = &folded.norm else { bail!("a folded unit has a bias") };
        let Some(residual) = residual else { return conv2d(x, &folded.weight, Some(bias), &self.params) };
        let y = (conv2d(x, &folded.weight, Some(bias), &self.plain())? + residual)?;
        if self.params.activation == Activation::Relu { y.relu() } else { Ok(y) }
    }

    /// Its convolution alone.
    fn plain(&self) -> ConvParams {
        ConvParams { activation: Activation::None, ..self.params }
    }

    /// The same with the statistics of the batch, towards which the running ones move.
    pub(super) fn train(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Trace> {
        let Norm::Batch { gamma, beta, mean, variance } = &self.norm else { bail!("a folded unit does not learn") };
        let weight = self.weight.detach().to_dtype(x.dtype())?;
        let y = conv2d(x, &weight, None, &self.plain())?;
        let moments = Moments::of(&y)?;
        let count = y.elem_count() as f64 / gamma.elem_count() as f64;
        remember(mean, &moments.mean()?, 1.0)?;
        // The running variance is the unbiased one.
        remember(variance, &moments.variance()?, count / (count - 1.0).max(1.0))?;
        let affine = Tensor::stack(&[gamma, beta], 0)?.detach();
        let norm = BatchNorm { moments, activation: self.params.activation };
        let out = norm.apply(&y, &affine, residual)?;
        Ok(Trace { x: x.clone(), weight, y, norm, affine, residual: residual.is_some(), out })
    }

    /// Puts the gradients of weight, scale and offset into `grads`.
    pub(super) fn backward(&self, trace: Trace, grad: &Tensor, grads: &mut GradStore) -> Result<Gradients> {
        let (x, weight) = (trace.x.shape().clone(), trace.weight.clone());
        let (y, residual) = self.backward_weights(trace, grad, grads)?;
        Ok(Gradients { input: input_gradient(&weight, &y, &x, &self.plain())?, residual })
    }

    /// The same without the gradient of the input; returns those of the convolution's output and of the residual.
    pub(super) fn backward_weights(
        &self,
        trace: Trace,
        grad: &Tensor,
        grads: &mut GradStore,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let Norm::Batch { gamma, beta, .. } = &self.norm else { bail!("a folded unit does not learn") };
        let found = trace.norm.gradients(&trace.y, &trace.affine, trace.residual, &trace.out, grad)?;
        let weight = weight_gradient(&trace.x, &found.x, self.weight.shape(), &self.plain())?;
        grads.insert(&self.weight, weight.to_dtype(self.weight.dtype())?);
        grads.insert(gamma, found.affine.get(0)?);
        grads.insert(beta, found.affine.get(1)?);
        Ok((found.x, found.residual))
    }

    pub(super) fn folded(&self) -> Result<Self> {
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
    pub(super) fn to_dtype(&self, dtype: DType) -> Result<Self> {
        let Norm::Folded { bias } = &self.norm else { bail!("only a folded network changes its type") };
        let norm = Norm::Folded { bias: bias.to_dtype(dtype)? };
        Ok(Self { weight: self.weight.to_dtype(dtype)?, norm, params: self.params })
    }

    pub(super) fn layer(&self, residual: Option<usize>, activation: Activation) -> Result<Op> {
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

/// What a unit computed, for its way back.
pub(super) struct Trace {
    x: Tensor,
    /// In the type of `x`.
    weight: Tensor,
    /// What the convolution gave.
    y: Tensor,
    norm: BatchNorm,
    affine: Tensor,
    residual: bool,
    pub(super) out: Tensor,
}

/// Gradients of what a unit read.
pub(super) struct Gradients {
    pub(super) input: Tensor,
    pub(super) residual: Option<Tensor>,
}

/// `a + b`, where `a` is: a pass less over memory.
fn sum(a: Tensor, b: &Tensor) -> Result<Tensor> {
    if !a.device().is_cpu() || !matches!(a.dtype(), DType::F32 | DType::BF16) {
        return a + b;
    }
    a.inplace_op2(b, &AddTo)?;
    Ok(a)
}

struct AddTo;

impl InplaceOp2 for AddTo {
    fn name(&self) -> &'static str {
        "add-to"
    }

    fn cpu_fwd(&self, a: &mut CpuStorage, al: &Layout, b: &CpuStorage, bl: &Layout) -> Result<()> {
        let Some((start, end)) = al.contiguous_offsets() else {
            bail!("adding to {:?}: expected it contiguous", al.shape())
        };
        match a {
            CpuStorage::F32(a) => add(&mut a[start..end], values(b, bl)?, |a, b| a + b),
            CpuStorage::BF16(a) => {
                add(&mut a[start..end], values(b, bl)?, |a, b| narrowed(widened(a) + widened(b)));
            }
            _ => bail!("adding to {:?}: expected f32 or bf16", al.shape()),
        }
        Ok(())
    }
}

fn add<T: WithDType>(a: &mut [T], b: &[T], sum: impl Fn(T, T) -> T + Sync) {
    let parts = a.par_chunks_mut(CHUNK).zip(b.par_chunks(CHUNK));
    parts.for_each(|(a, b)| {
        Level::best().run(
            #[inline(always)]
            || a.iter_mut().zip(b).for_each(|(a, b)| *a = sum(*a, *b)),
        );
    });
}

/// Numbers that one task adds.
const CHUNK: usize = 1 << 14;

/// Moves a running statistic a tenth of the way to the batch's.
fn remember(running: &Var, batch: &Tensor, scale: f64) -> Result<()> {
    let batch = batch.to_dtype(running.dtype())?;
    running.set(&((running.as_tensor().detach() * 0.9)? + (batch * (0.1 * scale))?)?)
}

/// Two convolutions beside a shortcut.
#[derive(Clone)]
pub(super) struct Block {
    pub(super) first: Unit,
    pub(super) second: Unit,
    pub(super) shortcut: Option<Unit>,
}

/// What a block computed.
pub(super) struct BlockTrace {
    first: Trace,
    second: Trace,
    shortcut: Option<Trace>,
}

impl BlockTrace {
    pub(super) fn out(&self) -> &Tensor {
        &self.second.out
    }
}

impl Block {
    pub(super) fn new(weights: &VarBuilder<'_>, channels: usize, out: usize, stride: usize) -> Result<Self> {
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

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let shortcut = self.shortcut.as_ref().map(|unit| unit.forward(x, None)).transpose()?;
        self.second.forward(&self.first.forward(x, None)?, Some(shortcut.as_ref().unwrap_or(x)))
    }

    pub(super) fn train(&self, x: &Tensor) -> Result<BlockTrace> {
        let shortcut = self.shortcut.as_ref().map(|unit| unit.train(x, None)).transpose()?;
        let first = self.first.train(x, None)?;
        let second = self.second.train(&first.out, Some(shortcut.as_ref().map_or(x, |trace| &trace.out)))?;
        Ok(BlockTrace { first, second, shortcut })
    }

    /// The gradient of the input; those of the weights go into `grads`.
    pub(super) fn backward(&self, trace: BlockTrace, grad: &Tensor, grads: &mut GradStore) -> Result<Tensor> {
        let second = self.second.backward(trace.second, grad, grads)?;
        let first = self.first.backward(trace.first, &second.input, grads)?;
        let Some(beside) = second.residual else { bail!("a block has a residual") };
        let beside = match self.shortcut.as_ref().zip(trace.shortcut) {
            Some((unit, trace)) => unit.backward(trace, &beside, grads)?.input,
            None => beside,
        };
        sum(first.input, &beside)
    }

    pub(super) fn folded(&self) -> Result<Self> {
        let shortcut = self.shortcut.as_ref().map(Unit::folded).transpose()?;
        Ok(Self { first: self.first.folded()?, second: self.second.folded()?, shortcut })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use candle_core::Device;
    use candle_nn::VarMap;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

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
        let folded = unit.forward(&x, None).unwrap();
        let error = (folded - y).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
        assert!(error < 1e-12, "off by {error}");
    }
}
