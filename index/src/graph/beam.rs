//! Beam search: from a few rows to the nearest of all, over links.
//!
//! Malkov & Yashunin 2018 (arXiv:1603.09320), algorithm 2, on scores of codes: the greater, the nearer. What the paper keeps in two heaps is one
//! sorted list here, whose rows are marked once they were visited: it is short enough to stay in the cache, and most rows that are met are not
//! good enough for it.

use std::convert::Infallible;

use super::Lists;
use crate::kernel::prefetch;
use crate::quantiser::Scorer;

/// Is asked before the bytes of rows are read whether these may be relied on.
pub(crate) trait Trust {
    /// Says which may not.
    type Broken;

    fn list(&self, row: u32) -> Result<(), Self::Broken>;

    fn codes(&self, rows: &[u32]) -> Result<(), Self::Broken>;
}

/// What is in memory, or was compared with its checksums.
pub(crate) struct Trusted;

impl Trust for Trusted {
    type Broken = Infallible;

    fn list(&self, _row: u32) -> Result<(), Infallible> {
        Ok(())
    }

    fn codes(&self, _rows: &[u32]) -> Result<(), Infallible> {
        Ok(())
    }
}

/// What a search needs to remember, kept from one to the next so that a search allocates next to nothing.
#[derive(Default)]
pub(crate) struct Scratch {
    /// A bit for each row that was met.
    met_bits: Vec<u64>,
    /// The rows whose bits are set.
    met: Vec<u32>,
    /// The best so far, best first.
    pool: Vec<Entry>,
    /// Rows there are.
    rows: usize,
    /// What is scored next, and the scores.
    fresh: Vec<u32>,
    scores: Vec<i32>,
}

/// A row of the pool in 64 bits that sort by score, then by row: the score, moved to be no less than zero; the row, turned so that lower ones
/// are greater; and whether it was visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry(u64);

impl Entry {
    const VISITED: u64 = 1;

    pub(crate) fn new(score: i32, row: u32) -> Self {
        let (score, row) = (score.cast_unsigned() ^ (1 << 31), !row & (u32::MAX >> 1));
        Self(u64::from(score) << 32 | u64::from(row) << 1)
    }

    pub(crate) fn row(self) -> u32 {
        !((self.0 as u32) >> 1) & (u32::MAX >> 1)
    }

    pub(crate) fn score(self) -> i32 {
        ((self.0 >> 32) as u32 ^ (1 << 31)).cast_signed()
    }
}

/// Fills the scratch's pool with the rows of the greatest scores that links lead to, at most `ef` of them, best first.
///
/// - `seeds`: rows to begin with; those that do not exist are left out, as are links to such; `avoided`: a row that is neither found nor
///   walked through.
pub(crate) fn beam<T: Trust>(
    lists: Lists<'_>,
    scorer: &Scorer<'_>,
    seeds: &[u32],
    avoided: Option<u32>,
    ef: usize,
    scratch: &mut Scratch,
    trust: &T,
) -> Result<(), T::Broken> {
    scratch.begin(lists.count());
    scratch.meet(avoided.as_slice());
    scratch.meet(seeds);
    // Everything before it was visited.
    let mut next = 0;
    loop {
        trust.codes(&scratch.fresh)?;
        scorer.score(&scratch.fresh, &mut scratch.scores);
        next = next.min(scratch.keep(ef));
        let entries = scratch.pool.iter_mut();
        let Some((at, entry)) = entries.enumerate().skip(next).find(|(_, entry)| entry.0 & Entry::VISITED == 0) else {
            return Ok(());
        };
        let row = entry.row();
        entry.0 |= Entry::VISITED;
        next = at + 1;
        trust.list(row)?;
        scratch.meet(lists.of(row));
        // What is most likely the next to be visited.
        if let Some(entry) = scratch.pool[next..].iter().find(|entry| entry.0 & Entry::VISITED == 0) {
            prefetch(lists.of(entry.row()));
        }
    }
}

impl Scratch {
    fn begin(&mut self, rows: usize) {
        for row in self.met.drain(..) {
            self.met_bits[row as usize / 64] = 0;
        }
        self.met_bits.resize(self.met_bits.len().max(rows.div_ceil(64)), 0);
        self.rows = rows;
        self.pool.clear();
    }

    /// Those of the rows that are met for the first time are what is scored next.
    fn meet(&mut self, rows: &[u32]) {
        self.fresh.clear();
        for &row in rows {
            // Not a row: the end of a list.
            if row as usize >= self.rows {
                continue;
            }
            let word = &mut self.met_bits[row as usize / 64];
            let bit = 1 << (row % 64);
            if *word & bit == 0 {
                *word |= bit;
                self.fresh.push(row);
            }
        }
        self.met.extend_from_slice(&self.fresh);
    }

    /// Puts what was scored where it belongs in the pool; returns the first place that changed.
    fn keep(&mut self, ef: usize) -> usize {
        let mut first = self.pool.len();
        for (&row, &score) in self.fresh.iter().zip(&self.scores) {
            let entry = Entry::new(score, row);
            if self.pool.len() >= ef {
                if self.pool.last().is_none_or(|last| entry <= *last) {
                    continue;
                }
                self.pool.pop();
            }
            // Greater first. A visited mark is below what tells two rows apart.
            let at = self.pool.partition_point(|other| *other > entry);
            self.pool.insert(at, entry);
            first = first.min(at);
        }
        first
    }

    /// The row with the greatest score among the first.
    pub(super) fn best_of_first(&mut self, scorer: &Scorer<'_>, count: usize) -> u32 {
        self.fresh.clear();
        self.fresh.extend(0..count as u32);
        scorer.score(&self.fresh, &mut self.scores);
        let entries = self.fresh.iter().zip(&self.scores).map(|(row, score)| Entry::new(*score, *row));
        entries.max().map_or(0, Entry::row)
    }

    /// What the last search found, best first.
    pub(crate) fn found(&self) -> &[Entry] {
        &self.pool
    }
}
