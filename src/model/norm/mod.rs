//! Batch normalisation over the last dimension, with the residual and the activation that follow it, as one differentiable operation.
//!
//! Ioffe & Szegedy 2015 (arXiv:1502.03167), algorithm 1. Written out because the stock one works on NCHW and takes about ten
//! passes over the activations. Moments stay on the tensor's device, so that nothing here waits for it.

#[cfg(test)]
mod composed;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Storage, Tensor, WithDType, bail,
};

use super::conv::{Activation, values};
use cpu::Stored;
use half::bf16;

/// Added to the variance, so that a constant channel stays finite.
pub(crate) const EPSILON: f64 = 1e-5;

/// Mean and (biased) variance of each channel over a batch, on its device.
#[derive(Clone, Debug)]
pub(crate) struct Moments {
    /// `(2, channels)`: means, then variances; `f64` for `f64`, otherwise `f32`.
    both: Tensor,
}

impl Moments {
    /// Of `x`: `(…, channels)`, `f32`, `f64` or `bf16`. No gradient passes here: it passes in [`BatchNorm`].
    ///
    /// # Errors
    /// When `x` is empty or of another type.
    pub(crate) fn of(x: &Tensor) -> Result<Self> {
        let x = x.detach().contiguous()?;
        Ok(Self { both: x.apply_op1_no_bwd(&MomentsOf)? })
    }

    /// `(channels)`.
    pub(crate) fn mean(&self) -> Result<Tensor> {
        self.both.get(0)
    }

    /// `(channels)`, of the sample: the sum of squares divided by its count.
    pub(crate) fn variance(&self) -> Result<Tensor> {
        self.both.get(1)
    }
}

/// `activation(γ · (x - mean) / √(variance + ε) + β + residual)`, for each channel; differentiable in all three, through the moments.
#[derive(Clone)]
pub(crate) struct BatchNorm {
    /// Of the `x` that is normalised.
    pub(crate) moments: Moments,
    pub(crate) activation: Activation,
}

type Input<'a> = (&'a CpuStorage, &'a Layout);

impl BatchNorm {
    /// - `x`: `(…, channels)`, `f32`, `f64` or `bf16`; `residual`: the same.
    /// - `affine`: `(2, channels)`: γ, then β; converted to the type of the moments.
    ///
    /// # Errors
    /// When shapes or types disagree.
    pub(crate) fn apply(&self, x: &Tensor, affine: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let affine = affine.to_dtype(self.moments.both.dtype())?.contiguous()?;
        match residual {
            None => x.contiguous()?.apply_op2(&affine, self.clone()),
            Some(residual) => x.contiguous()?.apply_op3(&affine, &residual.contiguous()?, self.clone()),
        }
    }

    /// Gradients for that of `y`, which [`apply`](Self::apply) gave for `x` and `affine`; `residual`: whether there was one.
    ///
    /// # Errors
    /// When shapes or types disagree.
    pub(crate) fn gradients(
        &self,
        x: &Tensor,
        affine: &Tensor,
        residual: bool,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<Gradients> {
        let affine = affine.to_dtype(self.moments.both.dtype())?.contiguous()?;
        self.backward(&x.contiguous()?, &affine, residual, y, grad)
    }

    fn check(&self, x: &Layout, affine: &Layout, residual: Option<&Layout>) -> Result<()> {
        let (moments, shape) = (self.moments.both.dims(), x.dims());
        if shape.last() != moments.last() || affine.dims() != moments || x.shape().elem_count() == 0 {
            bail!("normalising {shape:?} by {:?} with moments {moments:?}", affine.dims());
        }
        if let Some(residual) = residual.filter(|residual| residual.dims() != shape) {
            bail!("normalising {shape:?} with a residual of {:?}", residual.dims());
        }
        Ok(())
    }

    fn forward(&self, x: Input<'_>, affine: Input<'_>, residual: Option<Input<'_>>) -> Result<(CpuStorage, Shape)> {
        self.check(x.1, affine.1, residual.map(|(_, layout)| layout))?;
        let y = match x.0.dtype() {
            DType::F32 => CpuStorage::F32(self.forward_as(x, affine, residual)?),
            DType::F64 => CpuStorage::F64(self.forward_as(x, affine, residual)?),
            DType::BF16 => CpuStorage::BF16(self.forward_as(x, affine, residual)?),
            other => bail!("normalising {other:?} on the CPU: expected f32, f64 or bf16"),
        };
        Ok((y, x.1.shape().clone()))
    }

    fn forward_as<V: Stored>(&self, x: Input<'_>, affine: Input<'_>, residual: Option<Input<'_>>) -> Result<Vec<V>> {
        let residual = residual.map(|(storage, layout)| values(storage, layout)).transpose()?;
        let channels = read(&self.moments.both, |moments| {
            Ok(cpu::Channels::new(moments, values(affine.0, affine.1)?, self.activation))
        })?;
        Ok(channels.forward(values(x.0, x.1)?, residual))
    }

    /// Gradients of input, affine and residual.
    fn backward(&self, x: &Tensor, affine: &Tensor, residual: bool, y: &Tensor, grad: &Tensor) -> Result<Gradients> {
        let grad = grad.contiguous()?;
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            let (moments, activation) = (&self.moments.both, self.activation);
            return cuda::Backward { x, affine, y, grad: &grad, moments, activation }.gradients(residual);
        }
        match x.dtype() {
            DType::F64 => self.backward_as::<f64>(x, affine, residual, y, &grad),
            DType::BF16 => self.backward_as::<bf16>(x, affine, residual, y, &grad),
            _ => self.backward_as::<f32>(x, affine, residual, y, &grad),
        }
    }

    fn backward_as<V: Stored>(
        &self,
        x: &Tensor,
        affine: &Tensor,
        residual: bool,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<Gradients> {
        let channels = read(&self.moments.both, |moments: &[V::Number]| {
            read(affine, |affine| Ok(cpu::Channels::new(moments, affine, self.activation)))
        })?;
        let found = read(x, |x: &[V]| read(y, |y| read(grad, |grad| Ok(channels.backward(x, y, grad, residual)))))?;
        Ok(Gradients {
            x: Tensor::from_vec(found.x, x.shape(), x.device())?,
            affine: Tensor::from_vec(found.affine, affine.shape(), x.device())?,
            residual: found.residual.map(|residual| Tensor::from_vec(residual, x.shape(), x.device())).transpose()?,
        })
    }
}

/// What [`BatchNorm::gradients`] gives.
pub(crate) struct Gradients {
    pub(crate) x: Tensor,
    /// `(2, channels)`, `f64` for `f64`, otherwise `f32`.
    pub(crate) affine: Tensor,
    pub(crate) residual: Option<Tensor>,
}

/// Calls `f` with the values of a contiguous tensor on the CPU.
fn read<T: WithDType, R>(tensor: &Tensor, f: impl FnOnce(&[T]) -> Result<R>) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => f(values(storage, layout)?),
        _ => bail!("batch normalisation of tensors on two devices"),
    }
}

/// The last dimension of a tensor that holds values.
fn channels(layout: &Layout) -> Result<usize> {
    match layout.dims().last() {
        Some(channels) if layout.shape().elem_count() > 0 => Ok(*channels),
        _ => bail!("moments of {:?}: expected values", layout.dims()),
    }
}

struct MomentsOf;

impl CustomOp1 for MomentsOf {
    fn name(&self) -> &'static str {
        "moments"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let channels = channels(layout)?;
        let moments = match x.dtype() {
            DType::F32 => CpuStorage::F32(cpu::moments(values::<f32>(x, layout)?, channels)),
            DType::F64 => CpuStorage::F64(cpu::moments(values::<f64>(x, layout)?, channels)),
            DType::BF16 => CpuStorage::F32(cpu::moments(values::<bf16>(x, layout)?, channels)),
            other => bail!("moments of {other:?} on the CPU: expected f32, f64 or bf16"),
        };
        Ok((moments, Shape::from((2, channels))))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let channels = channels(layout)?;
        Ok((cuda::moments((x, layout), channels)?, Shape::from((2, channels))))
    }
}

impl CustomOp2 for BatchNorm {
    fn name(&self) -> &'static str {
        "batch-norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, affine: &CpuStorage, al: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward((x, xl), (affine, al), None)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        xl: &Layout,
        affine: &CudaStorage,
        al: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.check(xl, al, None)?;
        let y = cuda::forward((x, xl), (affine, al), None, &self.moments.both, self.activation)?;
        Ok((y, xl.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, affine: &Tensor, y: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let found = self.backward(x, affine, false, y, grad)?;
        Ok((Some(found.x), Some(found.affine)))
    }
}

impl CustomOp3 for BatchNorm {
    fn name(&self) -> &'static str {
        "batch-norm-residual"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        affine: &CpuStorage,
        al: &Layout,
        residual: &CpuStorage,
        rl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.forward((x, xl), (affine, al), Some((residual, rl)))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        xl: &Layout,
        affine: &CudaStorage,
        al: &Layout,
        residual: &CudaStorage,
        rl: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.check(xl, al, Some(rl))?;
        let residual = Some((residual, rl));
        let y = cuda::forward((x, xl), (affine, al), residual, &self.moments.both, self.activation)?;
        Ok((y, xl.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        affine: &Tensor,
        _residual: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let found = self.backward(x, affine, true, y, grad)?;
        Ok((Some(found.x), Some(found.affine), found.residual))
    }
}

#[cfg(test)]
mod tests;
