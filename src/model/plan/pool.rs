//! The largest value of each channel in windows.

use crate::model::kernel::{Level, Map};

/// Windows are cut off at the far edges.
pub(super) fn max_pool(x: &[f32], from: &Map, y: &mut [f32], to: &Map, window: usize, stride: usize) {
    Level::best().run(
        #[inline(always)]
        || {
            for row in 0..to.height {
                for column in 0..to.width {
                    let out = &mut y[to.at(row, column)..][..to.channels];
                    out.fill(f32::NEG_INFINITY);
                    for i in row * stride..(row * stride + window).min(from.height) {
                        for j in column * stride..(column * stride + window).min(from.width) {
                            let seen = &x[from.at(i, j)..][..from.channels];
                            out.iter_mut().zip(seen).for_each(|(best, value)| *best = best.max(*value));
                        }
                    }
                }
            }
        },
    );
}
