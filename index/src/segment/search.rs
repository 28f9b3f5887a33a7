//! The nearest rows of one segment: walk the graph and compare the best again exactly, or scan, whichever reads less.
//!
//! A walk compares codes; of the rows that it finds, the first that may be returned are compared once more by their vectors. The fewer of the
//! rows may be returned, the wider the walk must be to meet enough of them. A scan of the allowed rows compares each of them once. Where a walk
//! was expected to be shorter and yet met too few, the scan answers: no filter is too narrow, or too far away, to be answered in full.

use roaring::{RoaringBitmap, RoaringTreemap};

use super::checked::{Checked, Damaged};
use super::rerank::rerank;
use super::{Ids, Segment};
use crate::graph::{Entry, Graph, Scratch, Trust, Trusted};
use crate::nearest::{Found, Nearest};
use crate::{Effort, Result, Search, scan};

/// Vectors that a scan compares in the time that a walk takes for one row of its width: measured on 100,000 face-like vectors, where a walk takes
/// .6 microseconds for that and a scan .06 for a vector that is allowed, or .1 where these don't fit in the cache.
const VECTORS_PER_WIDTH: u64 = 8;

/// Bytes that a walk of the lower layer reads, each compared with its block's checksum before.
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

/// Which rows count.
struct Eligible<'a> {
    deleted: &'a RoaringBitmap,
    /// Only these ids, and the ids there are.
    allowed: Option<(&'a RoaringTreemap, Ids<'a>)>,
    /// How many, or more where some of the allowed ids are not in the segment.
    count: u64,
}

impl Eligible<'_> {
    fn contains(&self, row: u32) -> bool {
        !self.deleted.contains(row) && self.allowed.is_none_or(|(allowed, ids)| allowed.contains(ids.ids[row as usize]))
    }
}

impl Segment {
    /// Offers the rows that are allowed and not deleted, under their ids: all of them where the search is exact, the nearest
    /// otherwise.
    ///
    /// # Errors
    /// `Corrupt` where the ids or vectors that it needs are; codes and links are only ways to find these, and a scan replaces them.
    pub(crate) fn search(
        &self,
        query: &[f32],
        search: &Search<'_>,
        deleted: &RoaringBitmap,
        scratch: &mut Scratch,
        nearest: &mut Nearest,
    ) -> Result<()> {
        let Some(eligible) = self.eligible(search.allowed, deleted)? else { return Ok(()) };
        // A graph that cannot be read is no answer, and no reason not to give one: what is damaged is known by now.
        let graph = self.has_graph().then(|| self.graph().ok()).flatten();
        if let Some(graph) = graph
            && let Some(mut width) = width_of(&graph, search)
        {
            while let Some(ef) = walk_ef(width as u64, eligible.count, self.count() as u64) {
                let Ok((rows, scale)) = self.walk(&graph, query, ef, &eligible, scratch) else { break };
                // A distance limits how many are wanted, but not by how many.
                let k = if search.within.is_some() { usize::MAX } else { search.k };
                let found = rerank(k, rows, scale, |rows| self.compare(query, rows))?;
                let is_enough = match search.within {
                    // Most of what a wide enough walk meets is too far away.
                    Some(within) => {
                        let near = found.iter().filter(|found| found.distance <= within).count();
                        near >= search.k || near * 4 <= found.len() * 3
                    }
                    // Else the rows that count are not where the walk led.
                    None => found.len() as u64 >= eligible.count.min(search.k as u64),
                };
                if is_enough {
                    found.into_iter().for_each(|found| {
                        nearest.offer(found);
                    });
                    return Ok(());
                }
                if search.within.is_none() {
                    break;
                }
                width = width.saturating_mul(2);
            }
        }
        match eligible.allowed {
            Some((allowed, ids)) if eligible.count < self.count() as u64 / 2 => {
                let rows: Vec<u32> = ids.rows_of(allowed).filter(|row| !deleted.contains(*row)).collect();
                self.compare(query, &rows)?.into_iter().for_each(|found| {
                    nearest.offer(found);
                });
            }
            _ => {
                let ids = self.ids()?.ids;
                let key = |row: usize| eligible.contains(row as u32).then(|| ids[row]);
                scan::every_row(query, self.vectors()?, nearest, key);
            }
        }
        Ok(())
    }

    /// A number that is alike for queries whose walks begin at the same place.
    pub(crate) fn place_of(&self, query: &[f32]) -> u32 {
        // A segment that is scanned, or damaged, has one place.
        let (true, Ok(quantiser), Ok(graph)) = (self.has_graph(), self.quantiser(), self.graph()) else { return 0 };
        graph.place_of(&quantiser.query(query).0)
    }

    /// `None` where no row counts.
    fn eligible<'a>(
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

    /// The rows that a walk finds and that count, the most promising first, and the scale of their scores.
    fn walk<'s>(
        &self,
        graph: &Graph<'_>,
        query: &[f32],
        ef: usize,
        eligible: &'s Eligible<'_>,
        scratch: &'s mut Scratch,
    ) -> Result<(impl Iterator<Item = Entry> + use<'s>, f32)> {
        let (query, scale) = self.quantiser()?.query(query);
        let codes = self.bytes.unchecked(self.sections.codes.clone());
        let found = if self.bytes.is_all_sound() {
            let Ok(found) = graph.search(&query, codes, None, ef, scratch, &Trusted);
            found
        } else {
            let lists = graph.lower_bytes();
            let unseen = Unseen {
                bytes: &self.bytes,
                codes: (self.sections.codes.start, codes.len() / self.count()),
                lists: (self.sections.graph.start + lists.start, lists.len() / self.count()),
            };
            graph.search(&query, codes, None, ef, scratch, &unseen).map_err(|damaged| self.corrupt(damaged))?
        };
        let counts_all = eligible.allowed.is_none() && eligible.deleted.is_empty();
        let rows = found.iter().copied().filter(move |entry| counts_all || eligible.contains(entry.row()));
        Ok((rows, scale))
    }

    /// Rows and their exact distances, under their ids.
    fn compare(&self, query: &[f32], rows: &[u32]) -> Result<Vec<Found>> {
        let mut ids = Vec::with_capacity(rows.len());
        for row in rows {
            self.vector(*row)?;
            ids.push(self.id(*row)?);
        }
        let vectors = bytemuck::cast_slice(self.bytes.unchecked(self.sections.vectors.clone()));
        Ok(scan::picked_rows(query, vectors, rows, &ids))
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
