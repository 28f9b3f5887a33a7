//! Convolutions in which no channel sees another: a register holds channels, not weights of one channel.

use super::Level;

/// `out[p, c] (+)= Σ_t a[p, taps[t] + c] · weights[t, c]` over one run of pixels.
pub(crate) struct Depthwise<'a> {
    pub(crate) a: &'a [f32],
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
    /// Adds the products of `count` pixels from `a`'s beginning to `out`.
    pub(crate) fn add(&self, level: Level, count: usize, out: &mut [f32]) {
        level.run(
            #[inline(always)]
            || {
                for p in 0..count {
                    let out = &mut out[p * self.out_pixel..][..self.channels];
                    for (tap, weights) in self.taps.iter().zip(self.weights.chunks_exact(self.channels)) {
                        let a = &self.a[p * self.a_pixel + tap..][..self.channels];
                        for ((out, a), weight) in out.iter_mut().zip(a).zip(weights) {
                            *out += a * weight;
                        }
                    }
                }
            },
        );
    }

    /// The gradient of the weights: adds `a[p, taps[t] + c] · grad[p, c]`, summed over `count` pixels, to `out`, `(taps, channels)`.
    pub(crate) fn add_weight_gradient(&self, level: Level, count: usize, grad: &[f32], out: &mut [f32]) {
        level.run(
            #[inline(always)]
            || {
                for (tap, out) in self.taps.iter().zip(out.chunks_exact_mut(self.channels)) {
                    for p in 0..count {
                        let a = &self.a[p * self.a_pixel + tap..][..self.channels];
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
