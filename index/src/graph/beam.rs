//! Beam search: from a few rows to the nearest of all, over links.
//!
//! Malkov & Yashunin 2018 (arXiv:1603.09320), algorithm 2, on scores of codes: the greater, the nearer.
//!
//! Most of what a walk over many rows takes is waiting for memory. So three rows are on their way at a time: one is chosen, and its list of links asked for;
//! the list of the one that was chosen before came meanwhile, and the codes of its rows are asked for; and those that the one before led to are
//! scored. It costs few visits that would else have been spared, since nearly all of the pool is visited in the end.

use std::convert::Infallible;
use std::ops::Range;

use super::pool::{Entry, Few, Pool, Reach};
use super::{Lists, NONE, SEEDS};
use crate::kernel::prefetch;
use crate::quantiser::{Query, Scorer};

/// Is asked before the bytes of rows are read whether these may be relied on: they may, unless it says otherwise.
pub(crate) trait Trust {
    /// Says which may not.
    type Broken;

    fn list(&self, _row: u32) -> Result<(), Self::Broken> {
        Ok(())
    }

    fn codes(&self, _rows: &[u32]) -> Result<(), Self::Broken> {
        Ok(())
    }

    /// Is told near the end which rows are likely to be found, so that what else is read of them may be asked for.
    fn foresee(&self, _rows: impl Iterator<Item = u32>) {}
}

/// What is in memory, or was compared with its checksums.
pub(crate) struct Trusted;

impl Trust for Trusted {
    type Broken = Infallible;
}

/// What a search needs to remember, kept from one to the next so that a search allocates next to nothing.
#[derive(Default)]
pub(crate) struct Scratch {
    /// A bit for each row that was met.
    met_bits: Vec<u64>,
    /// The first of them are the rows whose bits are set, in the order in which they were met.
    met: Vec<u32>,
    met_count: usize,
    /// Rows there are.
    rows: usize,
    /// Of what was compared last.
    pub(super) scores: Vec<i32>,
    /// The best so far.
    pool: Pool,
    /// Where the walk begins.
    pub(super) few: Few,
    /// What the last search looked for, where whoever searched left it here.
    pub(crate) query: Query,
}

/// Rows that are foreseen.
const FORESEEN: usize = 16;
/// Fills the scratch's pool with the rows of the greatest scores that links lead to, as far as they are to go, best first.
///
/// - `seeds`: rows to begin with; those that do not exist are left out, as are links to such; `avoided`: a row that is neither found nor
///   walked through.
pub(crate) fn beam<T: Trust>(
    lists: Lists<'_>,
    scorer: &Scorer<'_>,
    seeds: &[u32],
    avoided: Option<u32>,
    reach: &Reach,
    scratch: &mut Scratch,
    trust: &T,
) -> Result<(), T::Broken> {
    scratch.begin(lists.count());
    scratch.meet(avoided.as_slice());
    let mut scored = scratch.met_count;
    let met = scratch.meet(seeds);
    trust.codes(met)?;
    scorer.prefetch(met);
    met.iter().for_each(|row| prefetch(lists.of(*row)));
    let (mut is_foreseen, mut chosen) = (false, None);
    loop {
        let fresh = scored..scratch.met_count;
        scored = fresh.end;
        let visited = chosen.take();
        chosen = scratch.pool.choose();
        chosen.iter().for_each(|row| prefetch(lists.of(*row)));
        // After that, since the codes that are asked for now would keep the list waiting.
        if let Some(row) = visited {
            scratch.visit(row, lists, scorer, trust)?;
        }
        if !is_foreseen && scratch.pool.visited() >= reach.stay() {
            is_foreseen = true;
            trust.foresee(scratch.pool.rows().iter().take(FORESEEN).map(|entry| entry.row()));
        }
        scorer.score(&scratch.met[fresh.clone()], &mut scratch.scores);
        scratch.keep(fresh, reach);
        if scratch.met_count == scored && chosen.is_none() {
            chosen = scratch.pool.choose();
            if chosen.is_none() {
                return Ok(());
            }
        }
    }
}

impl Scratch {
    fn begin(&mut self, rows: usize) {
        for row in &self.met[..self.met_count] {
            self.met_bits[*row as usize / 64] = 0;
        }
        self.met_count = 0;
        // One more, for all that is no row: it was met.
        self.met_bits.resize(self.met_bits.len().max(rows / 64 + 1), 0);
        self.rows = rows;
        self.meet(&[NONE]);
        self.pool.clear();
    }

    /// Meets the links of a row.
    fn visit<T: Trust>(&mut self, row: u32, lists: Lists<'_>, scorer: &Scorer<'_>, trust: &T) -> Result<(), T::Broken> {
        trust.list(row)?;
        let met = self.meet(lists.of(row));
        trust.codes(met)?;
        scorer.prefetch(met);
        Ok(())
    }

    /// Those of the rows that are met for the first time.
    fn meet(&mut self, rows: &[u32]) -> &[u32] {
        let from = self.met_count;
        if self.met.len() < from + rows.len() {
            self.met.resize(2 * (from + rows.len()), 0);
        }
        let (met, met_bits) = (&mut self.met[from..][..rows.len()], &mut self.met_bits[..]);
        let none = self.rows as u32;
        let mut count = 0;
        // Without a branch for each: no CPU foresees which were met.
        for row in rows {
            let row = (*row).min(none);
            let (word, bit) = (&mut met_bits[row as usize / 64], 1 << (row % 64));
            met[count] = row;
            count += usize::from(*word & bit == 0);
            *word |= bit;
        }
        self.met_count += count;
        &met[..count]
    }

    /// Puts what was scored of what was met where it belongs in the pool.
    fn keep(&mut self, fresh: Range<usize>, reach: &Reach) {
        let scores = &self.scores[..fresh.len()];
        self.pool.keep(&self.met[fresh], scores, reach);
    }

    /// The rows with the greatest scores among the first, best first; rows that don't exist where there are no more.
    pub(super) fn best_of_first(&mut self, scorer: &Scorer<'_>, count: usize) -> [u32; SEEDS] {
        let Self { few, scores, .. } = self;
        let rows = few.first_rows(count);
        scorer.score(rows, scores);
        few.best_of_first(&scores[..count]).map(Entry::row)
    }

    /// What the last search found, best first.
    pub(crate) fn found(&self) -> &[Entry] {
        self.pool.rows()
    }
}
