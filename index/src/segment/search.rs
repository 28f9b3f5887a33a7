//! The nearest rows of one segment: walk the graph and compare the best again exactly, or scan, whichever reads less.
//!
//! A walk compares codes; of the rows that it finds, the first that may be returned are compared once more by their vectors. The fewer of the
//! rows may be returned, the wider the walk must be to meet enough of them. A scan of the allowed rows compares each of them once. Where a walk
//! was expected to be shorter and yet met too few, the scan answers: no filter is too narrow, or too far away, to be answered in full.
//!
//! Once larger segments gave as many answers as are wanted, only what is nearer than these is looked for in the others: most have little of that, and their
//! walks end soon.

use std::convert::Infallible;

use roaring::{RoaringBitmap, RoaringTreemap};

use super::checked::{Checked, Damaged};
use super::kept::Vectors;
use super::rerank::rerank;
use super::{Ids, Segment};
use crate::graph::{Entry, Graph, Reach, Scratch, Trust};
use crate::kernel::prefetch;
use crate::nearest::{Found, Nearest};
use crate::quantiser;
use crate::sieve::Query;
use crate::{Effort, Result, Search};

/// Vectors that a scan compares in the time that a walk takes for one row of its width: between 6, where these don't fit in the cache, and 10, as
/// `vultus bench ann --generate faces --allow .5,.2,.1,.05` measures it.
const VECTORS_PER_WIDTH: u64 = 8;

/// Rows that are compared at once.
const COMPARED: usize = 64;

/// No walk is narrower because little that it meets is near enough: it would get lost.
const WIDTH_MIN: usize = 8;

/// Bytes that a walk reads, each compared with its block's checksum before.
struct Unseen<'a> {
    bytes: &'a Checked,
    /// Where the codes and the lists are, and how many bytes one of them has.
    codes: (usize, usize),
    lists: (usize, usize),
}

impl Unseen<'_> {
    fn check(&self, (start, each): (usize, usize), row: u32) -> Result<(), Damaged> {
        let at = start + each * row as usize;
        self.bytes.check(at..at + each)
    }
}

impl Trust for Unseen<'_> {
    type Broken = Damaged;

    fn list(&self, row: u32) -> Result<(), Damaged> {
        self.check(self.lists, row)
    }

    fn codes(&self, rows: &[u32]) -> Result<(), Damaged> {
        rows.iter().try_for_each(|row| self.check(self.codes, *row))
    }
}

/// What was compared with its checksums, and the vectors that rows are compared by in the end.
struct Sound<'a> {
    vectors: Vectors<'a>,
    dimensions: usize,
}

impl Trust for Sound<'_> {
    type Broken = Infallible;

    fn foresee(&self, rows: impl Iterator<Item = u32>) {
        rows.for_each(|row| self.vectors.prefetch(row, self.dimensions));
    }
}

/// Which rows count.
pub(super) struct Eligible<'a> {
    deleted: &'a RoaringBitmap,
    /// Only these ids, and the ids there are.
    allowed: Option<(&'a RoaringTreemap, Ids<'a>)>,
    /// How many, or more where some of the allowed ids are not in the segment.
    count: u64,
}

impl Eligible<'_> {
    pub(super) fn contains(&self, row: u32) -> bool {
        !self.deleted.contains(row) && self.allowed.is_none_or(|(allowed, ids)| allowed.contains(ids.ids[row as usize]))
    }
}

impl Segment {
    /// Offers the rows that are allowed and not deleted, under their ids: all of them where the search is exact, the nearest
    /// otherwise.
    ///
    /// - `nearest`: holds what larger segments had to offer.
    ///
    /// Returns whether the scratch knows where a walk ended.
    ///
    /// # Errors
    /// `Corrupt` where the ids or vectors that it needs are; codes and links are only ways to find these, and a scan replaces them.
    pub(crate) fn search(
        &self,
        query: &Query<'_>,
        search: &Search<'_>,
        deleted: &RoaringBitmap,
        scratch: &mut Scratch,
        nearest: &mut Nearest,
    ) -> Result<bool> {
        let Some(eligible) = self.eligible(search.allowed, deleted)? else { return Ok(false) };
        // A graph that cannot be read is no answer, and no reason not to give one: what is damaged is known by now.
        let graph = self.is_walked().then(|| self.graph().ok()).flatten();
        if let Some(graph) = graph
            && let Some(width) = width_of(&graph, search)
        {
            let walk = Walk { segment: self, graph, query: query.vector, width, eligible: &eligible };
            let is_answered = match search.within {
                None => walk.nearest(nearest, scratch)?,
                Some(within) => walk.within(within, nearest, scratch)?,
            };
            if is_answered {
                return Ok(true);
            }
        }
        match eligible.allowed {
            Some((allowed, ids)) if eligible.count < self.count() as u64 / 2 => {
                let rows: Vec<u32> = ids.rows_of(allowed).filter(|row| !deleted.contains(*row)).collect();
                self.compare(query.vector, &rows, |found| {
                    nearest.offer(found);
                })?;
            }
            _ => {
                let ids = self.ids()?.ids;
                let key = |row: usize| eligible.contains(row as u32).then(|| ids[row]);
                match self.sieve()? {
                    Some(sieve) => sieve.search(query, &self.vectors()?, nearest, key),
                    None => self.kept()?.scan(query.vector, self.count(), nearest, key),
                }
            }
        }
        Ok(false)
    }

    /// `None` where no row counts.
    pub(super) fn eligible<'a>(
        &'a self,
        allowed: Option<&'a RoaringTreemap>,
        deleted: &'a RoaringBitmap,
    ) -> Result<Option<Eligible<'a>>> {
        let alive = self.count() as u64 - deleted.len();
        let (allowed, count) = match allowed {
            None => (None, alive),
            Some(allowed) => {
                let ids = self.ids()?;
                let [Some(first), Some(last)] = [ids.by_id.first(), ids.by_id.last()] else { return Ok(None) };
                let [first, last] = [first, last].map(|row| ids.ids[*row as usize]);
                // An upper bound: an id between the first and the last need not be in this segment.
                (Some((allowed, ids)), allowed.range_cardinality(first..=last).min(alive))
            }
        };
        Ok((count > 0).then_some(Eligible { deleted, allowed, count }))
    }

    /// Gives `each` the distances of what is kept of some rows, under their ids, in the order of the rows.
    pub(super) fn compare(&self, query: &[f32], rows: &[u32], mut each: impl FnMut(Found)) -> Result<()> {
        let ids = self.bytes.unchecked(self.sections.ids.clone()).as_chunks::<8>().0;
        let kept = self.unchecked_kept()?;
        let mut distances = [0.0; COMPARED];
        for rows in rows.chunks(COMPARED) {
            for row in rows {
                self.check_row(*row)?;
                // Asked for, and read at the end.
                prefetch(&ids[*row as usize..][..1]);
            }
            let distances = &mut distances[..rows.len()];
            kept.distances(query, rows, distances);
            for (row, distance) in rows.iter().zip(distances) {
                each(Found { distance: *distance, key: self.id(*row)? });
            }
        }
        Ok(())
    }
}

/// A way to the nearest rows that count.
#[derive(Clone, Copy)]
struct Walk<'a> {
    segment: &'a Segment,
    graph: Graph<'a>,
    query: &'a [f32],
    /// How wide it would be if all rows counted.
    width: usize,
    eligible: &'a Eligible<'a>,
}

impl Walk<'_> {
    /// Offers what is nearer than what there is; whether it did. Where it did not, a scan is to answer, because it takes less, or because the walk met
    /// too few or damage.
    fn nearest(&self, nearest: &mut Nearest, scratch: &mut Scratch) -> Result<bool> {
        let (k, within) = (nearest.limit(), nearest.bound());
        let Some(ef) = self.ef(self.width) else { return Ok(false) };
        let met = ef as f64 / self.width as f64;
        let reach = |query: &_| {
            let reach = self.graph.reach(self.width, k, met, query);
            let stay = (WIDTH_MIN as f64 * met).ceil() as usize;
            if within.is_finite() { reach.within(within, stay, query) } else { reach }
        };
        let Ok((pool, scale)) = self.pool(reach, scratch) else { return Ok(false) };
        let Eligible { deleted, allowed, count } = self.eligible;
        let counts_all = allowed.is_none() && deleted.is_empty();
        let rows = || pool.iter().copied().filter(|entry| counts_all || self.eligible.contains(entry.row()));
        // Fewer than there are: the rows that count are not where the walk led.
        let wanted = (*count).min(k as u64) as usize;
        if within.is_infinite() && rows().take(wanted).count() < wanted {
            return Ok(false);
        }
        rerank(nearest, rows(), scale, |rows, each| self.segment.compare(self.query, rows, each))?;
        Ok(true)
    }

    /// Offers those within a distance; whether it did, as [`nearest`](Self::nearest).
    fn within(&self, within: f32, nearest: &mut Nearest, scratch: &mut Scratch) -> Result<bool> {
        let k = nearest.limit();
        let mut width = self.width;
        while let Some(ef) = self.ef(width) {
            let Ok((pool, _)) = self.pool(|_| Reach::width(ef), scratch) else { return Ok(false) };
            let rows: Vec<u32> = pool.iter().map(|entry| entry.row()).collect();
            let mut found = Vec::with_capacity(rows.len());
            self.segment.compare(self.query, &rows, |row| found.push(row))?;
            let near = found.iter().filter(|found| found.distance <= within).count();
            let counting = rows.iter().zip(&found).filter(|(row, _)| self.eligible.contains(**row));
            let counting: Vec<Found> =
                counting.map(|(_, found)| *found).filter(|found| found.distance <= within).collect();
            // Most of what a wide enough walk meets is too far away, whether it counts or not.
            if counting.len() >= k || near * 4 <= found.len() * 3 {
                counting.into_iter().for_each(|found| {
                    nearest.offer(found);
                });
                return Ok(true);
            }
            width = width.saturating_mul(2);
        }
        Ok(false)
    }

    /// How wide to walk so that as many rows that count are met as a walk of `width` meets of all; `None` where a scan takes less.
    fn ef(&self, width: usize) -> Option<usize> {
        walk_ef(width as u64, self.eligible.count, self.segment.count() as u64)
    }

    /// What a walk finds, the most promising first, and the scale of the scores.
    fn pool<'s>(
        &self,
        reach: impl FnOnce(&quantiser::Query) -> Reach,
        scratch: &'s mut Scratch,
    ) -> Result<(&'s [Entry], f32)> {
        let segment = self.segment;
        let query = segment.quantiser()?.query(self.query, std::mem::take(&mut scratch.query));
        let reach = reach(&query);
        let codes = segment.bytes.unchecked(segment.sections.codes.clone());
        if segment.bytes.is_all_sound() {
            let sound = Sound { vectors: segment.unchecked_kept()?, dimensions: self.query.len() };
            let Ok(_) = self.graph.search(&query, codes, None, &reach, scratch, &sound);
        } else {
            let lists = self.graph.lists_bytes();
            let unseen = Unseen {
                bytes: &segment.bytes,
                codes: (segment.sections.codes.start, codes.len() / segment.count()),
                lists: (segment.sections.graph.start + lists.start, lists.len() / segment.count()),
            };
            let found = self.graph.search(&query, codes, None, &reach, scratch, &unseen);
            found.map_err(|damaged| segment.corrupt(damaged))?;
        }
        scratch.query = query;
        Ok((scratch.found(), scratch.query.scale))
    }
}

impl Ids<'_> {
    /// The rows whose ids are in the set, by ascending id.
    fn rows_of(&self, allowed: &RoaringTreemap) -> impl Iterator<Item = u32> {
        let Self { ids, by_id } = *self;
        let id_at = |at: usize| by_id.get(at).map(|row| ids[*row as usize]);
        let mut wanted = allowed.iter();
        if let Some(first) = id_at(0) {
            wanted.advance_to(first);
        }
        let mut at = 0;
        std::iter::from_fn(move || {
            loop {
                let id = wanted.next()?;
                at += gallop(by_id.len() - at, |step| id_at(at + step).is_some_and(|found| found < id));
                match id_at(at) {
                    None => return None,
                    Some(found) if found == id => return Some(by_id[at]),
                    Some(_) => {}
                }
            }
        })
    }
}

/// How wide a walk of all rows is; `None` where everything is to be compared.
fn width_of(graph: &Graph<'_>, search: &Search<'_>) -> Option<usize> {
    let width = match search.effort {
        Effort::Width(ef) => ef,
        Effort::Recall(recall) => graph.width_for(recall, search.k)?,
        Effort::Exact => return None,
    };
    // Where a distance limits the answer, `k` may be as large as there is room for.
    let k = if search.within.is_some() { search.k.min(width) } else { search.k };
    Some(width.max(k).max(1))
}

/// How wide a walk must be to meet as many rows that count as a walk of `ef` meets of all; `None` where a scan of those that count is expected to
/// take less.
fn walk_ef(ef: u64, eligible: u64, count: u64) -> Option<usize> {
    // In 128 bits, since `ef` is the caller's.
    let ef = (u128::from(ef) * u128::from(count)).div_ceil(u128::from(eligible));
    let is_shorter = u128::from(VECTORS_PER_WIDTH) * ef < u128::from(eligible);
    is_shorter.then_some(ef as usize)
}

/// How many leading places of `count` are below: steps that double, then a binary search in the last one.
fn gallop(count: usize, is_below: impl Fn(usize) -> bool) -> usize {
    let mut step = 1;
    while step < count && is_below(step) {
        step *= 2;
    }
    let (mut low, mut high) = (step / 2, count.min(step + 1));
    while low < high {
        let middle = low.midpoint(high);
        if is_below(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn galloping_finds_what_a_search_from_the_start_finds(
            ids in prop::collection::btree_set(0u64..300, 0..80),
            id in 0u64..310,
        ) {
            let ids: Vec<u64> = ids.into_iter().collect();
            prop_assert_eq!(gallop(ids.len(), |at| ids[at] < id), ids.partition_point(|found| *found < id));
        }
    }

    #[test]
    fn a_narrow_filter_is_scanned_and_a_wide_one_walked() {
        assert_eq!(walk_ef(128, 1_000_000, 1_000_000), Some(128));
        assert_eq!(walk_ef(128, 100_000, 1_000_000), Some(1280));
        assert_eq!(walk_ef(128, 10_000, 1_000_000), None);
        assert_eq!(walk_ef(u64::MAX, 1_000_000, 1_000_000), None);
    }
}
