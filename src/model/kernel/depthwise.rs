//! Convolutions in which no channel sees another: a register holds channels, not weights of one channel.

use super::{Level, Rectifier};

/// `out[p, c] = Σ_t a[p, taps[t] + c] · weights[t, c]` over runs of pixels.
pub(crate) struct Depthwise<'a> {
    /// From one pixel to the next in `a`.
    pub(crate) a_pixel: usize,
    /// One offset into `a` for each row of weights.
    pub(crate) taps: &'a [usize],
    /// `(taps, channels)`.
    pub(crate) weights: &'a [f32],
    pub(crate) channels: usize,
    pub(crate) out_pixel: usize,
}

impl Depthwise<'_> {
    /// The outputs of `count` pixels from `a`'s beginning: `rectifier(sum + bias + residual)`; `residual` with its distance from pixel to
    /// pixel.
    #[expect(clippy::too_many_arguments, reason = "one picture in, one out, and what is done to its values")]
    pub(crate) fn write(
        &self,
        level: Level,
        a: &[f32],
        count: usize,
        out: &mut [f32],
        bias: &[f32],
        residual: Option<(&[f32], usize)>,
        rectifier: Rectifier<&[f32]>,
    ) {
        level.run(
            #[inline(always)]
            || {
                for p in 0..count {
                    let out = &mut out[p * self.out_pixel..][..self.channels];
                    out.copy_from_slice(&bias[..self.channels]);
                    self.add_pixel(&a[p * self.a_pixel..], out);
                    if let Some((residual, pixel)) = residual {
                        let residual = &residual[p * pixel..][..self.channels];
                        out.iter_mut().zip(residual).for_each(|(out, residual)| *out += residual);
                    }
                    match rectifier {
                        Rectifier::None => {}
                        Rectifier::Relu => out.iter_mut().for_each(|out| *out = out.max(0.0)),
                        Rectifier::Prelu(slope) => {
                            let slopes = out.iter_mut().zip(slope);
                            slopes.for_each(|(out, slope)| *out = out.max(0.0) + slope * out.min(0.0));
                        }
                    }
                }
            },
        );
    }

    #[inline(always)]
    fn add_pixel(&self, a: &[f32], out: &mut [f32]) {
        for (tap, weights) in self.taps.iter().zip(self.weights.chunks_exact(self.channels)) {
            for ((out, a), weight) in out.iter_mut().zip(&a[*tap..]).zip(weights) {
                *out += a * weight;
            }
        }
    }

    /// The gradient of the weights: adds `a[p, taps[t] + c] · grad[p, c]`, summed over `count` pixels, to `out`, `(taps, channels)`.
    pub(crate) fn add_weight_gradient(&self, level: Level, a: &[f32], count: usize, grad: &[f32], out: &mut [f32]) {
        level.run(
            #[inline(always)]
            || {
                for (tap, out) in self.taps.iter().zip(out.chunks_exact_mut(self.channels)) {
                    for p in 0..count {
                        let a = &a[p * self.a_pixel + tap..][..self.channels];
                        let grad = &grad[p * self.channels..][..self.channels];
                        for ((out, a), grad) in out.iter_mut().zip(a).zip(grad) {
                            *out += a * grad;
                        }
                    }
                }
            },
        );
    }
}
