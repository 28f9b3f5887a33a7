//! Batch normalisation over the last dimension, with the activation that follows it, as one differentiable operation.
//!
//! Ioffe & Szegedy 2015 (arXiv:1502.03167), algorithm 1. Written out because the stock one works on NCHW and takes about ten
//! passes over the activations. Sums run over fixed groups of rows, so that they do not depend on the number of threads.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Storage, Tensor, WithDType, bail};
use rayon::prelude::*;

use super::conv::{Activation, values};

/// Added to the variance, so that a constant channel stays finite.
pub(crate) const EPSILON: f64 = 1e-5;

/// Mean and (biased) variance of each channel over a batch.
#[derive(Clone, Debug)]
pub(crate) struct Moments {
    pub(crate) mean: Vec<f64>,
    pub(crate) variance: Vec<f64>,
}

impl Moments {
    /// Of `x`: `(…, channels)`.
    pub(crate) fn of(x: &Tensor) -> Result<Self> {
        match x.dtype() {
            DType::F64 => read(x, |x: &[f64], channels| moments(x, channels)),
            _ => read(x, |x: &[f32], channels| moments(x, channels)),
        }
    }
}

/// Scales each channel of `x` to the batch's mean 0 and variance 1, then by `gamma` and `beta`, then `activation`.
///
/// - `x`: `(…, channels)`, `f32` or `f64`; `gamma`, `beta`: `(channels)`; `moments`: of this `x`.
/// - Differentiable in all three, through the moments.
///
/// # Errors
/// When shapes or types disagree.
pub(crate) fn batch_norm(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    moments: Moments,
    activation: Activation,
) -> Result<Tensor> {
    x.contiguous()?.apply_op3(gamma, beta, BatchNorm { moments, activation })
}

struct BatchNorm {
    moments: Moments,
    activation: Activation,
}

/// Rows that one task sums.
const ROWS: usize = 1024;

fn moments<T: WithDType>(x: &[T], channels: usize) -> Moments {
    let partials: Vec<Vec<f64>> = x
        .par_chunks(ROWS * channels)
        .map(|rows| {
            let mut sums = vec![0.0; 2 * channels];
            let (sum, squares) = sums.split_at_mut(channels);
            for row in rows.chunks_exact(channels) {
                for ((value, sum), squares) in row.iter().zip(&mut *sum).zip(&mut *squares) {
                    let value = value.to_f64();
                    *sum += value;
                    *squares += value * value;
                }
            }
            sums
        })
        .collect();
    let count = (x.len() / channels) as f64;
    let sums = add(partials, 2 * channels);
    let mean: Vec<f64> = sums[..channels].iter().map(|sum| sum / count).collect();
    let variance = sums[channels..].iter().zip(&mean).map(|(sum, mean)| (sum / count - mean * mean).max(0.0)).collect();
    Moments { mean, variance }
}

fn add(partials: Vec<Vec<f64>>, length: usize) -> Vec<f64> {
    let mut sums = vec![0.0; length];
    for partial in partials {
        sums.iter_mut().zip(partial).for_each(|(sum, value)| *sum += value);
    }
    sums
}

impl BatchNorm {
    fn inverse_deviation(&self) -> Vec<f64> {
        self.moments.variance.iter().map(|variance| 1.0 / (variance + EPSILON).sqrt()).collect()
    }

    fn forward<T: WithDType>(&self, x: &[T], gamma: &[T], beta: &[T]) -> Vec<T> {
        let inverse = self.inverse_deviation();
        let scale: Vec<T> = gamma.iter().zip(&inverse).map(|(g, i)| T::from_f64(g.to_f64() * i)).collect();
        let offset: Vec<T> = (0..scale.len())
            .map(|c| T::from_f64(beta[c].to_f64() - self.moments.mean[c] * gamma[c].to_f64() * inverse[c]))
            .collect();
        let mut y = vec![T::zero(); x.len()];
        let channels = scale.len();
        let floor = T::from_f64(if self.activation == Activation::Relu { 0.0 } else { f64::NEG_INFINITY });
        y.par_chunks_mut(ROWS * channels).zip(x.par_chunks(ROWS * channels)).for_each(|(y, x)| {
            for (y, x) in y.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
                for ((y, x), (scale, offset)) in y.iter_mut().zip(x).zip(scale.iter().zip(&offset)) {
                    let value = *x * *scale + *offset;
                    *y = if value < floor { floor } else { value };
                }
            }
        });
        y
    }

    /// Gradients of `x`, `gamma` and `beta`.
    fn backward<T: WithDType>(&self, x: &[T], gamma: &[T], y: &[T], grad: &[T]) -> (Vec<T>, Vec<T>, Vec<T>) {
        let channels = gamma.len();
        let count = (x.len() / channels) as f64;
        // Where the activation cut the output off, no gradient passes.
        let floor = T::from_f64(if self.activation == Activation::Relu { 0.0 } else { f64::NEG_INFINITY });
        let masked = |grad: T, y: T| if y > floor { grad } else { T::zero() };
        let inverse = self.inverse_deviation();
        let mean: Vec<T> = self.moments.mean.iter().map(|m| T::from_f64(*m)).collect();
        let rows = |values: &'_ [T]| -> usize { values.len() / channels };
        // Sums of dy and of dy · (x - mean), a group of rows at a time.
        let partials: Vec<Vec<f64>> = x
            .par_chunks(ROWS * channels)
            .zip(grad.par_chunks(ROWS * channels))
            .zip(y.par_chunks(ROWS * channels))
            .map(|((x, grad), y)| {
                let mut sums = vec![T::zero(); 2 * channels];
                let (sum, product) = sums.split_at_mut(channels);
                for row in 0..rows(x) {
                    let row = row * channels..(row + 1) * channels;
                    let inputs = x[row.clone()].iter().zip(&grad[row.clone()]).zip(&y[row]).zip(&mean);
                    for ((((x, grad), y), mean), (sum, product)) in inputs.zip(sum.iter_mut().zip(&mut *product)) {
                        let grad = masked(*grad, *y);
                        *sum += grad;
                        *product += grad * (*x - *mean);
                    }
                }
                sums.into_iter().map(T::to_f64).collect()
            })
            .collect();
        let sums = add(partials, 2 * channels);
        let (d_beta, products) = sums.split_at(channels);
        let d_gamma: Vec<f64> = products.iter().zip(&inverse).map(|(product, inverse)| product * inverse).collect();
        // dx = gamma / deviation · (dy - mean(dy) - x̂ · mean(dy · x̂))
        let scale: Vec<T> = (0..channels).map(|c| T::from_f64(gamma[c].to_f64() * inverse[c])).collect();
        let mean_grad: Vec<T> = d_beta.iter().map(|d| T::from_f64(d / count)).collect();
        let slope: Vec<T> = (0..channels).map(|c| T::from_f64(d_gamma[c] / count * inverse[c])).collect();
        let mut dx = vec![T::zero(); x.len()];
        dx.par_chunks_mut(ROWS * channels)
            .zip(x.par_chunks(ROWS * channels))
            .zip(grad.par_chunks(ROWS * channels))
            .zip(y.par_chunks(ROWS * channels))
            .for_each(|(((dx, x), grad), y)| {
                for row in 0..rows(x) {
                    let row = row * channels..(row + 1) * channels;
                    let inputs = x[row.clone()].iter().zip(&grad[row.clone()]).zip(&y[row.clone()]);
                    let terms = scale.iter().zip(&mean_grad).zip(mean.iter().zip(&slope));
                    for ((dx, ((x, grad), y)), ((scale, mean_grad), (mean, slope))) in
                        dx[row].iter_mut().zip(inputs).zip(terms)
                    {
                        *dx = *scale * (masked(*grad, *y) - *mean_grad - (*x - *mean) * *slope);
                    }
                }
            });
        let convert = |values: &[f64]| values.iter().map(|v| T::from_f64(*v)).collect();
        (dx, convert(&d_gamma), convert(d_beta))
    }

    fn gradients<T: WithDType>(
        &self,
        x: &Tensor,
        gamma: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dx, d_gamma, d_beta) = read(x, |x: &[T], _| {
            read(gamma, |gamma, _| read(y, |y, _| read(grad, |grad, _| self.backward(x, gamma, y, grad))))
        })????;
        Ok((
            Some(Tensor::from_vec(dx, x.shape(), x.device())?),
            Some(Tensor::from_vec(d_gamma, gamma.shape(), x.device())?),
            Some(Tensor::from_vec(d_beta, gamma.shape(), x.device())?),
        ))
    }
}

/// Calls `f` with the values of a contiguous tensor on the CPU, and the size of its last dimension.
fn read<T: WithDType, R>(tensor: &Tensor, f: impl FnOnce(&[T], usize) -> R) -> Result<R> {
    let channels = tensor.dim(candle_core::D::Minus1)?;
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(f(values(storage, layout)?, channels)),
        _ => bail!("batch normalisation runs on the CPU"),
    }
}

impl CustomOp3 for BatchNorm {
    fn name(&self) -> &'static str {
        "batch-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        gamma: &CpuStorage,
        gl: &Layout,
        beta: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let channels = self.moments.mean.len();
        if xl.dims().last() != Some(&channels) || gl.dims() != [channels] || bl.dims() != [channels] {
            bail!("normalising {:?} with {:?} and {:?}, moments of {channels}", xl.dims(), gl.dims(), bl.dims());
        }
        let y = match x.dtype() {
            DType::F32 => CpuStorage::F32(self.forward(values(x, xl)?, values(gamma, gl)?, values(beta, bl)?)),
            DType::F64 => CpuStorage::F64(self.forward(values(x, xl)?, values(gamma, gl)?, values(beta, bl)?)),
            other => bail!("normalising {other:?}: expected f32 or f64"),
        };
        Ok((y, xl.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        gamma: &Tensor,
        _beta: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        match x.dtype() {
            DType::F64 => self.gradients::<f64>(x, gamma, y, grad),
            _ => self.gradients::<f32>(x, gamma, y, grad),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use candle_core::{Device, Var};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn random(shape: &[usize], seed: u64) -> Var {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let values: Vec<f64> = (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
        Var::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    fn normalized(x: &Tensor, gamma: &Tensor, beta: &Tensor, activation: Activation) -> Tensor {
        batch_norm(x, gamma, beta, Moments::of(x).unwrap(), activation).unwrap()
    }

    #[test]
    fn each_channel_gets_the_mean_and_deviation_that_were_asked_for() {
        let x = (random(&[5, 4, 3, 2], 1).affine(3.0, 7.0)).unwrap();
        let gamma = Tensor::new(&[2.0, 0.5], &Device::Cpu).unwrap();
        let beta = Tensor::new(&[-1.0, 4.0], &Device::Cpu).unwrap();
        let moments = Moments::of(&normalized(&x, &gamma, &beta, Activation::None)).unwrap();
        for c in 0..2 {
            assert!((moments.mean[c] - [-1.0, 4.0][c]).abs() < 1e-9);
            assert!((moments.variance[c].sqrt() - [2.0, 0.5][c]).abs() < 1e-4);
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences_through_the_moments() {
        for activation in [Activation::None, Activation::Relu] {
            let inputs = [random(&[3, 2, 2, 3], 2), random(&[3], 3), random(&[3], 4)];
            let weights = random(&[3, 2, 2, 3], 5);
            let loss = |inputs: &[Var]| {
                let y = normalized(&inputs[0], &inputs[1], &inputs[2], activation);
                (y * weights.as_tensor()).unwrap().sqr().unwrap().sum_all().unwrap()
            };
            let grads = loss(&inputs).backward().unwrap();
            for (which, input) in inputs.iter().enumerate() {
                let grad = grads.get(input).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
                let values = input.flatten_all().unwrap().to_vec1::<f64>().unwrap();
                for at in 0..values.len() {
                    let moved = |by: f64| {
                        let mut values = values.clone();
                        values[at] += by;
                        let mut inputs = inputs.clone();
                        inputs[which] = Var::from_vec(values, input.shape(), &Device::Cpu).unwrap();
                        loss(&inputs).to_scalar::<f64>().unwrap()
                    };
                    let expected = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                    let error = (grad[at] - expected).abs() / expected.abs().max(1.0);
                    assert!(error < 1e-6, "input {which}, value {at}: {} instead of {expected}", grad[at]);
                }
            }
        }
    }
}
