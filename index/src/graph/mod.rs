//! A neighbour graph of two layers in one flat run of bytes: the graph section of a segment.
//!
//! | bytes                      | field       | meaning                                                                     |
//! |----------------------------|-------------|-----------------------------------------------------------------------------|
//! | 4                          | links       | slots in a list (the paper's M_max0)                                        |
//! | 4                          | pivots      | at least one                                                                |
//! | 4                          | columns     | of sixteen entries, not all of which need be there                          |
//! | 4                          | reserved    | zero                                                                        |
//! | 32                         | widths      | how wide a search reaches each of `RECALLS`: measured when the graph was built, for ten neighbours; 2³² - 1 where none did |
//! | 100                        | reached     | how wide a search of each of `SLACKS` was in the mean, in hundredths: measured as well, and 2³² - 1 where it was not |
//! | 44                         | reserved    | zero                                                                        |
//! | code bytes × pivots        | pivot_codes | in columns of sixteen, the last one filled up with zeros                    |
//! | code bytes × 16 × columns  | entry_codes | in columns                                                                  |
//! | 4 × links × count          | lists       | one for each row                                                            |
//! | 4 × pivots                 | ends        | up to which column each pivot's entries go                                  |
//! | 4 × 16 × columns           | entries     | which rows they are; 2³² - 1 for none                                       |
//!
//! Zeros fill the last 64 bytes up. Numbers are little-endian `u32`; `count` is the segment's. A list is the rows linked to, and then `u32::MAX`. In a column stand the first four
//! bytes of the code of each of sixteen rows, then the next four of each. The version is the segment header's.
//!
//! Follows Malkov & Yashunin 2018 (arXiv:1603.09320) with one layer: what the upper ones are for, to begin near the query, a look at some hundreds of
//! rows does that are read one after the other (`entries.rs`). Knows rows and codes only: ids, deletions and filters are the caller's business.

mod beam;
mod build;
mod entries;
mod pool;
#[cfg(test)]
mod tests;

pub(crate) use beam::{Scratch, Trust, Trusted};
pub(crate) use build::{Begun, Progress, build};
pub(crate) use pool::{Entry, Reach};

use std::ops::Range;

use entries::Entries;

use crate::kernel::{COLUMN, columns_bytes};
use crate::quantiser::{Query, Scorer, code_bytes};

/// Fills a list that has fewer links than slots.
const NONE: u32 = u32::MAX;
const HEAD_BYTES: usize = 192;
/// Rows that a search begins with.
const SEEDS: usize = 4;

/// One list of links for each row, all of the same slots.
#[derive(Clone, Copy)]
struct Lists<'a> {
    slots: usize,
    links: &'a [u32],
}

impl<'a> Lists<'a> {
    fn of(&self, row: u32) -> &'a [u32] {
        &self.links[row as usize * self.slots..][..self.slots]
    }

    fn count(&self) -> usize {
        self.links.len() / self.slots
    }
}

/// A graph, as it lies in the mapped file.
#[derive(Clone, Copy)]
pub(crate) struct Graph<'a> {
    measured: Measured,
    entries: Entries<'a>,
    lists: Lists<'a>,
}

/// What searches of a graph were seen to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// The least width that reaches each of [`Graph::RECALLS`].
    pub(crate) widths: [Option<u32>; Graph::RECALLS.len()],
    /// How wide a search of each of [`Graph::SLACKS`] is: rows in the pool at its end, in the mean.
    pub(crate) reached: [Option<f32>; Graph::SLACKS.len()],
}

impl Measured {
    pub(crate) const NOTHING: Self =
        Self { widths: [None; Graph::RECALLS.len()], reached: [None; Graph::SLACKS.len()] };
}

impl<'a> Graph<'a> {
    /// Of the header.
    pub(crate) const HEAD_BYTES: usize = HEAD_BYTES;
    /// Recalls that a search may ask for.
    pub(crate) const RECALLS: [f32; 8] = [0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999];
    /// Shares of a distance that rows may be farther by: none, and each about a fifth more than the one before.
    pub(crate) const SLACKS: [f32; 25] = [
        0.0, 0.01, 0.012, 0.0145, 0.0175, 0.021, 0.025, 0.03, 0.036, 0.043, 0.052, 0.062, 0.074, 0.089, 0.107, 0.128,
        0.154, 0.185, 0.222, 0.266, 0.32, 0.383, 0.46, 0.55, 0.66,
    ];
    /// Neighbours that these are measured with.
    pub(crate) const MEASURED_K: usize = 10;

    /// The graph in these bytes, of a segment of `count` rows, if they are as many as their header says.
    ///
    /// Only the header is read. Links are not checked: one that leads nowhere is not followed.
    pub(crate) fn view(bytes: &'a [u8], count: usize, dimensions: usize) -> Result<Self, &'static str> {
        let (head, rest) = bytes.split_at_checked(HEAD_BYTES).ok_or("the graph is shorter than its header")?;
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let [slots, pivots, columns] = [0, 4, 8].map(|at| word(at) as usize);
        let code_bytes = code_bytes(dimensions);
        let column_bytes = columns_bytes(COLUMN, code_bytes);
        let sizes = [
            (pivots.div_ceil(COLUMN), column_bytes),
            (columns, column_bytes),
            (count, slots.saturating_mul(4)),
            (pivots, 4),
            (columns, 4 * COLUMN),
        ];
        let sum = sizes.iter().try_fold(0usize, |sum, (rows, each)| sum.checked_add(rows.checked_mul(*each)?));
        // Up to where the next section may begin there are zeros.
        let is_whole = |sum: &usize| sum.checked_next_multiple_of(64) == Some(rest.len());
        let Some(rest) = sum.filter(is_whole).map(|sum| &rest[..sum]) else {
            return Err("the graph is not as long as its header says");
        };
        if slots == 0 {
            return Err("the graph has no room for links");
        }
        if pivots == 0 || columns == 0 {
            return Err("the graph has nowhere to begin");
        }
        let [pivot_codes, entry_codes, lists, ends, _] = sizes.map(|(rows, each)| rows * each);
        let (pivot_codes, rest) = rest.split_at(pivot_codes);
        let (entry_codes, rest) = rest.split_at(entry_codes);
        // Codes are whole lines of 64 bytes, and so is the header.
        let words: &[u32] = bytemuck::try_cast_slice(rest).map_err(|_| "the graph does not begin at a word")?;
        let (links, words) = words.split_at(lists / 4);
        let (ends, rows) = words.split_at(ends / 4);
        let known = |at: usize| Some(word(at)).filter(|word| *word != NONE);
        let measured = Measured {
            widths: std::array::from_fn(|at| known(16 + 4 * at)),
            reached: std::array::from_fn(|at| known(48 + 4 * at).map(|hundredths| hundredths as f32 / 100.0)),
        };
        let entries = Entries { pivots, pivot_codes, codes: entry_codes, ends, rows };
        Ok(Self { measured, entries, lists: Lists { slots, links } })
    }

    /// Where the lists are.
    pub(crate) fn lists_bytes(&self) -> Range<usize> {
        let start = HEAD_BYTES + self.entries.pivot_codes.len() + self.entries.codes.len();
        start..start + size_of_val(self.lists.links)
    }

    /// Where what is about entries is: before the lists, and behind them.
    pub(crate) fn entries_bytes(&self) -> [Range<usize>; 2] {
        let Range { start, end } = self.lists_bytes();
        [HEAD_BYTES..start, end..end + size_of_val(self.entries.ends) + size_of_val(self.entries.rows)]
    }

    /// How wide a search must be to reach a recall, in the mean over many queries; `None` where no width was seen to.
    pub(crate) fn width_for(&self, recall: f32, k: usize) -> Option<usize> {
        let (_, width) = Self::RECALLS.iter().zip(self.measured.widths).find(|(reached, _)| **reached >= recall)?;
        // More neighbours need a walk as much wider.
        width.map(|width| (width as usize).saturating_mul(k.div_ceil(Self::MEASURED_K).max(1)))
    }

    /// What takes a search about as far as a beam of `width` in the mean over many queries: less far where all is near, and farther in a crowd.
    ///
    /// - `k`: of interest, at most `width`; `met`: how many rows are to be met for each of the `width`, since not all of them count.
    pub(crate) fn reach(&self, width: usize, k: usize, met: f64, query: &Query) -> Reach {
        let kth = k.max(Self::MEASURED_K).min(width).max(1);
        let times = |count: usize| (count as f64 * met).ceil() as usize;
        match self.slack_of(width as f32 * Self::MEASURED_K as f32 / kth as f32) {
            Some(slack) => Reach::slack(times(kth), slack, query),
            None => Reach::width(times(width)),
        }
    }

    /// The slack of searches that are so wide in the mean, where one was measured.
    fn slack_of(&self, width: f32) -> Option<f32> {
        let mut before = (0.0, 0.0);
        for (reached, slack) in self.measured.reached.into_iter().map_while(|reached| reached).zip(Self::SLACKS) {
            if width <= reached {
                let share = ((width - before.0) / (reached - before.0).max(f32::MIN_POSITIVE)).clamp(0.0, 1.0);
                return Some(before.1 + share * (slack - before.1));
            }
            before = (reached, slack);
        }
        None
    }

    /// The rows that are most like the query, as far as links lead to them, best first.
    ///
    /// - `codes`: of every row; `avoided`: a row that is neither found nor walked through; `trust`: is asked for every row.
    pub(crate) fn search<'s, T: Trust>(
        &self,
        query: &Query,
        codes: &[u8],
        avoided: Option<u32>,
        reach: &Reach,
        scratch: &'s mut Scratch,
        trust: &T,
    ) -> Result<&'s [Entry], T::Broken> {
        let seeds = self.entries.seeds(&query.numbers, scratch);
        beam::beam(self.lists, &Scorer::nibbles(&query.numbers, codes), &seeds, avoided, reach, scratch, trust)?;
        Ok(scratch.found())
    }
}
