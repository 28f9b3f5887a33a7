//! The update of one variable on the CPU: every number is read once and written once, in parallel.
//!
//! A dozen tensor operations would each go through memory. Each number's update depends on no other, so the number of threads changes
//! nothing.

use candle_core::{Result, Tensor, Var};
use rayon::prelude::*;

use super::values::{change, read};
use super::{ADAGRAD_EPSILON, ADAMW_EPSILON, Formula, Optimizer};

/// Numbers that one task changes: smaller variables are not worth a second thread.
const CHUNK: usize = 1 << 14;

impl Formula {
    pub(super) fn fused(&self, var: &Var, slots: &[Tensor], grad: &Tensor) -> Result<()> {
        let (rate, decay, scale) = (self.rate as f32, self.weight_decay as f32, self.scale as f32);
        match self.rule {
            Optimizer::Sgd { momentum, nesterov } => {
                let momentum = momentum as f32;
                // Without Nesterov the step is the momentum itself; with it, the gradient and the momentum from here on.
                let (now, along) = if nesterov { (1.0, momentum) } else { (0.0, 1.0) };
                one(var, &slots[0], grad, |w, v, g| {
                    let g = scale * g + decay * *w;
                    *v = momentum * *v + g;
                    *w -= rate * (now * g + along * *v);
                })
            }
            Optimizer::AdamW { beta_1, beta_2 } => {
                let (keep, add) = ([beta_1 as f32, beta_2 as f32], [(1.0 - beta_1) as f32, (1.0 - beta_2) as f32]);
                let [first, second] = self.corrections.map(|correction| correction as f32);
                let epsilon = ADAMW_EPSILON as f32;
                two(var, [&slots[0], &slots[1]], grad, |w, m, v, g| {
                    let g = scale * g;
                    *m = keep[0] * *m + add[0] * g;
                    *v = keep[1] * *v + add[1] * (g * g);
                    *w -= rate * (first * *m / ((second * *v).sqrt() + epsilon) + decay * *w);
                })
            }
            Optimizer::AdaGrad => {
                let epsilon = ADAGRAD_EPSILON as f32;
                one(var, &slots[0], grad, |w, sum, g| {
                    let g = scale * g + decay * *w;
                    *sum += g * g;
                    *w -= rate * g / (sum.sqrt() + epsilon);
                })
            }
        }
    }
}

/// Calls `f` with each number of a variable, its slot and its gradient.
fn one(var: &Tensor, slot: &Tensor, grad: &Tensor, f: impl Fn(&mut f32, &mut f32, f32) + Sync) -> Result<()> {
    let each = |w: &mut [f32], slot: &mut [f32], grad: &[f32]| {
        let chunks = w.par_chunks_mut(CHUNK).zip(slot.par_chunks_mut(CHUNK)).zip(grad.par_chunks(CHUNK));
        chunks.for_each(|((w, slot), grad)| {
            for ((w, slot), grad) in w.iter_mut().zip(slot).zip(grad) {
                f(w, slot, *grad);
            }
        });
    };
    change(var, |w| change(slot, |slot| read(grad, |grad| each(w, slot, grad))))
}

/// The same with two slots.
fn two(
    var: &Tensor,
    slots: [&Tensor; 2],
    grad: &Tensor,
    f: impl Fn(&mut f32, &mut f32, &mut f32, f32) + Sync,
) -> Result<()> {
    let each = |w: &mut [f32], a: &mut [f32], b: &mut [f32], grad: &[f32]| {
        let slots = a.par_chunks_mut(CHUNK).zip(b.par_chunks_mut(CHUNK));
        let chunks = w.par_chunks_mut(CHUNK).zip(slots).zip(grad.par_chunks(CHUNK));
        chunks.for_each(|((w, (a, b)), grad)| {
            for ((w, (a, b)), grad) in w.iter_mut().zip(a.iter_mut().zip(b)).zip(grad) {
                f(w, a, b, *grad);
            }
        });
    };
    change(var, |w| change(slots[0], |a| change(slots[1], |b| read(grad, |grad| each(w, a, b, grad)))))
}

/// `shadow ← shadow + share · (value - shadow)`.
pub(super) fn approach(shadow: &Tensor, value: &Tensor, share: f32) -> Result<()> {
    let each = |shadow: &mut [f32], value: &[f32]| {
        shadow.par_chunks_mut(CHUNK).zip(value.par_chunks(CHUNK)).for_each(|(shadow, value)| {
            shadow.iter_mut().zip(value).for_each(|(shadow, value)| *shadow += share * (value - *shadow));
        });
    };
    change(shadow, |shadow| read(value, |value| each(shadow, value)))
}

/// Numbers that are summed side by side, so that the additions need not wait for each other.
const LANES: usize = 16;

/// Sum of squares; chunks are added in order, so that it does not depend on the number of threads.
pub(super) fn squares(tensor: &Tensor) -> Result<f64> {
    let chunk = |values: &[f32]| {
        let (blocks, rest) = values.as_chunks::<LANES>();
        let mut sums = [0.0f32; LANES];
        for block in blocks {
            sums.iter_mut().zip(block).for_each(|(sum, value)| *sum += value * value);
        }
        sums.iter().map(|sum| f64::from(*sum)).sum::<f64>()
            + rest.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>()
    };
    read(tensor, |values| values.par_chunks(CHUNK).map(chunk).collect::<Vec<_>>().into_iter().sum())
}
