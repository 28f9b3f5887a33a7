//! Beam search: from a few rows to the nearest of all, over links.
//!
//! Malkov & Yashunin 2018 (arXiv:1603.09320), algorithm 2, on scores of codes: the greater, the nearer. What the paper keeps in two heaps is one
//! sorted list here, whose rows are marked once they were visited: it is short enough to stay in the cache, and most rows that are met are not
//! good enough for it.
//!
//! How far to go is the second question. A beam of fixed width goes as far for a query in the middle of a crowd as for one that all are far from. Here
//! rows count as long as they are not farther than the `kth` best by more than a slack, which is theirs to use: Al-Jazzazi et al. 2025
//! (arXiv:2505.15636), "Distance Adaptive Beam Search".
//!
//! Most of what a walk over many rows takes is waiting for memory. So three rows are on their way at a time: one is chosen, and its list of links asked for;
//! the list of the one that was chosen before came meanwhile, and the codes of its rows are asked for; and those that the one before led to are
//! scored. It costs few visits that would else have been spared, since nearly all of the pool is visited in the end.

use std::convert::Infallible;
use std::ops::Range;

use bytemuck::TransparentWrapper;

use super::{Lists, NONE, SEEDS};
use crate::kernel::{self, COLUMN, prefetch};
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
    /// The best so far, best first.
    pool: Vec<Entry>,
    /// Rows there are.
    rows: usize,
    /// Only what is greater goes into the pool.
    floor: Entry,
    /// No row in a place before it is left to visit.
    unvisited_from: usize,
    /// Of what was compared last.
    pub(super) scores: Vec<i32>,
    /// What of the scored rows goes into the pool.
    better: Vec<Entry>,
    /// What the last search looked for, where whoever searched left it here.
    pub(crate) query: Query,
}

/// Rows that are foreseen.
const FORESEEN: usize = 16;
/// What the pool holds at most where there is a slack, for each row that is wanted: where all rows are alike, none of them is beyond it.
pub(super) const MOST: usize = 128;
/// Standard deviations of the codes that a row may be farther by in any case: where all is near, its order by codes says little.
const ERRORS: f32 = 0.7;

/// A row of the pool: its [`rank`](kernel::rank), and in the last bit whether it was visited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, TransparentWrapper)]
#[repr(transparent)]
pub(crate) struct Entry(u64);

impl Entry {
    const VISITED: u64 = 1;

    pub(crate) fn new(score: i32, row: u32) -> Self {
        Self(kernel::rank(score, row))
    }

    pub(crate) fn row(self) -> u32 {
        !((self.0 as u32) >> 1) & (u32::MAX >> 1)
    }

    pub(crate) fn score(self) -> i32 {
        ((self.0 >> 32) as u32 ^ (1 << 31)).cast_signed()
    }
}

/// How far a search goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    /// Rows that the pool holds at most.
    most: usize,
    slack: Option<Slack>,
}

/// Rows beyond the `kth` best are let go where they are farther than that one by more than this.
#[derive(Clone, Copy, Debug)]
struct Slack {
    /// At least one.
    kth: usize,
    /// So many of the best stay in any case.
    stay: usize,
    /// Others do not, unless they are greater.
    least: Entry,
    /// The least score is `factor` times that of the `kth` best, and `shift`.
    factor: f32,
    shift: f32,
    /// And less by what codes may be wrong by.
    error: f32,
}

impl Reach {
    /// A beam of fixed width.
    pub(crate) fn width(ef: usize) -> Self {
        Self { most: ef, slack: None }
    }

    /// The `kth` best, and all that is not farther by more than a share of that distance, and by what codes are wrong by.
    ///
    /// - `beyond`: the share, of the distance and not of its square.
    pub(crate) fn slack(kth: usize, beyond: f32, query: &Query) -> Self {
        Self { most: kth.saturating_mul(MOST), slack: Some(Slack::new(kth.max(1), beyond, query)) }
    }

    /// The same, where only what is within a squared distance is of interest, and what is not only to find the way by: rows that are farther by more than the
    /// slack are let go, but for the best `stay`.
    pub(crate) fn within(self, distance: f32, stay: usize, query: &Query) -> Self {
        // Between unit vectors a product of p is a squared distance of 2 - 2 p.
        let score = |slack: &Slack| slack.least_score((1.0 - distance / 2.0 - query.origin) / query.scale);
        let within =
            |slack: Slack| Slack { stay: stay.clamp(1, slack.kth), least: Entry::new(score(&slack), NONE), ..slack };
        Self { slack: self.slack.map(within), ..self }
    }

    /// Rows that are sure to stay, if nothing better comes.
    fn stay(&self) -> usize {
        self.slack.map_or(self.most, |slack| slack.stay)
    }
}

impl Slack {
    fn new(kth: usize, beyond: f32, query: &Query) -> Self {
        let Query { scale, origin, error, .. } = query;
        // Between unit vectors a product of p is a squared distance of 2 - 2 p.
        let factor = (1.0 + beyond).powi(2);
        let (shift, error) = ((1.0 - factor) * (1.0 - origin) / scale, ERRORS * error / scale);
        Self { kth, stay: kth, least: Entry::default(), factor, shift, error }
    }

    /// The score of a row that is farther by the slack than one of this score.
    fn least_score(&self, score: f32) -> i32 {
        // As the codes have it, a row may lie beyond the query.
        ((self.factor * score + self.shift).min(score) - self.error) as i32
    }

    /// What a row must be greater than, given the best so far, of which there are no fewer than `stay`.
    fn floor(&self, pool: &[Entry]) -> Entry {
        let kth = pool.get(self.kth - 1).map(|kth| Entry::new(self.least_score(kth.score() as f32), NONE));
        self.least.max(kth.unwrap_or_default()).min(pool[self.stay - 1])
    }
}

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
        if !is_foreseen && scratch.unvisited_from >= reach.stay() {
            is_foreseen = true;
            trust.foresee(scratch.pool.iter().take(FORESEEN).map(|entry| entry.row()));
        }
        if let Some(row) = chosen.take() {
            scratch.visit(row, lists, scorer, trust)?;
        }
        // Before that, what is scored leads nearer by so much that what is known is not worth a visit.
        if scratch.pool.len() >= reach.stay() {
            chosen = scratch.choose();
            chosen.iter().for_each(|row| prefetch(lists.of(*row)));
        }
        scorer.score(&scratch.met[fresh.clone()], &mut scratch.scores);
        scratch.keep(fresh, reach);
        if scratch.met_count == scored && chosen.is_none() {
            chosen = scratch.choose();
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
        self.floor = Entry::default();
        self.unvisited_from = 0;
    }

    /// The best row that was not visited, which it is from now on.
    fn choose(&mut self) -> Option<u32> {
        let mut entries = self.pool.iter_mut().enumerate().skip(self.unvisited_from);
        let (at, entry) = entries.find(|(_, entry)| entry.0 & Entry::VISITED == 0)?;
        entry.0 |= Entry::VISITED;
        self.unvisited_from = at + 1;
        Some(entry.row())
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
        let last = if self.pool.len() < reach.most { None } else { self.pool.last() };
        let least = self.floor.max(last.copied().unwrap_or_default());
        let (rows, scores) = (&self.met[fresh.clone()], &self.scores[..fresh.len()]);
        self.better.resize(self.better.len().max(fresh.len()), Entry::default());
        let better = Entry::peel_slice_mut(&mut self.better);
        let more = (kernel::best().select)(rows, scores, least.0, better);
        let better = &mut better[..more];
        let Some(best) = better.iter().max().map(|rank| Entry(*rank)) else { return };
        let old = self.pool.len();
        self.pool.resize((old + more).min(reach.most), Entry::default());
        (kernel::best().insert)(Entry::peel_slice_mut(&mut self.pool), old, better);
        let first = self.pool.partition_point(|entry| *entry > best);
        self.unvisited_from = self.unvisited_from.min(first);
        if let Some(slack) = &reach.slack
            && first < slack.kth
            && self.pool.len() >= slack.stay
        {
            self.floor = slack.floor(&self.pool);
            let beyond = self.pool[slack.stay..].partition_point(|entry| *entry > self.floor);
            self.pool.truncate(slack.stay + beyond);
        }
    }

    /// The rows with the greatest scores among the first, best first; [`NONE`] where there are no more.
    pub(super) fn best_of_first(&mut self, scorer: &Scorer<'_>, count: usize) -> [u32; SEEDS] {
        let rows: Vec<u32> = (0..count as u32).collect();
        scorer.score(&rows, &mut self.scores);
        self.scores.resize(self.scores.len().max(count.next_multiple_of(COLUMN)), 0);
        let mut best = [Entry::default(); SEEDS];
        for (rows, scores) in rows.chunks(COLUMN).zip(self.scores.as_chunks().0) {
            offer_column(&mut best, scores, |at| rows.get(at).copied());
        }
        best.map(Entry::row)
    }

    /// What the last search found, best first.
    pub(crate) fn found(&self) -> &[Entry] {
        &self.pool
    }
}

/// Puts those rows of a column among the best so far that belong there.
///
/// - `row`: gives the row in a place of the column; `None` where there is none.
pub(super) fn offer_column(best: &mut [Entry], scores: &[i32; COLUMN], row: impl Fn(usize) -> Option<u32>) {
    let least = best.last().map_or(i32::MAX, |last| last.score());
    // Few are good enough, and which cannot be foreseen.
    let mut good = scores.iter().zip(0..).fold(0u32, |good, (score, at)| good | u32::from(*score >= least) << at);
    while good != 0 {
        let at = good.trailing_zeros() as usize;
        good &= good - 1;
        if let Some(row) = row(at) {
            offer(best, scores[at], row);
        }
    }
}

/// Puts a row among the best so far, best first, where it belongs there: without a branch, since where that is cannot be foreseen either.
fn offer(best: &mut [Entry], score: i32, row: u32) {
    best.iter_mut().fold(Entry::new(score, row), |entry, place| {
        let worse = entry.min(*place);
        *place = entry.max(*place);
        worse
    });
}
