//! Convolutions of 3 x 3 kernels at stride 1 with four ninths of the multiplications.
//!
//! Lavin & Gray 2016 (arXiv:1509.09308), section 4.1, F(2 x 2, 3 x 3): four pixels of an output are `Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A` of
//! the 4 x 4 inputs `d` that they see and of the kernel `g`. The 16 products of the middle are sums over channels: 16 plain matrix products
//! for all tiles of 2 x 2 pixels. What goes into them is at most four inputs added up, so that they round about as the direct sum does.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::tile::{self, rectified};
use super::{Aligned, Finish, Level, Map, Order, Product, Rectifier, Run, Shape, Weights};

/// Numbers of a transformed tile.
const POSITIONS: usize = 16;

/// Floats of transformed inputs and outputs that are worked on at once: a second-level cache keeps them, beside some weights.
const CACHED: usize = 3 << 16;

/// Channels that every level has whole registers for.
const BLOCK: usize = 16;

/// Fewer channels are sooner convolved than transformed.
const CHANNELS_MIN: usize = 32;

/// Fewer outputs than these are not worth reading 16 numbers of weights for 9.
const OUTPUTS_MIN: usize = 36;

/// Weights as the products want them: `G g Gᵀ`, a matrix of channels and outputs for each of its 16 numbers.
/// Panel by panel, so that threads can transform them: `(panels, 16, channels, width of a panel)`.
#[derive(Debug)]
pub(super) struct Winograd(Aligned<f32>);

/// What outputs are made of besides sums: channels of bias and slopes, and pictures of residuals.
#[derive(Clone, Copy)]
pub(super) struct Ending<'a> {
    pub(super) bias: &'a [f32],
    pub(super) residual: Option<&'a [f32]>,
    pub(super) rectifier: Rectifier<&'a [f32]>,
}

/// The 2 x 2 outputs of one tile.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// The first of its 4 x 4 inputs, and how many of their rows and columns there are; zeros stand for the others.
    pub(super) input: usize,
    pub(super) inside: [usize; 2],
    /// The first output and residual, and how many rows and columns are wanted.
    pub(super) output: usize,
    pub(super) residual: usize,
    pub(super) wanted: [usize; 2],
}

/// Distances from row to row and from pixel to pixel of the three pictures.
#[derive(Clone, Copy)]
pub(super) struct Strides {
    pub(super) input: [usize; 2],
    pub(super) output: [usize; 2],
    pub(super) residual: [usize; 2],
}

impl Strides {
    pub(super) fn of(from: &Map, to: &Map, residual: &Map) -> Self {
        let each = |map: &Map| [map.row(), map.channels];
        Self { input: each(from), output: each(to), residual: each(residual) }
    }
}

impl Winograd {
    /// Whether it is faster than direct sums, for `outputs` pixels that are computed while the weights are at hand.
    pub(super) fn suits(shape: &Shape, outputs: usize) -> bool {
        let enough = |channels: usize| channels >= CHANNELS_MIN && channels.is_multiple_of(BLOCK);
        let sizes = shape.kernel == [3, 3] && shape.stride == 1 && shape.groups == 1;
        sizes && enough(shape.channels) && enough(shape.out) && outputs >= OUTPUTS_MIN
    }

    /// - `weight`: `(3, 3, channels, out)`.
    pub(super) fn new(level: Level, shape: &Shape, weight: &[f32]) -> Self {
        let Shape { channels, out, .. } = *shape;
        let panel = tile::panel(level);
        let mut transformed = Aligned::default();
        let values = transformed.zeros(POSITIONS * channels * out.next_multiple_of(panel));
        let panels = values.par_chunks_mut(POSITIONS * channels * panel);
        panels.enumerate().for_each(|(index, to)| {
            let first = index * panel;
            dispatch(level, Kernels { weight, channels, out, first, panel, to });
        });
        Self(transformed)
    }

    /// Numbers in memory.
    pub(super) fn len(&self) -> usize {
        self.0.values().len()
    }

    /// Computes the outputs of all tiles; `scratch` is only kept for the next time.
    #[expect(clippy::too_many_arguments, reason = "a picture in, one out, and what is done to it")]
    pub(super) fn write(
        &self,
        level: Level,
        shape: &Shape,
        x: &[f32],
        tiles: &[Tile],
        strides: &Strides,
        ending: Ending<'_>,
        out: &mut [f32],
        scratch: &mut Vec<f32>,
    ) {
        let (each, panel) = (POSITIONS * (shape.channels + shape.out), tile::panel(level));
        // Blocks of one size, rather than a small one at the end.
        let blocks = tiles.len().div_ceil((CACHED / each).max(1)).max(1);
        let size = tiles.len().div_ceil(blocks);
        scratch.resize((each * size).max(scratch.len()), 0.0);
        let zeros = vec![0.0; shape.channels];
        for tiles in tiles.chunks(size.max(1)) {
            let (inputs, sums) = scratch[..each * tiles.len()].split_at_mut(POSITIONS * shape.channels * tiles.len());
            dispatch(level, Inputs { x, zeros: &zeros, tiles, strides: strides.input, to: &mut *inputs });
            for position in 0..POSITIONS {
                let part = shape.channels * panel;
                let values = &self.0.values()[position * part..];
                let weights = Weights::Panels { values, columns: shape.out, panel_step: POSITIONS * part };
                let run = Run {
                    a: position * shape.channels * tiles.len(),
                    out: position * shape.out * tiles.len(),
                    residual: 0,
                    count: tiles.len(),
                };
                let product = Product {
                    a: inputs,
                    order: Order::Steps { pixel: shape.channels },
                    taps: &[0],
                    depth: shape.channels,
                    weights,
                    out_pixel: shape.out,
                    finish: Finish::Write { bias: None, residual: None, rectifier: Rectifier::None },
                };
                product.write(level, &[run], sums);
            }
            dispatch(level, Outputs { sums, tiles, strides, channels: shape.out, ending, out });
        }
    }
}

/// The gradient of the weights for the tiles of several pictures: adds to `sums`, `(16, channels, out)`, what `G g Gᵀ` would change by.
///
/// The chain rule, through `Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A`: `Σ (Bᵀ d B) ⊙ (A δ Aᵀ)` over all tiles, with `δ` the gradient of their outputs.
#[expect(clippy::too_many_arguments, reason = "two pictures, where their tiles are, and sums")]
pub(super) fn add_weight_gradient(
    level: Level,
    shape: &Shape,
    x: &[f32],
    grad: &[f32],
    tiles: &[Tile],
    strides: &Strides,
    sums: &mut [f32],
    scratch: &mut Vec<f32>,
) {
    let each = POSITIONS * (shape.channels + shape.out);
    let size = (CACHED / each).max(1);
    scratch.resize((each * size).max(scratch.len()), 0.0);
    let zeros = vec![0.0; shape.channels.max(shape.out)];
    for tiles in tiles.chunks(size) {
        let (inputs, outputs) = scratch[..each * tiles.len()].split_at_mut(POSITIONS * shape.channels * tiles.len());
        dispatch(level, Inputs { x, zeros: &zeros[..shape.channels], tiles, strides: strides.input, to: &mut *inputs });
        let zeros = &zeros[..shape.out];
        dispatch(level, OutputGradients { grad, zeros, tiles, strides: strides.output, to: &mut *outputs });
        for position in 0..POSITIONS {
            let product = Product {
                a: inputs,
                order: Order::Pixels { step: shape.channels },
                taps: &[0],
                depth: tiles.len(),
                weights: Weights::Rows { values: &outputs[position * shape.out * tiles.len()..], columns: shape.out },
                out_pixel: shape.out,
                finish: Finish::Accumulate,
            };
            let a = position * shape.channels * tiles.len();
            let out = position * shape.channels * shape.out;
            product.write(level, &[Run { a, out, residual: 0, count: shape.channels }], sums);
        }
    }
}

/// `Gᵀ s G` of all sums: the gradient of the kernel, `(3, 3, channels, out)`.
pub(super) fn contract(level: Level, shape: &Shape, sums: &[f32]) -> Vec<f32> {
    let each = shape.channels * shape.out;
    let mut to = vec![0.0; 9 * each];
    dispatch(level, Contract { sums, each, to: &mut to });
    to
}

/// Numbers of the sums of [`add_weight_gradient`].
pub(super) fn sums(shape: &Shape) -> usize {
    POSITIONS * shape.channels * shape.out
}

fn dispatch<W: WithSimd<Output = ()>>(level: Level, work: W) {
    match level {
        Level::Portable => Simd::vectorize(pulp::Scalar::new(), work),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2(simd) => Simd::vectorize(simd, work),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512(simd) => Simd::vectorize(simd, work),
    }
}

/// `G g Gᵀ` of the outputs of one panel.
struct Kernels<'a> {
    /// `(3, 3, channels, out)`.
    weight: &'a [f32],
    channels: usize,
    out: usize,
    first: usize,
    panel: usize,
    /// `(16, channels, panel)`.
    to: &'a mut [f32],
}

impl WithSimd for Kernels<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (channels, panel) = (self.channels, self.panel / S::F32_LANES);
        let registers = (self.out - self.first).min(self.panel) / S::F32_LANES;
        let (to, _) = S::as_mut_simd_f32s(self.to);
        for c in 0..channels {
            for r in 0..registers {
                let mut rows = [[simd.splat_f32s(0.0); 4]; 3];
                for i in 0..3 {
                    let mut g = [simd.splat_f32s(0.0); 3];
                    for j in 0..3 {
                        let at = ((3 * i + j) * channels + c) * self.out + self.first + r * S::F32_LANES;
                        g[j] = S::as_simd_f32s(&self.weight[at..][..S::F32_LANES]).0[0];
                    }
                    rows[i] = expand(simd, g);
                }
                for j in 0..4 {
                    let column = expand(simd, [rows[0][j], rows[1][j], rows[2][j]]);
                    for i in 0..4 {
                        to[((4 * i + j) * channels + c) * panel + r] = column[i];
                    }
                }
            }
        }
    }
}

/// `G` times a column of the kernel.
#[inline(always)]
fn expand<S: Simd>(simd: S, [a, b, c]: [S::f32s; 3]) -> [S::f32s; 4] {
    let half = simd.splat_f32s(0.5);
    let sides = simd.add_f32s(a, c);
    [a, simd.mul_f32s(half, simd.add_f32s(sides, b)), simd.mul_f32s(half, simd.sub_f32s(sides, b)), c]
}

/// `Bᵀ d B` of all tiles: `(16, tiles, channels)`.
struct Inputs<'a> {
    x: &'a [f32],
    zeros: &'a [f32],
    tiles: &'a [Tile],
    strides: [usize; 2],
    to: &'a mut [f32],
}

impl WithSimd for Inputs<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (channels, registers) = (self.zeros.len(), self.zeros.len() / S::F32_LANES);
        let each = self.tiles.len() * registers;
        let (to, _) = S::as_mut_simd_f32s(self.to);
        for (at, tile) in self.tiles.iter().enumerate() {
            let mut pixels = [[self.zeros; 4]; 4];
            for (i, row) in pixels.iter_mut().enumerate().take(tile.inside[0]) {
                for (j, pixel) in row.iter_mut().enumerate().take(tile.inside[1]) {
                    *pixel = &self.x[tile.input + i * self.strides[0] + j * self.strides[1]..][..channels];
                }
            }
            let pixels = pixels.map(|row| row.map(|pixel| S::as_simd_f32s(pixel).0));
            for c in 0..registers {
                let mut d = [[simd.splat_f32s(0.0); 4]; 4];
                for i in 0..4 {
                    for j in 0..4 {
                        d[i][j] = pixels[i][j][c];
                    }
                }
                for j in 0..4 {
                    let column = spread(simd, [d[0][j], d[1][j], d[2][j], d[3][j]]);
                    for i in 0..4 {
                        d[i][j] = column[i];
                    }
                }
                for i in 0..4 {
                    let row = spread(simd, d[i]);
                    for j in 0..4 {
                        to[(4 * i + j) * each + at * registers + c] = row[j];
                    }
                }
            }
        }
    }
}

/// `Bᵀ` times a column of inputs.
#[inline(always)]
fn spread<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; 4]) -> [S::f32s; 4] {
    [simd.sub_f32s(a, c), simd.add_f32s(b, c), simd.sub_f32s(c, b), simd.sub_f32s(b, d)]
}

/// `A δ Aᵀ` of all tiles: `(16, tiles, channels)`.
struct OutputGradients<'a> {
    grad: &'a [f32],
    zeros: &'a [f32],
    tiles: &'a [Tile],
    strides: [usize; 2],
    to: &'a mut [f32],
}

impl WithSimd for OutputGradients<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (channels, registers) = (self.zeros.len(), self.zeros.len() / S::F32_LANES);
        let each = self.tiles.len() * registers;
        let (to, _) = S::as_mut_simd_f32s(self.to);
        for (at, tile) in self.tiles.iter().enumerate() {
            let mut pixels = [[self.zeros; 2]; 2];
            for (i, row) in pixels.iter_mut().enumerate().take(tile.wanted[0]) {
                for (j, pixel) in row.iter_mut().enumerate().take(tile.wanted[1]) {
                    *pixel = &self.grad[tile.output + i * self.strides[0] + j * self.strides[1]..][..channels];
                }
            }
            let pixels = pixels.map(|row| row.map(|pixel| S::as_simd_f32s(pixel).0));
            for c in 0..registers {
                let mut columns = [[simd.splat_f32s(0.0); 4]; 2];
                for j in 0..2 {
                    columns[j] = scatter(simd, [pixels[0][j][c], pixels[1][j][c]]);
                }
                for i in 0..4 {
                    let row = scatter(simd, [columns[0][i], columns[1][i]]);
                    for j in 0..4 {
                        to[(4 * i + j) * each + at * registers + c] = row[j];
                    }
                }
            }
        }
    }
}

/// `A` times a column of outputs' gradients.
#[inline(always)]
fn scatter<S: Simd>(simd: S, [a, b]: [S::f32s; 2]) -> [S::f32s; 4] {
    [a, simd.add_f32s(a, b), simd.sub_f32s(a, b), simd.sub_f32s(simd.splat_f32s(0.0), b)]
}

/// `Gᵀ s G` of `(16, each)` sums to `(9, each)`.
struct Contract<'a> {
    sums: &'a [f32],
    each: usize,
    to: &'a mut [f32],
}

impl WithSimd for Contract<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let each = self.each / S::F32_LANES;
        let (sums, _) = S::as_simd_f32s(self.sums);
        let (to, _) = S::as_mut_simd_f32s(self.to);
        for at in 0..each {
            let mut rows = [[simd.splat_f32s(0.0); 3]; 4];
            for i in 0..4 {
                let mut s = [simd.splat_f32s(0.0); 4];
                for j in 0..4 {
                    s[j] = sums[(4 * i + j) * each + at];
                }
                rows[i] = narrow(simd, s);
            }
            for j in 0..3 {
                let column = narrow(simd, [rows[0][j], rows[1][j], rows[2][j], rows[3][j]]);
                for i in 0..3 {
                    to[(3 * i + j) * each + at] = column[i];
                }
            }
        }
    }
}

/// `Gᵀ` times a column of sums.
#[inline(always)]
fn narrow<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; 4]) -> [S::f32s; 3] {
    let half = simd.splat_f32s(0.5);
    let (sum, difference) = (simd.mul_f32s(half, simd.add_f32s(b, c)), simd.mul_f32s(half, simd.sub_f32s(b, c)));
    [simd.add_f32s(a, sum), difference, simd.add_f32s(sum, d)]
}

/// `Aᵀ m A` of all tiles' sums, `(16, tiles, channels)`, and what follows, into pictures.
struct Outputs<'a> {
    sums: &'a [f32],
    tiles: &'a [Tile],
    strides: &'a Strides,
    channels: usize,
    ending: Ending<'a>,
    out: &'a mut [f32],
}

impl WithSimd for Outputs<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let registers = self.channels / S::F32_LANES;
        let each = self.tiles.len() * registers;
        let (sums, _) = S::as_simd_f32s(self.sums);
        let zero = simd.splat_f32s(0.0);
        let (bias, _) = S::as_simd_f32s(self.ending.bias);
        let rectifier = self.ending.rectifier.map(|slope| S::as_simd_f32s(slope).0);
        for (at, tile) in self.tiles.iter().enumerate() {
            for c in 0..registers {
                let mut rows = [[zero; 2]; 4];
                for i in 0..4 {
                    let mut m = [zero; 4];
                    for j in 0..4 {
                        m[j] = sums[(4 * i + j) * each + at * registers + c];
                    }
                    rows[i] = gather(simd, m);
                }
                for j in 0..tile.wanted[1] {
                    let column = gather(simd, [rows[0][j], rows[1][j], rows[2][j], rows[3][j]]);
                    for i in 0..tile.wanted[0] {
                        let mut y = simd.add_f32s(column[i], bias[c]);
                        if let Some(residual) = self.ending.residual {
                            let strides = self.strides.residual;
                            let place = tile.residual + i * strides[0] + j * strides[1] + c * S::F32_LANES;
                            y = simd.add_f32s(y, S::as_simd_f32s(&residual[place..][..S::F32_LANES]).0[0]);
                        }
                        y = match rectifier {
                            Rectifier::Prelu(slope) => rectified(simd, y, Rectifier::Prelu(slope[c])),
                            Rectifier::Relu => rectified(simd, y, Rectifier::Relu),
                            Rectifier::None => y,
                        };
                        let strides = self.strides.output;
                        let place = tile.output + i * strides[0] + j * strides[1] + c * S::F32_LANES;
                        S::as_mut_simd_f32s(&mut self.out[place..][..S::F32_LANES]).0[0] = y;
                    }
                }
            }
        }
    }
}

/// `Aᵀ` times a column of sums.
#[inline(always)]
fn gather<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; 4]) -> [S::f32s; 2] {
    [simd.add_f32s(simd.add_f32s(a, b), c), simd.sub_f32s(simd.sub_f32s(b, c), d)]
}
