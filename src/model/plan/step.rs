//! One step of a plan: a layer, or the rounding of a value.

use std::ops::Range;

use rayon::prelude::*;

use super::buffers::{Order, Value};
use super::{Threads, pool};
use crate::model::graph::pooled;
use crate::model::kernel::{ByteConvolution, Convolution, Level, Map, Outputs, Part, Residual, nearest_byte};

#[derive(Debug)]
pub(super) struct Step {
    pub(super) input: usize,
    pub(super) residual: Option<usize>,
    pub(super) work: Work,
}

#[derive(Debug)]
pub(super) enum Work {
    Conv(Convolution),
    /// Gives bytes, or floats where nothing follows that wants bytes.
    Bytes(ByteConvolution, Kind),
    /// Computes with floats, and gives the nearest bytes of their multiples by the factor: what a network in bytes begins with.
    Stem(Convolution, f32),
    MaxPool {
        window: usize,
        stride: usize,
    },
    Flatten,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Floats,
    Bytes,
}

impl Kind {
    /// Bytes of one number.
    pub(super) fn size(self) -> usize {
        if self == Self::Bytes { 1 } else { 4 }
    }
}

/// What a step can see: the values before its own, the layout of all, and where pictures are.
pub(super) struct Surroundings<'a> {
    pub(super) before: &'a [Value],
    pub(super) maps: &'a [Map],
    pub(super) order: &'a Order,
}

impl Work {
    /// Height, width and channels of the output for those of the input, if it fits.
    pub(super) fn output(&self, [height, width, channels]: [usize; 3]) -> Option<[usize; 3]> {
        match self {
            Self::Conv(conv) | Self::Stem(conv, _) => conv.shape.output_of([height, width, channels]),
            Self::Bytes(conv, _) => conv.shape.output_of([height, width, channels]),
            Self::MaxPool { window, stride } => pooled([height, width, channels], *window, *stride),
            Self::Flatten => Some([1, 1, height * width * channels]),
        }
    }

    /// Of the values that it reads.
    pub(super) fn reads(&self) -> Kind {
        if matches!(self, Self::Bytes(..)) { Kind::Bytes } else { Kind::Floats }
    }

    pub(super) fn weight_bytes(&self) -> usize {
        match self {
            Self::Conv(conv) | Self::Stem(conv, _) => conv.weight_bytes(),
            Self::Bytes(conv, _) => conv.weight_bytes(),
            Self::MaxPool { .. } | Self::Flatten => 0,
        }
    }

    /// Of the value that it gives.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Bytes(_, kind) => *kind,
            Self::Stem(..) => Kind::Bytes,
            Self::Conv(_) | Self::MaxPool { .. } | Self::Flatten => Kind::Floats,
        }
    }
}

impl Step {
    /// Computes `pictures` of the value behind those of `around`, whose buffer is `to`.
    pub(super) fn run(
        &self,
        level: Level,
        around: Surroundings<'_>,
        to: &mut Value,
        pictures: &Range<usize>,
        threads: Threads,
    ) {
        let Surroundings { before, maps, order } = around;
        let number = before.len();
        let (from, map) = (&maps[self.input], &maps[number]);
        let at = |value: usize| order.place(value, pictures.start) * maps[value].len();
        let (count, x_at, own) = (pictures.len(), at(self.input), at(number)..at(number) + pictures.len() * map.len());
        let residual = self.residual.map(|r| (&before[r], at(r), &maps[r]));
        match (&self.work, &before[self.input], to) {
            (Work::Conv(conv), Value::Floats(x), Value::Floats(y)) => {
                let residual = residual.and_then(|(value, at, map)| match value {
                    Value::Floats(values) => Some((&values[at..], map)),
                    Value::Bytes(_) => None,
                });
                in_bands(&mut y[own], map, count, threads, |part, y| {
                    conv.write(&x[x_at..], from, part, y, map, residual)
                });
            }
            (Work::Bytes(conv, _), Value::Bytes(x), to) => {
                let residual = residual.map(|(value, at, map)| match value {
                    Value::Floats(values) => (Residual::Floats(&values[at..]), map),
                    Value::Bytes(values) => (Residual::Bytes(&values[at..]), map),
                });
                match to {
                    Value::Floats(y) => in_bands(&mut y[own], map, count, threads, |part, y| {
                        conv.write(&x[x_at..], from, part, Outputs::Floats(y), map, residual);
                    }),
                    Value::Bytes(y) => in_bands(&mut y[own], map, count, threads, |part, y| {
                        conv.write(&x[x_at..], from, part, Outputs::Bytes(y), map, residual);
                    }),
                }
            }
            (Work::Stem(conv, factor), Value::Floats(x), Value::Bytes(y)) => {
                in_bands(&mut y[own], map, count, threads, |part, y| {
                    rounded(level, conv, *factor, &x[x_at..], from, part, y, map);
                });
            }
            (Work::MaxPool { window, stride }, Value::Floats(x), Value::Floats(y)) => {
                each(&x[x_at..], from, &mut y[own], map, |x, y| pool::max_pool(x, from, y, map, *window, *stride));
            }
            (Work::Flatten, Value::Floats(x), Value::Floats(y)) => {
                each(&x[x_at..], from, &mut y[own], map, |x, y| from.gather(x, y));
            }
            _ => unreachable!("`compile` gives every step the kind of values that it works on"),
        }
    }
}

/// Picture by picture.
fn each<T>(x: &[f32], from: &Map, y: &mut [T], to: &Map, f: impl Fn(&[f32], &mut [T])) {
    x.chunks_exact(from.len()).zip(y.chunks_exact_mut(to.len())).for_each(|(x, y)| f(x, y));
}

/// Lets `write` compute all of `y`, or threads a band of rows each.
fn in_bands<T: Send>(y: &mut [T], map: &Map, count: usize, threads: Threads, write: impl Fn(&Part, &mut [T]) + Sync) {
    if threads == Threads::One || map.height < 2 {
        return write(&Part::whole(0..count, map), y);
    }
    // Two bands a thread: the last one to finish is not far behind. An even number of rows, as some convolutions take two by two.
    let rows = map.height.div_ceil(2 * rayon::current_num_threads()).next_multiple_of(2);
    for (picture, y) in y.chunks_exact_mut(map.len()).enumerate() {
        let first = map.border * map.row();
        let bands = y[first..first + map.height * map.row()].par_chunks_mut(rows * map.row()).enumerate();
        bands.for_each(|(band, y)| {
            let top = band * rows;
            let rows = top..(top + rows).min(map.height);
            write(&Part { pictures: picture..picture + 1, rows, base: first + top * map.row() }, y);
        });
    }
}

/// Rows of floats that are rounded while they are in the cache. Even, as some convolutions take rows two by two.
const ROUNDED: usize = 4;

/// Writes the nearest bytes of multiples of a part of the outputs.
#[expect(clippy::too_many_arguments, reason = "what `Convolution::write` takes")]
fn rounded(level: Level, conv: &Convolution, factor: f32, x: &[f32], from: &Map, part: &Part, y: &mut [u8], to: &Map) {
    let some = Map { height: ROUNDED, border: 0, ..*to };
    let mut floats = vec![0.0; some.len()];
    for (place, picture) in part.pictures.clone().enumerate() {
        for first in part.rows.clone().step_by(ROUNDED) {
            let rows = first..(first + ROUNDED).min(part.rows.end);
            let these = Part { pictures: picture..picture + 1, rows: rows.clone(), base: some.at(first, 0) };
            conv.write(x, from, &these, &mut floats, &some, None);
            for (row, floats) in rows.zip(floats.chunks_exact(some.row())) {
                let y = &mut y[place * to.len() + to.at(row, 0) - part.base..][..some.row()];
                level.run(
                    #[inline(always)]
                    || {
                        for (y, x) in y.iter_mut().zip(floats) {
                            *y = nearest_byte(x * factor);
                        }
                    },
                );
            }
        }
    }
}
