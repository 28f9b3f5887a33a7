//! Batch normalisation out of candle's own operations, some ten passes over the activations: what tests hold ours to.
//!
//! Gradients are candle's too, through mean and variance. Sums are `f32` at least, whatever the type of the values.

use candle_core::{DType, Result, Tensor};

use super::EPSILON;
use crate::model::conv::Activation;

/// `(2, channels)`: means and variances of `x`, `(…, channels)`.
pub(super) fn moments(x: &Tensor) -> Result<Tensor> {
    let (centred, mean) = centred(x)?;
    Tensor::stack(&[mean, centred.sqr()?.mean(0)?], 0)
}

/// The same function as the fused one; the moments are computed again, because gradients pass through them.
pub(super) fn batch_norm(
    x: &Tensor,
    affine: &Tensor,
    residual: Option<&Tensor>,
    activation: Activation,
) -> Result<Tensor> {
    let (centred, _) = centred(x)?;
    let deviation = (centred.sqr()?.mean(0)? + EPSILON)?.sqrt()?;
    let scale = (affine.get(0)? / deviation)?;
    let y = centred.broadcast_mul(&scale)?.broadcast_add(&affine.get(1)?)?.reshape(x.shape())?.to_dtype(x.dtype())?;
    let y = match residual {
        Some(residual) => (y + residual)?,
        None => y,
    };
    if activation == Activation::Relu { y.relu() } else { Ok(y) }
}

/// Rows without their mean, and the mean.
fn centred(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let channels = x.dim(candle_core::D::Minus1)?;
    let dtype = if x.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let x = x.reshape(((), channels))?.to_dtype(dtype)?;
    let mean = x.mean(0)?;
    Ok((x.broadcast_sub(&mean)?, mean))
}
