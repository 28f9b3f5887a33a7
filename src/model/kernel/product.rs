//! Products of a picture with weights, cut into tiles: what convolutions and their gradients are made of.
//!
//! `out[run.out + p · out_pixel + c] = end(Σ_t Σ_k a[run.a + p · a_pixel + taps[t] + k · a_step] · b[t, k, c])` for the pixels `p` of
//! each run and all channels `c`. A convolution is this with a kernel row a tap and its pixels' channels the steps; the gradient of its weights with
//! output rows as taps, output pixels as steps, and the inputs of the kernel as "pixels".

use super::runs::{Groups, Place, cut};
use super::tile::{self, End, Job};
use super::{Aligned, Level, Rectifier, Run};

/// What lies side by side in `a`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// The steps; the pixels are this far apart.
    Steps { pixel: usize },
    /// The pixels; the steps are this far apart.
    Pixels { step: usize },
}

/// Weights in panels of channels as wide as a tile, rows of zeros behind the last channel.
#[derive(Debug)]
pub(crate) struct Packed {
    values: Aligned<f32>,
    /// Rows: taps times steps.
    rows: usize,
    columns: usize,
}

impl Packed {
    /// `row(r, channels)` writes the weights of row `r`, for all `columns` channels.
    pub(crate) fn new(level: Level, rows: usize, columns: usize, mut row: impl FnMut(usize, &mut [f32])) -> Self {
        let panel = tile::panel(level);
        let mut packed = Aligned::default();
        let values = packed.zeros(rows * columns.next_multiple_of(panel));
        let mut weights = vec![0.0; columns];
        for r in 0..rows {
            row(r, &mut weights);
            for (index, part) in weights.chunks(panel).enumerate() {
                values[(index * rows + r) * panel..][..part.len()].copy_from_slice(part);
            }
        }
        Self { values: packed, rows, columns }
    }

    /// Numbers in memory.
    pub(super) fn len(&self) -> usize {
        self.values.values().len()
    }

    /// Channels.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// As a factor of a product.
    pub(crate) fn weights(&self, level: Level) -> Weights<'_> {
        let panel_step = self.rows * tile::panel(level);
        Weights::Panels { values: self.values.values(), columns: self.columns, panel_step }
    }
}

/// `values` and zeros up to whole panels: bias and slopes are read in whole registers.
pub(crate) fn whole_panels(level: Level, values: &[f32]) -> Vec<f32> {
    let mut padded = values.to_vec();
    padded.resize(values.len().next_multiple_of(tile::panel(level)), 0.0);
    padded
}

/// The second factor.
#[derive(Clone, Copy)]
pub(crate) enum Weights<'a> {
    /// A panel after the other, `panel_step` apart, each row after row.
    Panels { values: &'a [f32], columns: usize, panel_step: usize },
    /// Row after row, `columns` a whole number of panels.
    Rows { values: &'a [f32], columns: usize },
}

/// What becomes of the sums.
#[derive(Clone, Copy)]
pub(crate) enum Finish<'a> {
    /// They are added to what is there.
    Accumulate,
    /// `rectifier(sum + bias + residual)`; bias and slopes from [`whole_panels`].
    Write {
        bias: Option<&'a [f32]>,
        /// Values and the distance between two pixels.
        residual: Option<(&'a [f32], usize)>,
        rectifier: Rectifier<&'a [f32]>,
    },
}

/// One product.
pub(crate) struct Product<'a> {
    pub(crate) a: &'a [f32],
    pub(crate) order: Order,
    pub(crate) taps: &'a [usize],
    /// Steps of each tap.
    pub(crate) depth: usize,
    pub(crate) weights: Weights<'a>,
    pub(crate) out_pixel: usize,
    pub(crate) finish: Finish<'a>,
}

impl Product<'_> {
    /// Computes the outputs of all runs.
    ///
    /// # Panics
    /// When anything would be read or written outside of its slice: our own mistake.
    pub(crate) fn write(&self, level: Level, runs: &[Run], out: &mut [f32]) {
        self.check(level, runs, out.len());
        let panel = tile::panel(level);
        let (columns, b, b_step, b_panel) = match self.weights {
            Weights::Panels { values, columns, panel_step } => (columns, values.as_ptr(), panel, panel_step),
            Weights::Rows { values, columns } => (columns, values.as_ptr(), columns, panel),
        };
        let (transposed, a_pixel, a_step) = match self.order {
            Order::Steps { pixel } => (false, pixel, 1),
            Order::Pixels { step } => (true, 1, step),
        };
        let step = Place {
            a: a_pixel,
            out: self.out_pixel,
            residual: match self.finish {
                Finish::Write { residual: Some((_, pixel)), .. } => pixel,
                _ => 0,
            },
        };
        let mut all = (0, Vec::new());
        for (index, first) in (0..columns).step_by(panel).enumerate() {
            let columns = (columns - first).min(panel);
            let half = panel / 2;
            let vectors = match transposed || columns > half || matches!(level, Level::Portable) {
                true => tile::vectors(level),
                false => 1,
            };
            let end = match self.finish {
                Finish::Accumulate => End::Accumulate,
                Finish::Write { bias, residual, rectifier } => {
                    let at = |values: Option<&[f32]>| values.map_or(std::ptr::null(), |v| v[first..].as_ptr());
                    End::Write {
                        bias: at(bias),
                        residual: [at(residual.map(|r| r.0)); 2],
                        residual_pixel: residual.map_or(0, |r| r.1),
                        rectifier: rectifier.map(|slope| slope[first..].as_ptr()),
                    }
                }
            };
            let job = Job {
                a: [self.a.as_ptr(); 2],
                a_pixel,
                a_step,
                taps: self.taps,
                depth: self.depth,
                b: b.wrapping_add(index * b_panel),
                b_step,
                out: [out.as_mut_ptr().wrapping_add(first); 2],
                out_pixel: self.out_pixel,
                columns,
                end,
            };
            // The last panel may be a narrower one.
            if all.0 != vectors {
                all = (vectors, cut(runs, step, tile::limits(level, transposed, vectors)));
            }
            for groups in &all.1 {
                compute(level, transposed, vectors, &job, groups);
            }
        }
    }

    /// Holds every index that the tiles will use to its slice.
    fn check(&self, level: Level, runs: &[Run], out: usize) {
        let panel = tile::panel(level);
        let columns = match self.weights {
            Weights::Panels { values, columns, panel_step } => {
                let (each, panels) = (self.taps.len() * self.depth * panel, columns.div_ceil(panel));
                let whole = each == 0 || panels == 0 || (panels - 1) * panel_step + each <= values.len();
                assert!(whole, "a row of weights for each step, packed for this level");
                columns
            }
            Weights::Rows { values, columns } => {
                assert!(columns.is_multiple_of(panel), "whole panels of weights");
                assert!(values.len() >= self.taps.len() * self.depth * columns, "a row of weights for each step");
                columns
            }
        };
        if let Finish::Write { bias, rectifier, .. } = self.finish {
            let whole = |v: &[f32]| v.len() >= columns.next_multiple_of(panel);
            let slopes = !matches!(rectifier, Rectifier::Prelu(slope) if !whole(slope));
            assert!(bias.is_none_or(whole) && slopes, "whole panels of bias and slopes");
        }
        let (pixel, step) = match self.order {
            Order::Steps { pixel } => (pixel, 1),
            Order::Pixels { step } => (1, step),
        };
        let tap = self.taps.iter().max().copied().unwrap_or(0);
        for run in runs.iter().filter(|run| run.count > 0) {
            let last = run.count - 1;
            if self.depth > 0 {
                assert!(
                    run.a + last * pixel + tap + (self.depth - 1) * step < self.a.len(),
                    "pixels inside the picture"
                );
            }
            assert!(run.out + last * self.out_pixel + columns <= out, "outputs inside their slice");
            if let Finish::Write { residual: Some((values, pixel)), .. } = self.finish {
                assert!(run.residual + last * pixel + columns <= values.len(), "residuals inside their slice");
            }
        }
    }
}

#[expect(unsafe_code, reason = "tiles take pointers")]
fn compute(level: Level, transposed: bool, vectors: usize, job: &Job<'_>, groups: &Groups) {
    let mut job = *job;
    for (group, place) in groups.places.iter().enumerate() {
        job.a[group] = job.a[group].wrapping_add(place.a);
        job.out[group] = job.out[group].wrapping_add(place.out);
        if let End::Write { residual, .. } = &mut job.end
            && !residual[group].is_null()
        {
            residual[group] = residual[group].wrapping_add(place.residual);
        }
    }
    // SAFETY: `Product::check` held the first and last pixel of every run, with every tap, step and channel, to their slices, and the
    // places lie between them; `out` is borrowed mutably by `write`, so it overlaps nothing that is read.
    unsafe { tile::run(level, transposed, (groups.count, groups.pixels, vectors), job) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn random(count: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
        (0..count).map(|_| rng.random_range(-1.0..1.0)).collect()
    }

    proptest! {
        #[test]
        fn every_level_computes_the_sums_of_the_definition(
            (counts, taps, depth, columns) in (prop::collection::vec(1usize..20, 1..4), 1usize..4, 1usize..20, 1usize..80),
            (spread, with_bias, with_residual, with_slope, seed) in (1usize..4, any::<bool>(), any::<bool>(), 0usize..3, any::<u64>()),
        ) {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let taps: Vec<usize> = (0..taps).map(|_| rng.random_range(0..30)).collect();
            let pixel = spread * depth;
            let mut runs = Vec::new();
            let (mut a_at, mut out_at) = (0, 0);
            for count in counts {
                runs.push(Run { a: a_at, out: out_at, residual: out_at, count });
                a_at += count * pixel;
                out_at += count * (columns + 1);
            }
            let a = random(a_at + 30 + depth, &mut rng);
            let (weights, bias) = (random(taps.len() * depth * columns, &mut rng), random(columns, &mut rng));
            let (residual, slope) = (random(out_at, &mut rng), random(columns, &mut rng));
            for level in Level::available() {
                let packed = Packed::new(level, taps.len() * depth, columns, |row, to| to.copy_from_slice(&weights[row * columns..][..columns]));
                let (bias, slope) = (whole_panels(level, &bias), whole_panels(level, &slope));
                let finish = Finish::Write {
                    bias: with_bias.then_some(&bias),
                    residual: with_residual.then_some((&residual, columns + 1)),
                    rectifier: [Rectifier::None, Rectifier::Relu, Rectifier::Prelu(&slope[..])][with_slope],
                };
                let product = Product { a: &a, order: Order::Steps { pixel }, taps: &taps, depth, weights: packed.weights(level), out_pixel: columns + 1, finish };
                let mut out = vec![7.0; out_at];
                product.write(level, &runs, &mut out);
                for run in &runs {
                    for p in 0..run.count {
                        for c in 0..columns {
                            let at = run.out + p * (columns + 1) + c;
                            let (mut sum, mut size) = (0.0, 3.0);
                            for (t, tap) in taps.iter().enumerate() {
                                for k in 0..depth {
                                    let term = f64::from(a[run.a + p * pixel + tap + k]) * f64::from(weights[(t * depth + k) * columns + c]);
                                    sum += term;
                                    size += term.abs();
                                }
                            }
                            sum += if with_bias { f64::from(bias[c]) } else { 0.0 };
                            sum += if with_residual { f64::from(residual[at]) } else { 0.0 };
                            let expected = match with_slope {
                                0 => sum,
                                1 => sum.max(0.0),
                                _ => sum.max(0.0) + f64::from(slope[c]) * sum.min(0.0),
                            };
                            // Each of the products and additions rounds once.
                            let bound = (taps.len() * depth + 4) as f64 * f64::from(f32::EPSILON) * size;
                            let error = (f64::from(out[at]) - expected).abs();
                            prop_assert!(error <= bound, "{}: {} instead of {expected}, off by {error:e}, allowed {bound:e}", level.name(), out[at]);
                        }
                        prop_assert_eq!(out[run.out + p * (columns + 1) + columns], 7.0, "{} wrote beyond its channels", level.name());
                    }
                }
            }
        }

        #[test]
        fn every_level_computes_the_transposed_sums_and_adds_them(
            (count, taps, depth, panels) in (1usize..30, 1usize..4, 1usize..9, 1usize..3),
            (step, seed) in (1usize..40, any::<u64>()),
        ) {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let columns = panels * 32;
            let taps: Vec<usize> = (0..taps).map(|_| rng.random_range(0..30)).collect();
            let a = random(count + 30 + depth * step, &mut rng);
            let b = random(taps.len() * depth * columns, &mut rng);
            let before = random(count * columns, &mut rng);
            for level in Level::available() {
                let weights = Weights::Rows { values: &b, columns };
                let product = Product { a: &a, order: Order::Pixels { step }, taps: &taps, depth, weights, out_pixel: columns, finish: Finish::Accumulate };
                let mut out = before.clone();
                product.write(level, &[Run { a: 0, out: 0, residual: 0, count }], &mut out);
                for (at, found) in out.iter().enumerate() {
                    let (p, c) = (at / columns, at % columns);
                    let (mut sum, mut size) = (f64::from(before[at]), 1.0);
                    for (t, tap) in taps.iter().enumerate() {
                        for k in 0..depth {
                            let term = f64::from(a[p + tap + k * step]) * f64::from(b[(t * depth + k) * columns + c]);
                            sum += term;
                            size += term.abs();
                        }
                    }
                    let bound = (taps.len() * depth + 2) as f64 * f64::from(f32::EPSILON) * size;
                    prop_assert!((f64::from(*found) - sum).abs() <= bound, "{}: {found} instead of {sum}", level.name());
                }
            }
        }
    }
}
