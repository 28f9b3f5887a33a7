//! Batch normalisation on the CPU: passes over groups of whole rows, in parallel, each compiled for the instruction set at hand.
//!
//! A group has a fixed size and its sums are added in order, so no result depends on the number of threads. Sums of a group
//! have the type of the values; groups are added in `f64`.

use std::ops::Range;

use candle_core::WithDType;
use half::bf16;
use rayon::prelude::*;

use super::EPSILON;
use crate::model::conv::{Activation, narrowed, widened};
use crate::model::kernel::in_parts;

/// What values are in memory, and what is computed with them.
pub(super) trait Stored: WithDType {
    type Number: WithDType;

    fn number(self) -> Self::Number;

    fn of(number: Self::Number) -> Self;
}

impl Stored for f32 {
    type Number = f32;

    #[inline(always)]
    fn number(self) -> f32 {
        self
    }

    #[inline(always)]
    fn of(number: f32) -> f32 {
        number
    }
}

impl Stored for f64 {
    type Number = f64;

    #[inline(always)]
    fn number(self) -> f64 {
        self
    }

    #[inline(always)]
    fn of(number: f64) -> f64 {
        number
    }
}

impl Stored for bf16 {
    type Number = f32;

    #[inline(always)]
    fn number(self) -> f32 {
        widened(self)
    }

    #[inline(always)]
    fn of(number: f32) -> bf16 {
        narrowed(number)
    }
}

/// Values that one task takes: with their gradients they stay in a second-level cache.
const GROUP: usize = 1 << 14;

/// Values of one group: whole rows.
fn group(channels: usize) -> usize {
    (GROUP / channels).max(1) * channels
}

/// Mean and variance of each channel, one after the other: `2 · channels` values.
pub(super) fn moments<V: Stored>(x: &[V], channels: usize) -> Vec<V::Number> {
    // Sums of differences from the first row: squares of a large mean would swallow a small variance.
    let origin: Vec<V::Number> = x[..channels].iter().map(|x| x.number()).collect();
    let sums = grouped_sums(channels, x.par_chunks(group(channels)), |x, sum: &mut [V::Number], squares| {
        for row in x.chunks_exact(channels) {
            let sums = sum.iter_mut().zip(&mut *squares);
            for ((value, origin), (sum, squares)) in row.iter().zip(&origin).zip(sums) {
                let value = value.number() - *origin;
                *sum += value;
                *squares += value * value;
            }
        }
    });
    let count = (x.len() / channels) as f64;
    let (sum, squares) = sums.split_at(channels);
    let mean = sum.iter().zip(&origin).map(|(sum, origin)| origin.to_f64() + sum / count);
    let variance = squares.iter().zip(sum).map(|(squares, sum)| (squares / count - (sum / count).powi(2)).max(0.0));
    mean.chain(variance).map(WithDType::from_f64).collect()
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
pub(super) struct Gradients<V: Stored> {
    pub(super) x: Vec<V>,
    /// Of the scales, then of the offsets.
    pub(super) affine: Vec<V::Number>,
    pub(super) residual: Option<Vec<V>>,
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

    pub(super) fn forward<V: Stored<Number = T>>(&self, x: &[V], residual: Option<&[V]>) -> Vec<V> {
        let (channels, floor) = (self.count(), self.floor());
        let size = group(channels);
        let terms = || self.scale.iter().zip(&self.offset);
        in_groups(
            x.len(),
            size,
            #[inline(always)]
            |part, y: &mut [V]| {
                let rows = y.chunks_exact_mut(channels).zip(x[part.clone()].chunks_exact(channels));
                match residual {
                    None => {
                        for (y, x) in rows {
                            for ((y, x), (scale, offset)) in y.iter_mut().zip(x).zip(terms()) {
                                *y = V::of(at_least(floor, x.number() * *scale + *offset));
                            }
                        }
                    }
                    Some(residual) => {
                        for ((y, x), residual) in rows.zip(residual[part].chunks_exact(channels)) {
                            for (((y, x), residual), (scale, offset)) in y.iter_mut().zip(x).zip(residual).zip(terms())
                            {
                                *y = V::of(at_least(floor, x.number() * *scale + *offset + residual.number()));
                            }
                        }
                    }
                }
            },
        )
    }

    /// Gradients from that of the output; `residual`: whether there was one, which makes the outputs `y` needed.
    pub(super) fn backward<V: Stored<Number = T>>(&self, x: &[V], y: &[V], grad: &[V], residual: bool) -> Gradients<V> {
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
    fn backward_by<V: Stored<Number = T>>(
        &self,
        x: &[V],
        grad: &[V],
        pass: impl Fn(T, T, T, T) -> T + Sync,
    ) -> (Vec<V>, Vec<T>) {
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
                    let x = x.number();
                    let grad = pass(grad.number(), x, *scale, *offset);
                    *sum += grad;
                    *products += grad * (x - *mean);
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
            |part, dx: &mut [V]| {
                let rows = dx.chunks_exact_mut(channels).zip(x[part.clone()].chunks_exact(channels));
                for ((dx, x), grad) in rows.zip(grad[part].chunks_exact(channels)) {
                    let terms = terms().zip(mean_grad.iter().zip(&slopes));
                    for (((dx, x), grad), ((mean, (scale, offset)), (mean_grad, slope))) in
                        dx.iter_mut().zip(x).zip(grad).zip(terms)
                    {
                        let x = x.number();
                        let grad = pass(grad.number(), x, *scale, *offset);
                        *dx = V::of(*scale * (grad - *mean_grad - (x - *mean) * *slope));
                    }
                }
            },
        );
        (dx, affine)
    }
}

/// The gradient where the output was not cut off.
fn masked<V: Stored>(y: &[V], grad: &[V]) -> Vec<V> {
    in_groups(
        y.len(),
        GROUP,
        #[inline(always)]
        |part, masked: &mut [V]| {
            for ((masked, y), grad) in masked.iter_mut().zip(&y[part.clone()]).zip(&grad[part]) {
                *masked = if y.number().to_f64() > 0.0 { *grad } else { V::zero() };
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
