//! The best rows that a walk has met, and which of them it goes to next.
//!
//! What Malkov & Yashunin (`beam.rs`) keep in two heaps is one sorted list here, whose rows are marked once they were visited: it is short enough to stay in
//! the cache, and most rows that are met are not good enough for it.
//!
//! How far to go is the second question. A beam of fixed width goes as far for a query in the middle of a crowd as for one that all are far from. Here
//! rows count as long as they are not farther than the `kth` best by more than a slack, which is theirs to use: Al-Jazzazi et al. 2025
//! (arXiv:2505.15636), "Distance Adaptive Beam Search".

use bytemuck::TransparentWrapper;

use super::NONE;
use crate::kernel::{self, RANKS};
use crate::quantiser::Query;

/// What the pool holds at most where there is a slack, for each row that is wanted: where all rows are alike, none of them is beyond it.
pub(super) const MOST: usize = 128;
/// Standard deviations of the codes that a row may be farther by in any case: where all is near, its order by codes says little.
const ERRORS: f32 = 0.7;

/// Rows that [`Few`] looks through at once: fewer as long as all are better than what there is.
const AT_ONCE: usize = 64;
const AT_FIRST: usize = 16;

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
    pub(super) fn stay(&self) -> usize {
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

/// The best so far, best first.
#[derive(Default)]
pub(super) struct Pool {
    /// Behind them nothing, up to whole registers: what is written at once can be read at once.
    entries: Vec<Entry>,
    count: usize,
    /// Only what is greater comes in.
    floor: Entry,
    /// No row in a place before it is left to visit.
    unvisited_from: usize,
    /// What comes in.
    better: Vec<Entry>,
}

impl Pool {
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        (self.count, self.floor, self.unvisited_from) = (0, Entry::default(), 0);
    }

    /// Best first.
    pub(super) fn rows(&self) -> &[Entry] {
        &self.entries[..self.count]
    }

    /// How many of the best were visited without a gap.
    pub(super) fn visited(&self) -> usize {
        self.unvisited_from
    }

    /// The best row that was not visited, which it is from now on.
    pub(super) fn choose(&mut self) -> Option<u32> {
        let mut entries = self.entries[..self.count].iter_mut().enumerate().skip(self.unvisited_from);
        let (at, entry) = entries.find(|(_, entry)| entry.0 & Entry::VISITED == 0)?;
        entry.0 |= Entry::VISITED;
        self.unvisited_from = at + 1;
        Some(entry.row())
    }

    /// Takes those of the rows that are good enough; none of them is there.
    pub(super) fn keep(&mut self, rows: &[u32], scores: &[i32], reach: &Reach) {
        let last = if self.count < reach.most { None } else { self.rows().last() };
        let least = self.floor.max(last.copied().unwrap_or_default());
        let (select, insert) = (kernel::best().select, kernel::best().insert);
        self.better.resize(self.better.len().max(rows.len() + RANKS), Entry::default());
        let better = Entry::peel_slice_mut(&mut self.better);
        let more = select(rows, scores, least.0, better);
        if more == 0 {
            return;
        }
        let count = (self.count + more).min(reach.most);
        self.entries.resize(count.next_multiple_of(RANKS), Entry::default());
        let first = insert(Entry::peel_slice_mut(&mut self.entries), &mut better[..more]);
        self.unvisited_from = self.unvisited_from.min(first);
        let mut end = count;
        if let Some(slack) = &reach.slack
            && first < slack.kth
            && count >= slack.stay
        {
            self.floor = slack.floor(&self.entries[..count]);
            end = slack.stay + self.entries[slack.stay..count].partition_point(|entry| *entry > self.floor);
        }
        self.count = end;
        self.entries[end..].fill(Entry::default());
    }
}

/// The best few of many rows that are all compared.
#[derive(Default)]
pub(super) struct Few {
    /// Ranks, and zeros behind them.
    best: [u64; RANKS],
    /// What is better than the least of the best that are wanted.
    better: Vec<u64>,
    /// As many rows as were ever asked for, the first of all.
    first_rows: Vec<u32>,
}

impl Few {
    /// The first `count` rows.
    pub(super) fn first_rows(&mut self, count: usize) -> &[u32] {
        self.first_rows.extend(self.first_rows.len() as u32..count as u32);
        &self.first_rows[..count]
    }

    /// The best of the first rows, best first, given the scores of these.
    pub(super) fn best_of_first<const WANTED: usize>(&mut self, scores: &[i32]) -> [Entry; WANTED] {
        self.first_rows(scores.len());
        let rows = std::mem::take(&mut self.first_rows);
        let best = self.best_of([(&rows[..scores.len()], scores)].into_iter());
        self.first_rows = rows;
        best
    }

    /// The best of some rows, best first, given rows and their scores; [`NONE`] is none. Where there are fewer, rows that don't exist.
    pub(super) fn best_of<'a, const WANTED: usize>(
        &mut self,
        all: impl Iterator<Item = (&'a [u32], &'a [i32])>,
    ) -> [Entry; WANTED] {
        self.best = [0; RANKS];
        let (select, insert) = (kernel::best().select, kernel::best().insert);
        self.better.resize(AT_ONCE + RANKS, 0);
        for (rows, scores) in all {
            let mut at = 0;
            while at < rows.len() {
                let least = self.best[WANTED - 1];
                let end = rows.len().min(at + if least == 0 { AT_FIRST } else { AT_ONCE });
                let more = select(&rows[at..end], &scores[at..end], least, &mut self.better);
                if more > 0 {
                    insert(&mut self.best, &mut self.better[..more]);
                }
                at = end;
            }
        }
        std::array::from_fn(|place| Entry::wrap(self.best[place]))
    }
}
