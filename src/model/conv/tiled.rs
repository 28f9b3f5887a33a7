//! The convolution and its gradients in `bf16` where the CPU multiplies tiles of it: sums are `f32`, and shifts of one line of pixels take the
//! place of a kernel's parts.

use half::bf16;
use rayon::prelude::*;

use super::cpu::GROUPS;
use super::lattice::{Lattice, Lines, Pictures, Tap, paired, turned};
use super::{Sizes, narrowed};
use crate::model::kernel::amx::{Amx, Pairs, Rows, SIDE, STEP};
use crate::model::kernel::{Aligned, Level, Shape, in_parts};

/// Pixels that are worked on at once: a second-level cache keeps them.
const PIXELS: usize = 800;

/// Numbers of a tile of weights, and from its pair to the next.
const TILE: usize = 512;
const PAIR: usize = 32;

/// What patches of few channels may have.
const PATCH: usize = 64;

/// One convolution on this CPU.
pub(super) struct Tiled<'a> {
    amx: Amx,
    /// Of the convolution, or of one of single pixels whose channels are the patches that the convolution sees.
    s: Sizes,
    /// The convolution, where its patches are pixels.
    patches: Option<&'a Sizes>,
    lattice: Lattice,
    /// Phases of the input that the kernel reads.
    phases: Vec<[usize; 2]>,
}

/// Weights in panels of `SIDE` columns, tiles of pairs in the order of steps.
struct Panels {
    values: Aligned<bf16>,
    each: usize,
}

impl Panels {
    /// `weight(tap, row, column)` for so many taps, rows and columns.
    fn new(taps: usize, rows: usize, columns: usize, weight: impl Fn(usize, usize, usize) -> bf16 + Sync) -> Self {
        let wide = rows.next_multiple_of(STEP);
        let each = taps * wide * SIDE;
        let mut values = Aligned::default();
        let panels = values.zeros(columns.div_ceil(SIDE) * each).par_chunks_exact_mut(each);
        panels.enumerate().for_each(|(panel, to)| {
            for tap in 0..taps {
                for row in 0..rows {
                    let (step, pair, odd) = (tap * wide / STEP + row / STEP, row % STEP / 2, row % 2);
                    for column in panel * SIDE..columns.min(panel * SIDE + SIDE) {
                        let (half, at) = (column % SIDE / 16, column % 16);
                        to[(2 * step + half) * TILE + pair * PAIR + 2 * at + odd] = weight(tap, row, column);
                    }
                }
            }
        });
        Self { values, each }
    }

    fn all(&self) -> impl Iterator<Item = Pairs<'_>> {
        let pairs = |values| Pairs { values, pair: PAIR, half: TILE, step: 2 * TILE };
        self.values.values().chunks_exact(self.each).map(pairs)
    }
}

/// What a thread works in.
#[derive(Default)]
struct Scratch {
    patches: Vec<bf16>,
    line: Aligned<bf16>,
    sums: Aligned<f32>,
}

impl<'a> Tiled<'a> {
    /// Where the CPU has tiles and the sizes fill them.
    pub(super) fn new(s: &'a Sizes) -> Option<Self> {
        let shape = &s.shape;
        let patch = shape.kernel[0] * shape.kernel[1] * shape.channels;
        let fills = |channels: usize| channels >= 32 && channels.is_multiple_of(16);
        let patches = (shape.channels < 32 && patch <= PATCH).then_some(s);
        let suits = shape.groups == 1 && fills(shape.out) && (fills(shape.channels) || patches.is_some());
        if !suits || s.pixels_out() < 16 {
            return None;
        }
        let amx = Amx::get()?;
        let s = match patches {
            None => *s,
            Some(s) => {
                let shape = Shape { kernel: [1, 1], channels: patch, stride: 1, padding: 0, ..s.shape };
                Sizes { height: s.out[0], width: s.out[1], shape, ..*s }
            }
        };
        let lattice = Lattice::new(&s);
        let mut phases: Vec<[usize; 2]> = lattice.taps.iter().map(|tap| tap.phase).collect();
        phases.sort_unstable();
        phases.dedup();
        Some(Self { amx, s, patches, lattice, phases })
    }

    /// Numbers of one input as it is given.
    fn given(&self) -> usize {
        self.patches.map_or(self.s.photo(), Sizes::photo)
    }

    /// Inputs as the convolution of `s` reads them.
    fn read<'b>(&self, x: &'b [bf16], buffer: &'b mut Vec<bf16>) -> &'b [bf16] {
        let Some(s) = self.patches else { return x };
        let [height, width] = s.shape.kernel;
        let Shape { channels, stride, padding, .. } = s.shape;
        buffer.clear();
        buffer.resize(x.len() / s.photo() * self.s.photo(), bf16::ZERO);
        for (x, to) in x.chunks_exact(s.photo()).zip(buffer.chunks_exact_mut(self.s.photo())) {
            for (at, patch) in to.chunks_exact_mut(self.s.shape.channels).enumerate() {
                let (top, left) = (at / s.out[1] * stride, at % s.out[1] * stride);
                // Columns of the kernel that meet pixels.
                let first = padding.saturating_sub(left);
                let end = width.min((s.width + padding).saturating_sub(left));
                if first >= end {
                    continue;
                }
                for row in 0..height {
                    let Some(y) = (top + row).checked_sub(padding).filter(|y| *y < s.height) else { continue };
                    let from = (y * s.width + left + first - padding) * channels;
                    let (count, to) = ((end - first) * channels, (row * width + first) * channels);
                    patch[to..to + count].copy_from_slice(&x[from..from + count]);
                }
            }
        }
        buffer
    }

    fn inputs(&self, count: usize) -> Lines {
        let s = &self.s;
        let (size, channels, stride) = ([s.height, s.width], s.shape.channels, s.shape.stride);
        let phase = |phase: &[usize; 2]| Pictures { count, size, channels, stride, phase: *phase };
        Lines::new(&self.lattice, self.phases.iter().map(phase).collect())
    }

    fn outputs(&self, count: usize) -> Pictures {
        Pictures { count, size: self.s.out, channels: self.s.shape.out, stride: 1, phase: [0, 0] }
    }

    /// Photos of one task.
    fn together(&self) -> usize {
        let together = (PIXELS / self.lattice.pixels(1)).max(1);
        let tasks = self.s.batch.div_ceil(together).next_multiple_of(rayon::current_num_threads());
        self.s.batch.div_ceil(tasks).max(1)
    }

    /// Which of the lines of inputs a tap reads: those of the phases that are below its own come before.
    fn line_of(&self, tap: &Tap) -> usize {
        self.phases.partition_point(|phase| *phase < tap.phase)
    }

    pub(super) fn forward(&self, x: &[bf16], weight: &[bf16], bias: &[f32], relu: bool) -> Vec<bf16> {
        let s = &self.s;
        let (channels, out) = (s.shape.channels, s.shape.out);
        let panels = Panels::new(self.lattice.taps.len(), channels, out, |tap, c, o| {
            weight[(self.lattice.taps[tap].number * channels + c) * out + o]
        });
        let together = self.together();
        in_parts(bf16::ZERO, s.batch * s.photo_out(), together * s.photo_out(), Scratch::default, |scratch, part, y| {
            let count = y.len() / s.photo_out();
            let lines = self.inputs(count);
            let wide = lines.pictures[0].wide();
            let taps: Vec<usize> = self
                .lattice
                .taps
                .iter()
                .map(|tap| self.line_of(tap) * lines.each() + self.lattice.forward(tap) * wide)
                .collect();
            let x = &x[part * together * self.given()..][..count * self.given()];
            let values = lines.lay(&self.lattice, self.read(x, &mut scratch.patches), &mut scratch.line);
            let rows = Rows { values, row: wide, taps: &taps, steps: wide / STEP };
            self.multiply(&rows, &panels, (bias, relu), &self.outputs(count), &mut scratch.sums, y);
        })
    }

    /// Nothing where patches are pixels: what those make of the input's gradient is another operation.
    pub(super) fn input_gradient(&self, grad: &[bf16], weight: &[bf16]) -> Option<Vec<bf16>> {
        if self.patches.is_some() {
            return None;
        }
        let s = &self.s;
        let (channels, out) = (s.shape.channels, s.shape.out);
        let none = vec![0.0; channels];
        let of = |phase: &[usize; 2]| {
            let taps: Vec<Tap> = self.lattice.taps.iter().filter(|tap| tap.phase == *phase).copied().collect();
            let panels =
                Panels::new(taps.len(), out, channels, |tap, o, c| weight[(taps[tap].number * channels + c) * out + o]);
            (*phase, taps, panels)
        };
        let phases: Vec<_> = self.phases.iter().map(of).collect();
        let together = self.together();
        let dx =
            in_parts(bf16::ZERO, s.batch * s.photo(), together * s.photo(), Scratch::default, |scratch, part, dx| {
                let count = dx.len() / s.photo();
                let pictures = self.outputs(count);
                let wide = pictures.wide();
                let lines = Lines::new(&self.lattice, vec![pictures]);
                let grad = &grad[part * together * s.photo_out()..][..count * s.photo_out()];
                let values = lines.lay(&self.lattice, grad, &mut scratch.line);
                for ((phase, taps, panels), inputs) in phases.iter().zip(self.inputs(count).pictures) {
                    debug_assert_eq!(*phase, inputs.phase);
                    let taps: Vec<usize> = taps.iter().map(|tap| self.lattice.backward(tap) * wide).collect();
                    let rows = Rows { values, row: wide, taps: &taps, steps: wide / STEP };
                    self.multiply(&rows, panels, (&none, false), &inputs, &mut scratch.sums, dx);
                }
            });
        Some(dx)
    }

    /// All pixels of a line times all panels, into the pictures of a tensor.
    fn multiply(
        &self,
        rows: &Rows<'_>,
        panels: &Panels,
        (bias, relu): (&[f32], bool),
        pictures: &Pictures,
        sums: &mut Aligned<f32>,
        to: &mut [bf16],
    ) {
        let pixels = self.lattice.pixels(pictures.count).next_multiple_of(SIDE);
        let sums = sums.sized(pixels * SIDE);
        let tiles = self.amx.tiles();
        for (panel, pairs) in panels.all().enumerate() {
            let first = panel * SIDE;
            let columns = (pictures.channels - first).min(SIDE);
            let mut offsets = [0.0; SIDE];
            offsets[..columns].copy_from_slice(&bias[first..first + columns]);
            for (block, sums) in sums.chunks_exact_mut(SIDE * SIDE).enumerate() {
                tiles.multiply(rows, block * SIDE * rows.row, &pairs, &offsets, sums, SIDE);
            }
            Level::best().run(
                #[inline(always)]
                || self.write(sums, columns, relu, pictures, first, to),
            );
        }
    }

    #[inline(always)]
    fn write(&self, sums: &[f32], columns: usize, relu: bool, pictures: &Pictures, first: usize, to: &mut [bf16]) {
        let floor = if relu { 0.0 } else { f32::NEG_INFINITY };
        let pixel = pictures.stride * pictures.channels;
        self.lattice.rows(pictures, |tensor, place, count| {
            let to = to[tensor * pictures.channels + first..].chunks_mut(pixel);
            for (to, from) in to.zip(sums[place * SIDE..][..count * SIDE].chunks_exact(SIDE)) {
                let from = from.as_chunks::<16>().0;
                let to = &mut to[..columns];
                for (to, from) in to.as_chunks_mut::<16>().0.iter_mut().zip(from) {
                    for (to, from) in to.iter_mut().zip(from) {
                        *to = narrowed(if *from < floor { floor } else { *from });
                    }
                }
            }
        });
    }

    pub(super) fn weight_gradient(&self, x: &[bf16], grad: &[bf16]) -> Vec<f32> {
        let s = &self.s;
        let group = s.batch.div_ceil(GROUPS).max(1);
        let groups = x.par_chunks(group * self.given()).zip(grad.par_chunks(group * s.photo_out()));
        let partials: Vec<Vec<f32>> = groups.map(|(x, grad)| self.partial_weight_gradient(x, grad)).collect();
        let (channels, out) = (s.shape.channels, s.shape.out);
        let (wide, wide_out) = (channels.next_multiple_of(SIDE), out.next_multiple_of(SIDE));
        let mut sums = vec![0.0; s.weights()];
        for (tap, sums) in sums.chunks_exact_mut(channels * out).enumerate() {
            for (c, sums) in sums.chunks_exact_mut(out).enumerate() {
                for partial in &partials {
                    let partial = &partial[(tap * wide + c) * wide_out..][..out];
                    sums.iter_mut().zip(partial).for_each(|(sum, value)| *sum += value);
                }
            }
        }
        sums
    }

    /// `(kernel, channels, out)`, both in whole tiles, of some photos.
    fn partial_weight_gradient(&self, x: &[bf16], grad: &[bf16]) -> Vec<f32> {
        let s = &self.s;
        let together = (PIXELS / self.lattice.pixels(1)).max(1);
        let (wide, wide_out) = (s.shape.channels.next_multiple_of(SIDE), s.shape.out.next_multiple_of(SIDE));
        let mut sums = vec![0.0; self.lattice.taps.len() * wide * wide_out];
        let (mut patches, mut line) = (Vec::new(), Aligned::default());
        let (mut across, mut pairs) = (Aligned::default(), Aligned::default());
        let tiles = self.amx.tiles();
        for (x, grad) in x.chunks(together * self.given()).zip(grad.chunks(together * s.photo_out())) {
            let count = grad.len() / s.photo_out();
            let pixels = self.lattice.pixels(count).next_multiple_of(SIDE);
            let outputs = Lines::new(&self.lattice, vec![self.outputs(count)]);
            let grad = outputs.lay(&self.lattice, grad, &mut line);
            let grad = &grad[self.lattice.margin() * wide_out..][..pixels * wide_out];
            Level::best().run(
                #[inline(always)]
                || paired(grad, wide_out, pairs.sized(grad.len())),
            );
            let inputs = self.inputs(count);
            let x = inputs.lay(&self.lattice, self.read(x, &mut patches), &mut line);
            // An odd number of cache lines, so that rows do not all meet in the same places of the cache.
            let row = (inputs.line.div_ceil(32) | 1) * 32;
            Level::best().run(
                #[inline(always)]
                || turned(x, inputs.line, wide, row, across.sized(x.len() / inputs.line * row)),
            );
            for (columns, b_at) in (0..wide_out).step_by(SIDE).map(|o| (o, 2 * o)) {
                for c in (0..wide).step_by(SIDE) {
                    for tap in &self.lattice.taps {
                        let taps = [self.lattice.forward(tap)];
                        let rows = Rows { values: across.values(), row, taps: &taps, steps: pixels / STEP };
                        let b = Pairs { values: pairs.values(), pair: 2 * wide_out, half: 32, step: 32 * wide_out };
                        let to = &mut sums[(tap.number * wide + c) * wide_out + columns..];
                        tiles.add(&rows, (self.line_of(tap) * wide + c) * row, &b, b_at, to, wide_out);
                    }
                }
            }
        }
        sums
    }
}
