//! Vectors that are only in memory, until the next seal.

use std::sync::Arc;

use crate::nearest::Nearest;
use crate::scan;
use crate::segment::Row;
use crate::sieve::{Query, Sieve};

/// Vectors in one chunk: what a writer copies at most when a snapshot shares its last chunk, and what is searched at once.
const CHUNK: usize = 64;

/// Vectors in chunks that snapshots share; all chunks but the last are full, so that a search scans long slices.
#[derive(Clone, Default)]
pub(super) struct Pending {
    chunks: Vec<Arc<Chunk>>,
}

#[derive(Clone, Default)]
struct Chunk {
    /// The id of each row.
    ids: Vec<u64>,
    vectors: Vec<f32>,
    /// Of all of them; `None` once one of them changed or came, until readers are to see them.
    sieve: Option<Sieve>,
}

impl Chunk {
    fn make_sieve(&mut self) {
        self.sieve = Some(Sieve::new(&self.vectors, self.vectors.len() / self.ids.len()));
    }
}

impl Pending {
    pub(super) fn push(&mut self, id: u64, vector: &[f32]) {
        if self.chunks.last().is_none_or(|chunk| chunk.ids.len() == CHUNK) {
            self.chunks.push(Arc::default());
        }
        if let Some(chunk) = self.chunks.last_mut().map(Arc::make_mut) {
            chunk.ids.push(id);
            chunk.vectors.extend_from_slice(vector);
            chunk.sieve = None;
        }
    }

    /// Prepares for many searches.
    pub(super) fn make_sieves(&mut self) {
        let without = self.chunks.iter_mut().filter(|chunk| chunk.sieve.is_none());
        without.for_each(|chunk| Arc::make_mut(chunk).make_sieve());
    }

    /// Replaces the vector in a row.
    pub(super) fn set(&mut self, row: usize, vector: &[f32]) {
        let chunk = Arc::make_mut(&mut self.chunks[row / CHUNK]);
        chunk.sieve = None;
        chunk.vectors[row % CHUNK * vector.len()..][..vector.len()].copy_from_slice(vector);
    }

    /// Takes a row out; the last one moves into the gap, and its id is returned unless it was that row itself.
    pub(super) fn swap_remove(&mut self, row: usize) -> Option<u64> {
        let last = Arc::make_mut(self.chunks.last_mut()?);
        let id = last.ids.pop()?;
        last.sieve = None;
        let dimensions = last.vectors.len() / (last.ids.len() + 1);
        let vector = last.vectors.split_off(last.ids.len() * dimensions);
        if last.ids.is_empty() {
            self.chunks.pop();
        }
        if row == self.count() {
            return None;
        }
        self.set(row, &vector);
        Arc::make_mut(&mut self.chunks[row / CHUNK]).ids[row % CHUNK] = id;
        Some(id)
    }

    pub(super) fn count(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.ids.len())
    }

    pub(super) fn vector(&self, id: u64) -> Option<&[f32]> {
        self.rows().find(|row| row.id == id).map(|row| row.vector)
    }

    /// In no order.
    pub(super) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.chunks.iter().flat_map(|chunk| {
            let vectors = chunk.vectors.chunks_exact(chunk.vectors.len() / chunk.ids.len());
            chunk.ids.iter().zip(vectors).map(|(id, vector)| Row { id: *id, vector })
        })
    }

    /// Offers every vector that is allowed.
    pub(super) fn search(&self, query: &Query<'_>, is_allowed: impl Fn(u64) -> bool, nearest: &mut Nearest) {
        for chunk in &self.chunks {
            let key = |row: usize| Some(chunk.ids[row]).filter(|id| is_allowed(*id));
            match &chunk.sieve {
                Some(sieve) => sieve.search(query, &chunk.vectors, nearest, key),
                None => scan::every_row(query.vector, &chunk.vectors, nearest, key),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use super::*;

    #[test]
    fn what_readers_see_is_searched_through_sieves() {
        let vector = |of: usize| [(of as f32).cos(), (of as f32).sin()];
        let mut pending = Pending::default();
        let add = |pending: &mut Pending, ids: std::ops::Range<usize>| {
            ids.for_each(|id| pending.push(id as u64, &vector(id)));
        };
        let with_sieves = |pending: &Pending| pending.chunks.iter().filter(|chunk| chunk.sieve.is_some()).count();
        add(&mut pending, 0..CHUNK + 5);
        assert_eq!(with_sieves(&pending), 0);
        pending.make_sieves();
        let seen = pending.clone();
        add(&mut pending, CHUNK + 5..CHUNK + 9);
        pending.set(3, &vector(500));
        assert_eq!([with_sieves(&seen), with_sieves(&pending)], [2, 0]);
        pending.make_sieves();
        assert_eq!([with_sieves(&seen), with_sieves(&pending)], [2, 2]);
        let nearest = |pending: &Pending, to: usize| {
            let mut nearest = Nearest::new(1, f32::INFINITY);
            pending.search(&Query::new(&vector(to)), |_| true, &mut nearest);
            nearest.into_sorted().first().map(|found| (found.key, found.distance < 1e-6)).unwrap()
        };
        assert_eq!([nearest(&seen, 3), nearest(&pending, 500)], [(3, true); 2]);
        assert_eq!(nearest(&pending, CHUNK + 8), (CHUNK as u64 + 8, true));
        assert!(!nearest(&seen, CHUNK + 8).1 && !nearest(&pending, 3).1);
    }
}
