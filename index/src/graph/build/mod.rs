//! Builds a graph: an upper layer, which rows are near which of its rows, an order of all rows that keeps neighbours together, the lower layer. Of the upper
//! layer only the rows are kept, as the entries: its links are for the builder, who looks for every row's place in it.
//!
//! Codes stand for the vectors meanwhile, whose integers add up to the same in any order: those of half a byte, which searches will read, where neighbours are
//! looked for in the lower layer, and those of a byte for each dimension where it is chosen among them. The result depends on the rows and the seed alone.

mod layer;
mod progress;
mod reach;

use std::collections::{HashMap, VecDeque};

use layer::{Degrees, Halves, Layer, OFFSET, links};
pub(crate) use progress::{Begun, Progress};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::beam::beam;
use super::entries::{Entries, Grouped};
use super::{Graph, HEAD_BYTES, Lists, Measured, NONE, Reach, SEEDS, Scratch, Trusted};
use crate::kernel::COLUMN;
use crate::quantiser::{Quantiser, code_bytes};
use crate::stop::{Stop, Stopped};

const LOWER: Degrees = Degrees { slots: 32, forward: 24, kept: 30 };
const UPPER: Degrees = Degrees { slots: 24, forward: 16, kept: 22 };
/// How wide neighbours are searched (the paper's efConstruction).
const EF_CONSTRUCTION: usize = 128;
/// One row in so many is in the upper layer, and an entry.
const UPPER_SHARE: usize = 48;
/// Rows of the upper layer that are all compared with a row whose place is looked for; there are at least as many.
const FIRST: usize = 256;
/// How wide the upper layer is searched for where a row belongs.
const ASSIGN_EF: usize = 16;
/// The order in which rows are inserted is drawn from it.
const SEED: u64 = 1;

/// A graph and the order of its rows.
pub(crate) struct Built {
    /// Which of the given vectors each row is.
    pub(crate) order: Vec<u32>,
    /// The given half bytes, in this order.
    pub(crate) halves: Vec<u8>,
    lists: Vec<u32>,
    entries: Grouped,
}

/// - `vectors`: of one length, at least one, fewer than 2³¹; `halves`: the code of each, as the quantiser gives them.
///
/// # Errors
/// Only where it was told to stop.
pub(crate) fn build(
    vectors: &[&[f32]],
    quantiser: Quantiser<'_>,
    halves: &[u8],
    mut progress: Progress<'_>,
    stop: &Stop,
) -> Result<Built, Stopped> {
    let scale = Scale::of(vectors);
    let width = 2 * code_bytes(vectors[0].len());
    let codes: Vec<u8> = vectors.par_iter().flat_map_iter(|vector| scale.bytes(vector)).collect();
    let code = |at: u32| &codes[at as usize * width..][..width];
    let first_of = first_copies(vectors.len(), code);

    let mut drawn: Vec<u32> = (0..vectors.len() as u32).filter(|at| first_of[*at as usize] == *at).collect();
    drawn.shuffle(&mut ChaCha8Rng::seed_from_u64(SEED));
    let (sample, rest) = drawn.split_at(drawn.len().div_ceil(UPPER_SHARE).max(FIRST).min(drawn.len()));
    let upper = upper_layer(gathered(&codes, width, sample), width, stop)?;
    let homes = homes(&upper, &codes, stop)?;

    let rank = ranks(&upper);
    let mut order: Vec<u32> = (0..vectors.len() as u32).collect();
    order.par_sort_unstable_by_key(|at| {
        let Home { seeds, score } = homes[*at as usize];
        (rank[seeds[0] as usize], std::cmp::Reverse(score), first_of[*at as usize], *at)
    });
    let mut row_of = vec![0u32; order.len()];
    order.iter().zip(0..).for_each(|(at, row)| row_of[*at as usize] = row);
    let upper_rows: Vec<u32> = sample.iter().map(|at| row_of[*at as usize]).collect();

    let halves = Halves {
        quantiser,
        vectors: order.iter().map(|at| vectors[*at as usize]).collect(),
        codes: gathered(halves, width / 2, &order),
    };
    let mut lower = Layer::new(gathered(&codes, width, &order), width, LOWER, EF_CONSTRUCTION, Some(halves));
    // First the rows of the upper layer, each beginning with its neighbours there that are already below.
    let place: HashMap<u32, u32> = upper_rows.iter().copied().zip(0..).collect();
    let in_order: Vec<u32> = sample.iter().chain(rest).map(|at| row_of[*at as usize]).collect();
    let rows_crc = lower.codes_crc();
    let mut told = 0;
    if let Some(begun) = progress.of(rows_crc, lower.count(), in_order.len(), lower.links.len()) {
        (told, lower.links) = (begun.inserted, begun.links);
    }
    let seeds = |_: &Layer<'_>, inserted: usize, row: u32, _: &mut Scratch| {
        let mut seeds = [NONE; SEEDS];
        let mut fill = |rows: &mut dyn Iterator<Item = u32>| {
            let below = rows.filter(|upper| (*upper as usize) < inserted).map(|upper| upper_rows[upper as usize]);
            seeds.iter_mut().zip(below).for_each(|(seed, row)| *seed = row);
        };
        match place.get(&row) {
            Some(upper_row) => fill(&mut links(upper.lists().of(*upper_row)).chain([0])),
            None => fill(&mut links(&homes[order[row as usize] as usize].seeds)),
        }
        seeds
    };
    lower.insert(&in_order, told, stop, seeds, |layer, inserted| {
        if progress.is_due(inserted, told, in_order.len()) {
            told = inserted;
            let begun = Begun { rows_crc, inserted, links: std::mem::take(&mut layer.links) };
            (progress.tell)(&begun);
            layer.links = begun.links;
        }
    })?;
    // Copies follow their first in the order.
    let rows: Vec<u32> = (0..order.len() as u32).collect();
    for group in rows.chunk_by(|a, b| first_of[order[*a as usize] as usize] == first_of[order[*b as usize] as usize]) {
        if let [first, copies @ ..] = group
            && !copies.is_empty()
        {
            lower.chain(*first, copies);
        }
    }
    reach::every_row(&mut lower, &upper_rows);
    let entries = grouped(&upper, &upper_rows);
    let (lists, halves) = lower.into_parts();
    Ok(Built { order, halves, lists, entries })
}

/// Some of the rows of `width` bytes.
fn gathered(rows: &[u8], width: usize, of: &[u32]) -> Vec<u8> {
    let mut gathered = vec![0; of.len() * width];
    let each = gathered.par_chunks_mut(width).zip(of);
    each.for_each(|(row, at)| row.copy_from_slice(&rows[*at as usize * width..][..width]));
    gathered
}

/// For each place the first with the same code: hundreds of copies would else be each other's only neighbours.
fn first_copies<'a>(count: usize, code: impl Fn(u32) -> &'a [u8] + Sync) -> Vec<u32> {
    let mut sorted: Vec<u32> = (0..count as u32).collect();
    sorted.par_sort_unstable_by(|a, b| code(*a).cmp(code(*b)).then(a.cmp(b)));
    let mut first_of = vec![0; count];
    for same in sorted.chunk_by(|a, b| code(*a) == code(*b)) {
        same.iter().for_each(|at| first_of[*at as usize] = same[0]);
    }
    first_of
}

/// - `codes`: no two are the same.
fn upper_layer(codes: Vec<u8>, width: usize, stop: &Stop) -> Result<Layer<'static>, Stopped> {
    let mut upper = Layer::new(codes, width, UPPER, EF_CONSTRUCTION, None);
    let all: Vec<u32> = (0..upper.count() as u32).collect();
    let seeds = |layer: &Layer<'_>, inserted: usize, row, scratch: &mut Scratch| {
        let mut query = Vec::new();
        let scorer = layer.scorer(layer.query(row, &mut query));
        scratch.best_of_first(&scorer, inserted.min(FIRST))
    };
    upper.insert(&all, 0, stop, seeds, |_, _| ())?;
    reach::every_row(&mut upper, &all[..FIRST.min(all.len())]);
    Ok(upper)
}

/// The rows of the upper layer as entries. As many pivots as make a query compare itself with about as many of them as of their entries.
fn grouped(upper: &Layer<'_>, rows: &[u32]) -> Grouped {
    let pivots = (2 * rows.len().isqrt()).clamp(1, rows.len());
    let nearest = |(scratch, query): &mut (Scratch, Vec<i8>), row: u32| {
        let scorer = upper.scorer(upper.query(row, query));
        scratch.best_of_first(&scorer, pivots)[0]
    };
    let pivot_of: Vec<u32> = (0..rows.len() as u32).into_par_iter().map_init(Default::default, nearest).collect();
    Grouped::new(rows, pivots, &pivot_of)
}

/// Where each code belongs in the upper layer.
fn homes(upper: &Layer<'_>, codes: &[u8], stop: &Stop) -> Result<Vec<Home>, Stopped> {
    let home = |(scratch, query): &mut (Scratch, Vec<i8>), code: &[u8]| {
        stop.check()?;
        query.clear();
        query.extend(code.iter().map(|byte| (byte ^ OFFSET).cast_signed()));
        let scorer = upper.scorer(query);
        let first = scratch.best_of_first(&scorer, FIRST.min(upper.count()));
        let Ok(()) = beam(upper.lists(), &scorer, &first, None, &Reach::width(ASSIGN_EF), scratch, &Trusted);
        let mut seeds = [NONE; SEEDS];
        seeds.iter_mut().zip(scratch.found()).for_each(|(seed, found)| *seed = found.row());
        Ok(Home { seeds, score: scratch.found().first().map_or(0, |found| found.score()) })
    };
    codes.par_chunks(upper.width()).map_init(Default::default, home).collect()
}

/// Where a vector belongs.
#[derive(Clone, Copy)]
struct Home {
    /// The nearest rows of the upper layer.
    seeds: [u32; SEEDS],
    /// Of the nearest.
    score: i32,
}

/// What numbers are multiplied by to be bytes: one factor for all vectors, so that products compare.
#[derive(Clone, Copy)]
struct Scale(f32);

impl Scale {
    fn of(vectors: &[&[f32]]) -> Self {
        let largest = |vector: &&[f32]| vector.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        Self(127.0 / vectors.par_iter().map(largest).reduce(|| f32::MIN_POSITIVE, f32::max))
    }

    /// Whole numbers from -127 to 127, filled up with zeros to whole blocks.
    fn numbers(self, vector: &[f32]) -> impl Iterator<Item = i8> {
        let padding = 2 * code_bytes(vector.len()) - vector.len();
        vector.iter().map(move |x| (x * self.0).round() as i8).chain(std::iter::repeat_n(0, padding))
    }

    /// The same as bytes around 128.
    fn bytes(self, vector: &[f32]) -> impl Iterator<Item = u8> {
        self.numbers(vector).map(|x| x.cast_unsigned() ^ OFFSET)
    }
}

/// The order in which a walk from row 0 meets the rows of a layer, neighbours after each other.
fn ranks(layer: &Layer<'_>) -> Vec<u32> {
    let mut ranks = vec![NONE; layer.count()];
    let mut next = 0;
    for start in 0..layer.count() as u32 {
        let mut queue = VecDeque::from([start]);
        while let Some(row) = queue.pop_front() {
            if ranks[row as usize] == NONE {
                ranks[row as usize] = next;
                next += 1;
                queue.extend(links(layer.lists().of(row)));
            }
        }
    }
    ranks
}

impl Built {
    #[cfg(test)]
    pub(super) fn lists(&self) -> &[u32] {
        &self.lists
    }

    /// The graph before it is written.
    ///
    /// - `codes`: as [`entry_codes`](Self::entry_codes) gathers them.
    pub(crate) fn graph<'a>(&'a self, [pivot_codes, codes]: &'a [Vec<u8>; 2]) -> Graph<'a> {
        let Grouped { ends, rows, .. } = &self.entries;
        Graph {
            measured: Measured::NOTHING,
            entries: Entries { pivots: ends.len(), pivot_codes, codes, ends, rows },
            lists: Lists { slots: LOWER.slots, links: &self.lists },
        }
    }

    /// Codes of the pivots and of the entries.
    ///
    /// - `codes`: of all rows, in their order, of `width` bytes each.
    pub(crate) fn entry_codes(&self, codes: &[u8], width: usize) -> [Vec<u8>; 2] {
        self.entries.codes(codes, width)
    }
}

impl Graph<'_> {
    /// The graph section, as words, filled up to where the next section may begin.
    pub(crate) fn encode(&self, measured: &Measured) -> Vec<u32> {
        let Entries { pivots, pivot_codes, codes, ends, rows } = self.entries;
        let sizes = [self.lists.slots, pivots, rows.len() / COLUMN, 0];
        let mut out: Vec<u32> = sizes.map(|size| size as u32).to_vec();
        out.extend(measured.widths.map(|width| width.unwrap_or(NONE)));
        out.extend(measured.reached.map(|width| width.map_or(NONE, |width| (100.0 * width).round() as u32)));
        out.resize(HEAD_BYTES / 4, 0);
        for codes in [pivot_codes, codes] {
            out.extend(codes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)));
        }
        for words in [self.lists.links, ends, rows] {
            out.extend_from_slice(words);
        }
        out.resize(out.len().next_multiple_of(64 / 4), 0);
        out
    }
}
