//! A neighbour graph of two layers in one flat run of bytes: the graph section of a segment.
//!
//! | bytes                 | field       | meaning                                                                          |
//! |-----------------------|-------------|----------------------------------------------------------------------------------|
//! | 4                     | links       | slots in a list of the lower layer (the paper's M_max0)                          |
//! | 4                     | upper_links | slots in a list of the upper layer (the paper's M_max)                           |
//! | 4                     | upper       | rows in the upper layer, at least one                                            |
//! | 4                     | pivots      | the first rows of the upper layer, which are all compared: where a search begins |
//! | 32                    | widths      | how wide the lower layer is searched to reach each of `RECALLS`: measured when the graph was built, for ten neighbours; 2³² - 1 where no width did |
//! | 16                    | reserved    | zero                                                                             |
//! | code bytes × upper    | upper_codes | codes of the upper layer's rows, once more: they are read together               |
//! | 4 × links × count     | lower       | one list for each row                                                            |
//! | 4 × upper_links × upper | upper_lists | one list for each row of the upper layer, in that layer's numbers               |
//! | 4 × upper             | upper_rows  | which rows these are                                                             |
//!
//! Zeros fill the last 64 bytes up. Numbers are little-endian `u32`; `count` is the segment's. A list is the rows linked to, and then `u32::MAX`. The version is the segment
//! header's.
//!
//! Follows Malkov & Yashunin 2018 (arXiv:1603.09320) with two layers of fixed shares instead of a random number of them: what the upper ones are
//! for, to begin near the query, one layer of every 48th row does, once a few hundred of it were compared. Knows rows and codes only: ids,
//! deletions and filters are the caller's business.

mod beam;
mod build;
#[cfg(test)]
mod tests;

pub(crate) use beam::{Entry, Scratch, Trust, Trusted};
pub(crate) use build::build;

use std::ops::Range;

use crate::quantiser::{Scorer, code_bytes};

/// Fills a list that has fewer links than slots.
const NONE: u32 = u32::MAX;
const HEAD_BYTES: usize = 64;
/// How wide the upper layer is searched: just wide enough for a few good rows to begin with below.
const UPPER_EF: usize = 6;
/// Rows that a search of the lower layer begins with.
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
    pivots: usize,
    widths: [u32; Graph::RECALLS.len()],
    upper_codes: &'a [u8],
    lower: Lists<'a>,
    upper: Lists<'a>,
    upper_rows: &'a [u32],
}

impl<'a> Graph<'a> {
    /// Of the header.
    pub(crate) const HEAD_BYTES: usize = HEAD_BYTES;
    /// Recalls that a search may ask for.
    pub(crate) const RECALLS: [f32; 8] = [0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999];
    /// Neighbours that the widths for these are measured with.
    pub(crate) const MEASURED_K: usize = 10;

    /// The graph in these bytes, of a segment of `count` rows, if they are as many as their header says.
    ///
    /// Only the header is read. Links are not checked: one that leads nowhere is not followed.
    pub(crate) fn view(bytes: &'a [u8], count: usize, dimensions: usize) -> Result<Self, &'static str> {
        let (head, rest) = bytes.split_at_checked(HEAD_BYTES).ok_or("the graph is shorter than its header")?;
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let [links, upper_links, upper, pivots] = [0, 4, 8, 12].map(|at| word(at) as usize);
        let sizes = [
            (upper, code_bytes(dimensions)),
            (count, links.saturating_mul(4)),
            (upper, upper_links.saturating_mul(4)),
            (upper, 4),
        ];
        let sum = sizes.iter().try_fold(0usize, |sum, (rows, each)| sum.checked_add(rows.checked_mul(*each)?));
        // Up to where the next section may begin there are zeros.
        let is_whole = |sum: &usize| sum.checked_next_multiple_of(HEAD_BYTES) == Some(rest.len());
        let Some(rest) = sum.filter(is_whole).map(|sum| &rest[..sum]) else {
            return Err("the graph is not as long as its header says");
        };
        if links == 0 || upper_links == 0 {
            return Err("the graph has no room for links");
        }
        if pivots == 0 || pivots > upper {
            return Err("the graph begins outside of its upper layer");
        }
        let (upper_codes, rest) = rest.split_at(sizes[0].0 * sizes[0].1);
        // Codes are whole lines of 64 bytes, and so is the header.
        let words: &[u32] = bytemuck::try_cast_slice(rest).map_err(|_| "the graph does not begin at a word")?;
        let (lower, words) = words.split_at(links * count);
        let (upper_lists, upper_rows) = words.split_at(upper_links * upper);
        Ok(Self {
            pivots,
            widths: std::array::from_fn(|at| word(16 + 4 * at)),
            upper_codes,
            lower: Lists { slots: links, links: lower },
            upper: Lists { slots: upper_links, links: upper_lists },
            upper_rows,
        })
    }

    /// Where the lists of the lower layer are.
    pub(crate) fn lower_bytes(&self) -> Range<usize> {
        let start = HEAD_BYTES + self.upper_codes.len();
        start..start + size_of_val(self.lower.links)
    }

    /// Where the upper layer is: before the lower one, and behind it.
    pub(crate) fn upper_bytes(&self) -> [Range<usize>; 2] {
        let Range { start, end } = self.lower_bytes();
        [HEAD_BYTES..start, end..end + size_of_val(self.upper.links) + size_of_val(self.upper_rows)]
    }

    /// How wide a search must be to reach a recall, in the mean over many queries; `None` where no width was seen to.
    pub(crate) fn width_for(&self, recall: f32, k: usize) -> Option<usize> {
        let (_, width) = Self::RECALLS.iter().zip(self.widths).find(|(reached, _)| **reached >= recall)?;
        // More neighbours need a walk as much wider.
        (width != NONE).then(|| (width as usize).saturating_mul(k.div_ceil(Self::MEASURED_K).max(1)))
    }

    /// The rows that are most like the query, as far as links lead to them: at most `ef`, best first.
    ///
    /// - `query`: as the quantiser of `codes` makes it; `codes`: of every row.
    /// - `avoided`: a row that is neither found nor walked through; `trust`: is asked for every row of the lower layer.
    pub(crate) fn search<'s, T: Trust>(
        &self,
        query: &[i8],
        codes: &[u8],
        avoided: Option<u32>,
        ef: usize,
        scratch: &'s mut Scratch,
        trust: &T,
    ) -> Result<&'s [Entry], T::Broken> {
        let upper = Scorer::nibbles(query, self.upper_codes);
        let mut seeds = scratch.best_of_first(&upper, self.pivots);
        // In a small graph all of the upper layer was compared by now.
        if self.pivots < self.upper_rows.len() {
            let Ok(()) = beam::beam(self.upper, &upper, &seeds, None, UPPER_EF, scratch, &Trusted);
            seeds.iter_mut().zip(scratch.found()).for_each(|(seed, found)| *seed = found.row());
        }
        let seeds = seeds.map(|seed| self.upper_rows.get(seed as usize).copied().unwrap_or(NONE));
        beam::beam(self.lower, &Scorer::nibbles(query, codes), &seeds, avoided, ef, scratch, trust)?;
        Ok(scratch.found())
    }
}
