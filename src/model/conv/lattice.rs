//! Pictures of `bf16` in one line of pixels, with zeros between their rows: each part of a kernel then sees the same line, shifted.
//!
//! Rows are `pitch` pixels apart and pictures `rows` rows, so far that whatever a kernel reads beside a picture is zero. With a stride, pixels whose row
//! and column leave the same rest are pictures of their own ("phases"), and all parts of a kernel are shifts again.

use half::bf16;

use super::Sizes;
use crate::model::kernel::Aligned;
use crate::model::kernel::amx::{SIDE, STEP};

/// Channels are filled up to whole steps of products, pixels to whole blocks.
const CHANNELS: usize = STEP;
const BLOCK: usize = SIDE;

/// A part of the kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tap {
    /// Number in the kernel, row after row.
    pub(super) number: usize,
    /// Rests of the rows and columns of the input that it reads.
    pub(super) phase: [usize; 2],
    /// The output at `(y, x)` reads row `y + shift[0]` and column `x + shift[1]` of the phase.
    shift: [isize; 2],
}

/// Where pixels are on the line.
#[derive(Clone, Debug)]
pub(super) struct Lattice {
    pub(super) taps: Vec<Tap>,
    pitch: usize,
    rows: usize,
    /// Zeros before the first pixel and behind the last, as many as the longest shift.
    margin: usize,
}

impl Lattice {
    pub(super) fn new(s: &Sizes) -> Self {
        let (stride, padding) = (s.shape.stride as isize, s.shape.padding as isize);
        let [height, width] = s.shape.kernel;
        let along = |k: usize| (k as isize - padding).div_euclid(stride);
        let rest = |k: usize| (k as isize - padding).rem_euclid(stride) as usize;
        let all = (0..height).flat_map(|y| (0..width).map(move |x| (y, x)));
        let taps: Vec<Tap> = all
            .map(|(y, x)| Tap { number: y * width + x, phase: [rest(y), rest(x)], shift: [along(y), along(x)] })
            .collect();
        let far = |axis: usize, sign: isize| {
            taps.iter().map(|tap| (sign * tap.shift[axis]).max(0) as usize).max().unwrap_or(0)
        };
        let side = |axis: usize, side: usize| {
            let phase = side.div_ceil(s.shape.stride);
            (s.out[axis] + far(axis, 1)).max(phase + far(axis, -1))
        };
        let (rows, pitch) = (side(0, s.height), side(1, s.width));
        let margin = far(0, 1).max(far(0, -1)) * pitch + far(1, 1).max(far(1, -1));
        Self { taps, pitch, rows, margin }
    }

    /// How far from a pixel of the output the tap's pixel of the input is; and the other way round, negative.
    fn distance(&self, tap: &Tap) -> isize {
        tap.shift[0] * self.pitch as isize + tap.shift[1]
    }

    /// Offsets into a line of the first pixel that a tap reads: of the input, for outputs.
    pub(super) fn forward(&self, tap: &Tap) -> usize {
        self.margin.wrapping_add_signed(self.distance(tap))
    }

    /// The same of the outputs' gradient, for inputs.
    pub(super) fn backward(&self, tap: &Tap) -> usize {
        self.margin.wrapping_add_signed(-self.distance(tap))
    }

    /// Pixels of so many pictures, without margins.
    pub(super) fn pixels(&self, pictures: usize) -> usize {
        pictures * self.rows * self.pitch
    }

    /// Pixels of a line with its margins: outputs are computed in whole blocks.
    fn line(&self, pictures: usize) -> usize {
        2 * self.margin + self.pixels(pictures).next_multiple_of(BLOCK)
    }

    /// Calls `f` with where each row begins, in the tensor and on the line (behind its margin), in pixels, and how many pixels it has.
    #[inline(always)]
    pub(super) fn rows(&self, pictures: &Pictures, mut f: impl FnMut(usize, usize, usize)) {
        let Pictures { count, size: [height, width], stride, phase, .. } = *pictures;
        let along = |side: usize, rest: usize| side.saturating_sub(rest).div_ceil(stride);
        let columns = along(width, phase[1]);
        if columns == 0 {
            return;
        }
        for picture in 0..count {
            for y in 0..along(height, phase[0]) {
                let tensor = (picture * height + y * stride + phase[0]) * width + phase[1];
                f(tensor, (picture * self.rows + y) * self.pitch, columns);
            }
        }
    }

    /// Margin before the first pixel.
    pub(super) fn margin(&self) -> usize {
        self.margin
    }
}

/// Pictures on their way to a line: a tensor, or every so many of its pixels.
#[derive(Clone, Copy)]
pub(super) struct Pictures {
    pub(super) count: usize,
    /// Height and width.
    pub(super) size: [usize; 2],
    pub(super) channels: usize,
    /// From one pixel to the next, both ways, and the first one's place.
    pub(super) stride: usize,
    pub(super) phase: [usize; 2],
}

impl Pictures {
    /// Numbers of a pixel on a line.
    pub(super) fn wide(&self) -> usize {
        self.channels.next_multiple_of(CHANNELS)
    }

    /// Puts the pixels on a line that holds zeros; channels that there are not stay zero.
    fn lay(&self, lattice: &Lattice, from: &[bf16], line: &mut [bf16]) {
        let (channels, wide) = (self.channels, self.wide());
        lattice.rows(self, |tensor, place, columns| {
            let to = &mut line[(lattice.margin + place) * wide..][..columns * wide];
            let from = &from[tensor * channels..];
            if self.stride == 1 && wide == channels {
                to.copy_from_slice(&from[..columns * channels]);
                return;
            }
            for (to, from) in to.chunks_exact_mut(wide).zip(from.chunks(self.stride * channels)) {
                to[..channels].copy_from_slice(&from[..channels]);
            }
        });
    }
}

/// A phase's line, or several, one behind the other.
pub(super) struct Lines {
    pub(super) pictures: Vec<Pictures>,
    /// Pixels of each.
    pub(super) line: usize,
}

impl Lines {
    pub(super) fn new(lattice: &Lattice, pictures: Vec<Pictures>) -> Self {
        let line = lattice.line(pictures.first().map_or(0, |pictures| pictures.count));
        Self { pictures, line }
    }

    /// Numbers of one line.
    pub(super) fn each(&self) -> usize {
        self.line * self.pictures.first().map_or(0, Pictures::wide)
    }

    /// All of them in `buffer`.
    pub(super) fn lay<'a>(&self, lattice: &Lattice, from: &[bf16], buffer: &'a mut Aligned<bf16>) -> &'a [bf16] {
        let lines = buffer.zeros(self.each() * self.pictures.len());
        for (pictures, line) in self.pictures.iter().zip(lines.chunks_exact_mut(self.each())) {
            pictures.lay(lattice, from, line);
        }
        lines
    }
}

/// Rows of numbers, two and two, so that their numbers alternate.
#[inline(always)]
pub(super) fn paired(from: &[bf16], wide: usize, to: &mut [bf16]) {
    for (to, from) in to.chunks_exact_mut(2 * wide).zip(from.chunks_exact(2 * wide)) {
        let (first, second) = from.split_at(wide);
        for ((to, first), second) in to.as_chunks_mut::<2>().0.iter_mut().zip(first).zip(second) {
            *to = [*first, *second];
        }
    }
}

/// Lines of pixels, `wide` numbers each, to `wide` rows of a line's pixels, `row` apart.
#[inline(always)]
pub(super) fn turned(from: &[bf16], line: usize, wide: usize, row: usize, to: &mut [bf16]) {
    for (from, to) in from.chunks_exact(line * wide).zip(to.chunks_exact_mut(wide * row)) {
        for first in (0..wide).step_by(16) {
            for place in (0..line).step_by(32) {
                for c in first..first + 16 {
                    let to = &mut to[c * row + place..][..32];
                    for (at, to) in to.iter_mut().enumerate().take(line - place) {
                        *to = from[(place + at) * wide + c];
                    }
                }
            }
        }
    }
}
