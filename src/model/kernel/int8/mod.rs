//! Products of a picture of unsigned bytes with signed weights: convolutions of a quantised network.
//!
//! `out[run.out + p · out_pixel + c] = end(Σ_t Σ_k a[run.a + p · pixel + taps[t] + k] · b[t, k, c])` for the pixels `p` of each run and all
//! channels `c`, where `end(sum) = sum · scale[c] + bias[c] + residual`, stored as a float, or as the nearest byte, which makes zero of
//! negative values: a byte's value is behind a ReLU.
//! Every level gives the same bits.

mod convolution;
mod registers;
mod tile;

pub(crate) use convolution::{ByteConvolution, ByteWeights};

use super::runs::{Groups, Place, cut};
use super::{Level, Run};
use tile::{Addend, BLOCK, Job, Line, Path, QUAD, Store};

/// Weights in panels of channels as wide as a tile, in quads of depth: `(panels, taps, quads, channels of the panel, 4)`, zeros behind
/// the last channel and behind the end of each tap.
#[derive(Clone, Debug)]
struct PackedBytes {
    path: Path,
    lines: Vec<Line>,
    taps: usize,
    depth: usize,
    columns: usize,
}

impl PackedBytes {
    /// `row(r, channels)` writes the weights of row `r = tap · depth + step`, for all `columns` channels.
    fn new(level: Level, taps: usize, depth: usize, columns: usize, row: impl FnMut(usize, &mut [i8])) -> Self {
        Self::pack(Path::of(level), taps, depth, columns, row)
    }

    fn pack(path: Path, taps: usize, depth: usize, columns: usize, mut row: impl FnMut(usize, &mut [i8])) -> Self {
        let (blocks, quads) = (path.blocks(), depth.div_ceil(QUAD));
        let panels = columns.div_ceil(blocks * BLOCK);
        let mut lines = vec![Line([0; BLOCK * QUAD]); panels * taps * quads * blocks];
        let mut weights = vec![0; columns];
        for r in 0..taps * depth {
            row(r, &mut weights);
            let (tap, step) = (r / depth, r % depth);
            for (block, part) in weights.chunks(BLOCK).enumerate() {
                let (panel, block) = (block / blocks, block % blocks);
                let line = &mut lines[((panel * taps + tap) * quads + step / QUAD) * blocks + block];
                for (c, weight) in part.iter().enumerate() {
                    line.0[c * QUAD + step % QUAD] = *weight;
                }
            }
        }
        Self { path, lines, taps, depth, columns }
    }

    /// How many bytes a tap reads: the steps, and up to three more.
    fn reach(&self) -> usize {
        self.depth.next_multiple_of(QUAD)
    }
}

/// Rounded to even, in 0..=255: a form of which compilers make vectors.
#[inline(always)]
pub(crate) fn nearest_byte(y: f32) -> u8 {
    /// Added to a small number, it leaves the number's nearest integer, ties to even, in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let y = if y > 0.0 { y } else { 0.0 };
    let y = if y < 255.0 { y } else { 255.0 };
    (y + ROUND).to_bits() as u8
}

/// What is added to the sums.
#[derive(Clone, Copy)]
pub(crate) enum Residual<'a> {
    Floats(&'a [f32]),
    Bytes(&'a [u8]),
}

/// Where outputs go.
pub(crate) enum Outputs<'a> {
    Floats(&'a mut [f32]),
    /// Rounded to even, in 0..=255.
    Bytes(&'a mut [u8]),
}

/// One product.
struct ByteProduct<'a> {
    a: &'a [u8],
    /// From one pixel to the next in `a`.
    pixel: usize,
    /// Offsets into `a` where taps begin. [`PackedBytes::reach`] bytes can be read from each.
    taps: &'a [usize],
    weights: &'a PackedBytes,
    /// One of each for a channel.
    scale: &'a [f32],
    bias: &'a [f32],
    residual: Option<Residual<'a>>,
    residual_pixel: usize,
    /// What residuals are multiplied by.
    residual_step: f32,
    out_pixel: usize,
}

impl ByteProduct<'_> {
    /// Computes the outputs of all runs.
    ///
    /// # Panics
    /// When anything would be read or written outside of its slice: our own mistake.
    fn write(&self, runs: &[Run], out: Outputs<'_>) {
        let (length, store) = match out {
            Outputs::Floats(values) => (values.len(), Store::Floats(values.as_mut_ptr())),
            Outputs::Bytes(values) => (values.len(), Store::Bytes(values.as_mut_ptr())),
        };
        self.check(runs, length);
        let PackedBytes { path, taps, depth, columns, .. } = *self.weights;
        let (blocks, quads) = (path.blocks(), depth.div_ceil(QUAD));
        let step = Place { a: self.pixel, out: self.out_pixel, residual: self.residual_pixel };
        let all = cut(runs, step, path.limits());
        for (panel, first) in (0..columns).step_by(blocks * BLOCK).enumerate() {
            let columns = (columns - first).min(blocks * BLOCK);
            let job = Job {
                a: self.a.as_ptr(),
                a_pixel: self.pixel,
                taps: self.taps,
                quads,
                weights: self.weights.lines.as_ptr().wrapping_add(panel * taps * quads * blocks),
                columns,
                scale: self.scale[first..].as_ptr(),
                bias: self.bias[first..].as_ptr(),
                residual: match self.residual {
                    None => Addend::None,
                    Some(Residual::Floats(values)) => Addend::Floats(values.as_ptr().wrapping_add(first)),
                    Some(Residual::Bytes(values)) => Addend::Bytes(values.as_ptr().wrapping_add(first)),
                },
                residual_pixel: self.residual_pixel,
                residual_step: self.residual_step,
                out: match store {
                    Store::Floats(values) => Store::Floats(values.wrapping_add(first)),
                    Store::Bytes(values) => Store::Bytes(values.wrapping_add(first)),
                },
                out_pixel: self.out_pixel,
            };
            for groups in &all {
                compute(path, columns.div_ceil(BLOCK), &job, groups);
            }
        }
    }

    /// Holds every index that the tiles will use to its slice.
    fn check(&self, runs: &[Run], out: usize) {
        let columns = self.weights.columns;
        assert_eq!(self.weights.taps, self.taps.len(), "weights for each tap");
        assert!(self.scale.len() >= columns && self.bias.len() >= columns, "a scale and a bias for each channel");
        let tap = self.taps.iter().max().copied().unwrap_or(0);
        for run in runs.iter().filter(|run| run.count > 0) {
            let last = run.count - 1;
            let end = run.a + last * self.pixel + tap + self.weights.reach();
            assert!(end <= self.a.len(), "pixels inside the picture, with what follows the last");
            assert!(run.out + last * self.out_pixel + columns <= out, "outputs inside their slice");
            let length = match self.residual {
                None => continue,
                Some(Residual::Floats(values)) => values.len(),
                Some(Residual::Bytes(values)) => values.len(),
            };
            assert!(run.residual + last * self.residual_pixel + columns <= length, "residuals inside their slice");
        }
    }
}

#[expect(unsafe_code, reason = "tiles take pointers")]
fn compute(path: Path, blocks: usize, job: &Job<'_>, groups: &Groups) {
    // SAFETY: `ByteProduct::check` held the first and last pixel of every run, with every tap, quad and channel, to their slices, and the
    // places lie between them; the outputs are borrowed mutably by `write`, so they overlap nothing that is read.
    unsafe { tile::run(path, (groups.count, groups.pixels, blocks), job, &groups.places) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Every path of this CPU, `Avx2` without VNNI among them.
    fn paths() -> Vec<Path> {
        let mut paths: Vec<Path> = Level::available().map(Path::of).collect();
        #[cfg(target_arch = "x86_64")]
        paths.extend(pulp::x86::V3::try_new().map(Path::Avx2));
        paths
    }

    proptest! {
        #[test]
        fn every_path_gives_the_bits_of_the_definition(
            (counts, taps, depth, columns) in (prop::collection::vec(1usize..20, 1..5), 1usize..5, 1usize..22, 1usize..80),
            (spread, residual, bytes, seed) in (1usize..4, 0..3, any::<bool>(), any::<u64>()),
        ) {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let taps: Vec<usize> = (0..taps).map(|_| rng.random_range(0..30)).collect();
            let (pixel, out_pixel) = (spread * depth, columns + 1);
            let mut runs = Vec::new();
            let (mut a_at, mut out_at) = (0, 0);
            for count in counts {
                runs.push(Run { a: a_at, out: out_at, residual: out_at, count });
                a_at += count * pixel;
                out_at += count * out_pixel;
            }
            // Extremes are common, since they are what could saturate.
            let mut extreme = |low: i32, high: i32| match rng.random_range(0..4) {
                0 => low,
                1 => high,
                _ => rng.random_range(low..=high),
            };
            let a: Vec<u8> = (0..a_at + 33 + depth).map(|_| extreme(0, 255) as u8).collect();
            let weights: Vec<i8> = (0..taps.len() * depth * columns).map(|_| extreme(-128, 127) as i8).collect();
            let added: Vec<u8> = (0..out_at).map(|_| extreme(0, 255) as u8).collect();
            let mut floats = |count: usize, size: f32| (0..count).map(|_| rng.random_range(-size..size)).collect::<Vec<f32>>();
            let (scale, bias, added_floats) = (floats(columns, 0.01), floats(columns, 9.0), floats(out_at, 9.0));
            let residual_step = 0.37;
            let residual = match residual {
                0 => None,
                1 => Some(Residual::Floats(&added_floats)),
                _ => Some(Residual::Bytes(&added)),
            };

            let (mut expected, mut expected_bytes) = (vec![7.0f32; out_at], vec![7u8; out_at]);
            for run in &runs {
                for (p, c) in (0..run.count).flat_map(|p| (0..columns).map(move |c| (p, c))) {
                    let mut sum = 0;
                    for (t, tap) in taps.iter().enumerate() {
                        for k in 0..depth {
                            let weight = weights[(t * depth + k) * columns + c];
                            sum += i32::from(a[run.a + p * pixel + tap + k]) * i32::from(weight);
                        }
                    }
                    let at = run.out + p * out_pixel + c;
                    let mut y = sum as f32 * scale[c] + bias[c];
                    match residual {
                        None => {}
                        Some(Residual::Floats(values)) => y += values[at] * residual_step,
                        Some(Residual::Bytes(values)) => y += f32::from(values[at]) * residual_step,
                    }
                    expected[at] = y;
                    expected_bytes[at] = y.round_ties_even().clamp(0.0, 255.0) as u8;
                }
            }

            for path in paths() {
                let packed = PackedBytes::pack(path, taps.len(), depth, columns, |row, to| to.copy_from_slice(&weights[row * columns..][..columns]));
                let product = ByteProduct { a: &a, pixel, taps: &taps, weights: &packed, scale: &scale, bias: &bias, residual, residual_pixel: out_pixel, residual_step, out_pixel };
                if bytes {
                    let mut out = vec![7; out_at];
                    product.write(&runs, Outputs::Bytes(&mut out));
                    prop_assert_eq!(&out, &expected_bytes, "{:?}", path);
                } else {
                    let mut out = vec![7.0; out_at];
                    product.write(&runs, Outputs::Floats(&mut out));
                    prop_assert_eq!(&out, &expected, "{:?}", path);
                }
            }
        }
    }
}
