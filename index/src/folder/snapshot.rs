//! What an index held at one moment, and how readers get the latest.
//!
//! A snapshot shares everything with the index and with other snapshots, and nothing in it changes: a search holds no lock, sees either all of
//! what was published together or nothing of it, and keeps the files that it reads from alive, also after a merge replaced them.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rayon::prelude::*;

use super::live::Live;
use super::pending::Pending;
use crate::graph::Scratch;
use crate::kernel::dot;
use crate::nearest::Nearest;
use crate::segment::Ends;
use crate::sieve::Query;
use crate::{Error, Neighbor, Result, Search};

/// A vector is of unit length when its squared length is this close to 1: what rounding in `f32` leaves, and some.
const UNIT_TOLERANCE: f32 = 1e-3;

thread_local! {
    /// Of the searches of this thread, one after the other.
    static SCRATCH: RefCell<(Scratch, Ends)> = RefCell::default();
}

/// Vectors and ids as they were at one moment.
#[derive(Clone)]
pub struct Snapshot {
    pub(super) dimensions: usize,
    pub(super) generation: u64,
    pub(super) sequence: u64,
    /// Largest first: where most of the neighbours are is known before the others are asked.
    pub(super) segments: Vec<Live>,
    pub(super) pending: Pending,
}

impl Snapshot {
    pub(super) fn empty(dimensions: usize) -> Self {
        Self { dimensions, generation: 0, sequence: 0, segments: Vec::new(), pending: Pending::default() }
    }

    /// Counts the states that were published since the index was opened: of two snapshots the one with the greater number is the later one,
    /// and those with the same are the same.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The caller's sequence number at the last seal; 0 in a new index.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Vectors that are only in memory.
    pub fn pending(&self) -> usize {
        self.pending.count()
    }

    /// Vectors that answers can contain.
    pub fn count(&self) -> usize {
        self.pending.count() + self.segments.iter().map(Live::alive).sum::<usize>()
    }

    /// The nearest vectors, nearest first, ties by id.
    ///
    /// # Errors
    /// `Dimensions`, `NotUnit`; `Corrupt` where vectors or ids that are needed are not what was written.
    pub fn search(&self, query: &[f32], search: &Search<'_>) -> Result<Vec<Neighbor>> {
        self.check(query)?;
        let mut nearest = Nearest::new(search.k, search.within.unwrap_or(f32::INFINITY));
        if search.k == 0 {
            return Ok(Vec::new());
        }
        let query = Query::new(query);
        SCRATCH.with_borrow_mut(|scratch| self.search_segments(&query, search, scratch, &mut nearest))?;
        let is_allowed = |id| search.allowed.is_none_or(|allowed| allowed.contains(id));
        self.pending.search(&query, is_allowed, &mut nearest);
        let sorted = nearest.into_sorted().into_iter();
        Ok(sorted.map(|found| Neighbor { id: found.key, distance: found.distance }).collect())
    }

    fn search_segments(
        &self,
        query: &Query<'_>,
        search: &Search<'_>,
        (scratch, ends): &mut (Scratch, Ends),
        nearest: &mut Nearest,
    ) -> Result<()> {
        let Some((largest, others)) = self.segments.split_first() else { return Ok(()) };
        let is_walked = largest.segment.search(query, search, &largest.deleted, scratch, nearest)?;
        if others.is_empty() {
            return Ok(());
        }
        // Bridges lead to the nearest of a segment, and not to all of what is wanted where there is too little of it.
        let are_crossed = is_walked && search.within.is_none() && nearest.is_full() && ends.set(scratch);
        let from = are_crossed.then_some(largest.number);
        others.iter().filter_map(|live| live.bridge(from)).for_each(|bridge| bridge.prefetch(ends));
        others.iter().try_for_each(|live| match live.bridge(from) {
            Some(bridge) => bridge.search(&live.segment, query, search.allowed, &live.deleted, ends, nearest),
            None => live.segment.search(query, search, &live.deleted, scratch, nearest).map(drop),
        })
    }

    /// The answers to many queries, in their order, by all threads.
    ///
    /// # Errors
    /// Those of [`search`](Self::search), of the first query that has any.
    pub fn search_batch(&self, queries: &[&[f32]], search: &Search<'_>) -> Result<Vec<Vec<Neighbor>>> {
        queries.iter().try_for_each(|query| self.check(query))?;
        queries.par_iter().map(|query| self.search(query, search)).collect()
    }

    /// The k-nearest-neighbour graph: for every id its neighbours without itself, in no particular order of ids.
    ///
    /// - `search`: of each; what it allows are the neighbours, not the ids that are asked for.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn neighbors_of_all(&self, search: &Search<'_>) -> Result<Vec<(u64, Vec<Neighbor>)>> {
        let mut rows = Vec::with_capacity(self.count());
        // Rows of a segment stand so that neighbours are near each other.
        for live in &self.segments {
            for row in (0..live.segment.count() as u32).filter(|row| !live.deleted.contains(*row)) {
                rows.push((live.segment.id(row)?, live.segment.vector(row)?));
            }
        }
        rows.extend(self.pending.rows().map(|row| (row.id, Cow::Borrowed(row.vector))));
        let search = Search { k: search.k.saturating_add(1), ..*search };
        let neighbors = |(id, vector): &(u64, Cow<'_, [f32]>)| {
            let mut found = self.search(vector, &search)?;
            found.retain(|found| found.id != *id);
            found.truncate(search.k - 1);
            Ok((*id, found))
        };
        rows.par_iter().with_min_len(64).map(neighbors).collect()
    }

    /// Stored ids in ascending order, at most `limit`, from the first at or above `from`.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn scroll(&self, from: u64, limit: usize) -> Result<Vec<u64>> {
        let mut ids: Vec<u64> = self.pending.rows().map(|row| row.id).filter(|id| *id >= from).collect();
        for live in &self.segments {
            live.append_ids(from, limit, &mut ids)?;
        }
        ids.sort_unstable();
        ids.truncate(limit);
        Ok(ids)
    }

    /// The vector stored under an id; near to it where [`Kept`](crate::Kept) is not all of it.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn vector(&self, id: u64) -> Result<Option<Cow<'_, [f32]>>> {
        if let Some(vector) = self.pending.vector(id) {
            return Ok(Some(Cow::Borrowed(vector)));
        }
        self.segments.iter().find_map(|live| live.vector(id).transpose()).transpose()
    }

    /// Compares every byte that was not read so far with its checksum, and returns what is damaged: in a file, and from where to where.
    pub fn verify(&self) -> Vec<Error> {
        self.segments.par_iter().for_each(|live| live.segment.check(|| true));
        self.damage()
    }

    /// What is known to be damaged, so far. Where only codes or links are, answers come from scans, and the next merge writes the segment anew.
    pub fn damage(&self) -> Vec<Error> {
        self.segments.iter().flat_map(|live| live.segment.damage()).collect()
    }

    pub(super) fn check(&self, vector: &[f32]) -> Result<()> {
        if vector.len() != self.dimensions {
            return Err(Error::Dimensions { expected: self.dimensions, found: vector.len() });
        }
        let squared_length = dot(vector, vector);
        // False for NaN as well.
        let is_unit = (squared_length - 1.0).abs() <= UNIT_TOLERANCE;
        if is_unit { Ok(()) } else { Err(Error::NotUnit { squared_length }) }
    }
}

/// Where the latest snapshot is. Cheap to clone and to ask, from any number of threads, while the index is written to.
#[derive(Clone)]
pub struct Reader {
    latest: Arc<ArcSwap<Snapshot>>,
}

impl Reader {
    pub(super) fn new(snapshot: Snapshot) -> Self {
        Self { latest: Arc::new(ArcSwap::from_pointee(snapshot)) }
    }

    pub(super) fn publish(&self, snapshot: Snapshot) {
        self.latest.store(Arc::new(snapshot));
    }

    /// What was published last. Waits for nobody.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.latest.load_full()
    }
}
