//! Batch normalisation on the CPU: passes over groups of whole rows, in parallel, each compiled for the instruction set at hand.
//!
//! A group has a fixed size and its sums are added in order, so no result depends on the number of threads. Sums of a group
//! have the type of the values; groups are added in `f64`.

use std::ops::Range;

use candle_core::WithDType;
use rayon::prelude::*;

use super::EPSILON;
use crate::model::conv::Activation;
use crate::model::kernel::in_parts;

/// Values that one task takes: with their gradients they stay in a second-level cache.
const GROUP: usize = 1 << 14;

/// Values of one group: whole rows.
fn group(channels: usize) -> usize {
    (GROUP / channels).max(1) * channels
}

/// Mean and variance of each channel, one after the other: `2 · channels` values.
pub(super) fn moments<T: WithDType>(x: &[T], channels: usize) -> Vec<T> {
    // Sums of differences from the first row: squares of a large mean would swallow a small variance.
    let origin = &x[..channels];
    let sums = grouped_sums(channels, x.par_chunks(group(channels)), |x, sum: &mut [T], squares| {
        for row in x.chunks_exact(channels) {
            let sums = sum.iter_mut().zip(&mut *squares);
            for ((value, origin), (sum, squares)) in row.iter().zip(origin).zip(sums) {
                let value = *value - *origin;
                *sum += value;
                *squares += value * value;
            }
        }
    });
    let count = (x.len() / channels) as f64;
    let (sum, squares) = sums.split_at(channels);
    let mean = sum.iter().zip(origin).map(|(sum, origin)| origin.to_f64() + sum / count);
    let variance = squares.iter().zip(sum).map(|(squares, sum)| (squares / count - (sum / count).powi(2)).max(0.0));
    mean.chain(variance).map(T::from_f64).collect()
}

/// The numbers of each channel that every pass needs.
pub(super) struct Channels<T> {
    mean: Vec<T>,
    inverse_deviation: Vec<f64>,
    scale: Vec<T>,
    offset: Vec<T>,
    activation: Activation,
}

/// What [`Channels::backward`] gives.
pub(super) struct Gradients<T> {
    pub(super) x: Vec<T>,
    /// Of the scales, then of the offsets.
    pub(super) affine: Vec<T>,
    pub(super) residual: Option<Vec<T>>,
}

impl<T: WithDType> Channels<T> {
    /// From mean and variance, and from scales and offsets, each `2 · channels` values.
    pub(super) fn new(moments: &[T], affine: &[T], activation: Activation) -> Self {
        let (mean, variance) = moments.split_at(moments.len() / 2);
        let (gamma, beta) = affine.split_at(affine.len() / 2);
        let inverse = |variance: &T| 1.0 / (variance.to_f64() + EPSILON).sqrt();
        let inverse_deviation: Vec<f64> = variance.iter().map(inverse).collect();
        let scale: Vec<f64> = gamma.iter().zip(&inverse_deviation).map(|(g, inverse)| g.to_f64() * inverse).collect();
        let offset =
            beta.iter().zip(mean).zip(&scale).map(|((b, m), scale)| T::from_f64(b.to_f64() - m.to_f64() * scale));
        Self {
            mean: mean.to_vec(),
            offset: offset.collect(),
            scale: scale.into_iter().map(T::from_f64).collect(),
            inverse_deviation,
            activation,
        }
    }

    fn count(&self) -> usize {
        self.mean.len()
    }

    /// What outputs are cut off at.
    fn floor(&self) -> T {
        T::from_f64(if self.activation == Activation::Relu { 0.0 } else { f64::NEG_INFINITY })
    }

    pub(super) fn forward(&self, x: &[T], residual: Option<&[T]>) -> Vec<T> {
        let (channels, floor) = (self.count(), self.floor());
        let size = group(channels);
        let terms = || self.scale.iter().zip(&self.offset);
        in_groups(
            x.len(),
            size,
            #[inline(always)]
            |part, y: &mut [T]| {
                let rows = y.chunks_exact_mut(channels).zip(x[part.clone()].chunks_exact(channels));
                match residual {
                    None => {
                        for (y, x) in rows {
                            for ((y, x), (scale, offset)) in y.iter_mut().zip(x).zip(terms()) {
                                *y = at_least(floor, *x * *scale + *offset);
                            }
                        }
                    }
                    Some(residual) => {
                        for ((y, x), residual) in rows.zip(residual[part].chunks_exact(channels)) {
                            for (((y, x), residual), (scale, offset)) in y.iter_mut().zip(x).zip(residual).zip(terms())
                            {
                                *y = at_least(floor, *x * *scale + *offset + *residual);
                            }
                        }
                    }
                }
            },
        )
    }

    /// Gradients from that of the output; `residual`: whether there was one, which makes the outputs `y` needed.
    pub(super) fn backward(&self, x: &[T], y: &[T], grad: &[T], residual: bool) -> Gradients<T> {
        if residual && self.activation == Activation::Relu {
            let masked = masked(y, grad);
            let (dx, affine) = self.backward_by(x, &masked, |grad, _, _, _| grad);
            return Gradients { x: dx, affine, residual: Some(masked) };
        }
        let floor = self.floor();
        // The sign of an output without residual follows from its input: one pass less over memory than reading it.
        let cut = |grad, x, scale, offset| if x * scale + offset > floor { grad } else { T::zero() };
        let (dx, affine) = match self.activation {
            Activation::Relu => self.backward_by(x, grad, cut),
            Activation::None => self.backward_by(x, grad, |grad, _, _, _| grad),
        };
        Gradients { x: dx, affine, residual: residual.then(|| grad.to_vec()) }
    }

    /// Gradients of input and affine; `pass` is what a gradient becomes, given input, scale and offset.
    #[inline(always)]
    fn backward_by(&self, x: &[T], grad: &[T], pass: impl Fn(T, T, T, T) -> T + Sync) -> (Vec<T>, Vec<T>) {
        let channels = self.count();
        let size = group(channels);
        let terms = || self.mean.iter().zip(self.scale.iter().zip(&self.offset));
        // Sums of dy and of dy · (x - mean).
        let groups = x.par_chunks(size).zip(grad.par_chunks(size));
        let sums = grouped_sums(channels, groups, |(x, grad), sum: &mut [T], products| {
            for (x, grad) in x.chunks_exact(channels).zip(grad.chunks_exact(channels)) {
                let sums = sum.iter_mut().zip(&mut *products);
                for (((x, grad), (mean, (scale, offset))), (sum, products)) in x.iter().zip(grad).zip(terms()).zip(sums)
                {
                    let grad = pass(*grad, *x, *scale, *offset);
                    *sum += grad;
                    *products += grad * (*x - *mean);
                }
            }
        });
        let (d_beta, products) = sums.split_at(channels);
        let d_gamma = products.iter().zip(&self.inverse_deviation).map(|(product, inverse)| product * inverse);
        let affine = d_gamma.chain(d_beta.iter().copied()).map(T::from_f64).collect();
        // dx = scale · (dy - mean(dy) - x̂ · mean(dy · x̂))
        let count = (x.len() / channels) as f64;
        let mean_grad: Vec<T> = d_beta.iter().map(|sum| T::from_f64(sum / count)).collect();
        let slopes = products.iter().zip(&self.inverse_deviation);
        let slopes: Vec<T> = slopes.map(|(p, inverse)| T::from_f64(p / count * inverse * inverse)).collect();
        let dx = in_groups(
            x.len(),
            size,
            #[inline(always)]
            |part, dx: &mut [T]| {
                let rows = dx.chunks_exact_mut(channels).zip(x[part.clone()].chunks_exact(channels));
                for ((dx, x), grad) in rows.zip(grad[part].chunks_exact(channels)) {
                    let terms = terms().zip(mean_grad.iter().zip(&slopes));
                    for (((dx, x), grad), ((mean, (scale, offset)), (mean_grad, slope))) in
                        dx.iter_mut().zip(x).zip(grad).zip(terms)
                    {
                        let grad = pass(*grad, *x, *scale, *offset);
                        *dx = *scale * (grad - *mean_grad - (*x - *mean) * *slope);
                    }
                }
            },
        );
        (dx, affine)
    }
}

/// The gradient where the output was not cut off.
fn masked<T: WithDType>(y: &[T], grad: &[T]) -> Vec<T> {
    in_groups(
        y.len(),
        GROUP,
        #[inline(always)]
        |part, masked: &mut [T]| {
            for ((masked, y), grad) in masked.iter_mut().zip(&y[part.clone()]).zip(&grad[part]) {
                *masked = if *y > T::zero() { *grad } else { T::zero() };
            }
        },
    )
}

/// A vector made in groups of `size`; `fill` hears which numbers its group holds.
#[inline(always)]
fn in_groups<T: WithDType>(length: usize, size: usize, fill: impl Fn(Range<usize>, &mut [T]) + Sync + Send) -> Vec<T> {
    in_parts(
        T::zero(),
        length,
        size,
        || (),
        |(), index, part| {
            let from = index * size;
            let range = from..from + part.len();
            vectorized(
                #[inline(always)]
                || fill(range, part),
            );
        },
    )
}

#[inline(always)]
fn at_least<T: WithDType>(floor: T, value: T) -> T {
    if value < floor { floor } else { value }
}

/// Two sums for each channel, one after the other: `sum` adds a group's share to its two slices.
fn grouped_sums<T: WithDType, G>(
    channels: usize,
    groups: impl IndexedParallelIterator<Item = G>,
    sum: impl Fn(G, &mut [T], &mut [T]) + Sync + Send,
) -> Vec<f64> {
    let one = |group| {
        let mut sums = vec![T::zero(); 2 * channels];
        let (first, second) = sums.split_at_mut(channels);
        vectorized(|| sum(group, first, second));
        sums
    };
    let partials: Vec<Vec<T>> = groups.map(one).collect();
    let mut sums = vec![0.0; 2 * channels];
    for partial in partials {
        sums.iter_mut().zip(partial).for_each(|(sum, value)| *sum += value.to_f64());
    }
    sums
}

/// Runs `f` as compiled for the best instruction set of this CPU.
#[inline(always)]
fn vectorized<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}
