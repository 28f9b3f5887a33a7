//! The nearest rows of one segment: walk the graph and compare the best again exactly, or scan, whichever reads less.
//!
//! A walk compares codes; of the rows that it finds, the first that may be returned are compared once more by their vectors. The fewer of the
//! rows may be returned, the wider the walk must be to meet enough of them. A scan of the allowed rows compares each of them once. Where a walk
//! was expected to be shorter and yet met too few, the scan answers: no filter is too narrow, or too far away, to be answered in full.

use roaring::{RoaringBitmap, RoaringTreemap};

use super::Segment;
use crate::Search;
use crate::graph::{Graph, Scratch};
use crate::nearest::Nearest;
use crate::scan;

/// Codes that a walk compares for each row of its width, and how many of these comparisons take as long as one of vectors. Of a prototype, on
/// 200,000 face-like vectors with 32 links each: 1,770 at a width of 64. A code is one line of the cache, a vector eight.
const WALK_PER_EF: u64 = 28;
const CODES_PER_VECTOR: u64 = 4;

/// Rows whose vectors are compared, for `k` that are wanted: codes of half a byte put the nearest ten among their own first 48 as often as not to
/// matter (in a prototype, recall was .002 lower than with all of them, at a width of 128).
fn compared_again(k: usize) -> usize {
    k.saturating_mul(2).saturating_add(28)
}

impl Segment {
    /// Offers the rows that are allowed and not deleted, under their ids: all of them where the search is exact, the nearest
    /// otherwise.
    pub(crate) fn search(
        &self,
        query: &[f32],
        search: &Search<'_>,
        deleted: &RoaringBitmap,
        scratch: &mut Scratch,
        nearest: &mut Nearest,
    ) {
        let (Some((first, _)), Some(last)) = (self.ids_from(0).next(), self.last_id()) else { return };
        let alive = self.count() as u64 - deleted.len();
        // An upper bound: an id between the first and the last need not be in this segment.
        let eligible = search.allowed.map_or(alive, |allowed| allowed.range_cardinality(first..=last).min(alive));
        if eligible == 0 {
            return;
        }

        let counts = |row: usize| {
            let id = self.ids()[row];
            let counts = !deleted.contains(row as u32) && search.allowed.is_none_or(|allowed| allowed.contains(id));
            counts.then_some(id)
        };
        if let Some(graph) = self.graph()
            && !search.exact
            && let Some(ef) = walk_ef(search.ef.max(search.k) as u64, eligible, self.count() as u64)
        {
            let counts_all = search.allowed.is_none() && deleted.is_empty();
            let counts = |row: u32| counts_all || counts(row as usize).is_some();
            let rows = self.walk(&graph, query, ef, search.k, counts, scratch);
            // Too few: the rows that count are not where the walk led.
            if rows.len() as u64 >= eligible.min(search.k as u64) {
                scan::picked_rows(query, self.vectors(), nearest, rows.into_iter(), |row| self.ids()[row as usize]);
                return;
            }
        }
        match search.allowed {
            Some(allowed) if eligible < self.count() as u64 / 2 => {
                let rows = self.rows_of(allowed).filter(|row| !deleted.contains(*row));
                scan::picked_rows(query, self.vectors(), nearest, rows, |row| self.ids()[row as usize]);
            }
            _ => scan::every_row(query, self.vectors(), nearest, counts),
        }
    }

    /// The first rows of a walk that count, as many as are compared again.
    fn walk(
        &self,
        graph: &Graph<'_>,
        query: &[f32],
        ef: usize,
        k: usize,
        counts: impl Fn(u32) -> bool,
        scratch: &mut Scratch,
    ) -> Vec<u32> {
        let query = self.quantiser().query(query);
        let found = graph.search(&query, self.codes(), ef, scratch).iter().map(|entry| entry.row());
        found.filter(|row| counts(*row)).take(compared_again(k)).collect()
    }

    fn last_id(&self) -> Option<u64> {
        self.by_id().last().map(|row| self.ids()[*row as usize])
    }

    /// The rows whose ids are in the set, by ascending id.
    fn rows_of(&self, allowed: &RoaringTreemap) -> impl Iterator<Item = u32> {
        let (ids, by_id) = (self.ids(), self.by_id());
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

/// How wide a walk must be to meet as many rows that count as a walk of `ef` meets of all; `None` where a scan of those that count is expected to
/// take less.
fn walk_ef(ef: u64, eligible: u64, count: u64) -> Option<usize> {
    // In 128 bits, since `ef` is the caller's.
    let ef = (u128::from(ef) * u128::from(count)).div_ceil(u128::from(eligible));
    let is_shorter = u128::from(WALK_PER_EF) * ef < u128::from(CODES_PER_VECTOR) * u128::from(eligible);
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
