//! A segment that answers come from, and which of its rows were deleted since it was written.

use std::borrow::Cow;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::manifest::Entry;
use super::plan::{Size, State};
use crate::Result;
use crate::segment::{Row, Segment};

/// Cheap to clone: a snapshot holds one of each, and copies the deletions only when there are more of them.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) number: u64,
    pub(super) segment: Arc<Segment>,
    pub(super) deleted: Arc<RoaringBitmap>,
}

impl Live {
    pub(super) fn new(number: u64, segment: Segment, deleted: RoaringBitmap) -> Self {
        Self { number, segment: Arc::new(segment), deleted: Arc::new(deleted) }
    }

    pub(super) fn size(&self) -> Size {
        let count = self.segment.count();
        let is_damaged = !self.segment.damage().is_empty();
        let state = match is_damaged {
            true if self.is_readable() => State::Worn,
            true => State::Lost,
            false if self.segment.has_old_graph() => State::Worn,
            false => State::Sound,
        };
        Size { count, alive: self.alive(), has_graph: self.segment.has_graph(), state }
    }

    /// Whether it can be written anew.
    pub(super) fn is_readable(&self) -> bool {
        self.check().is_ok()
    }

    /// Reads all ids and vectors, unless they were read before.
    pub(super) fn check(&self) -> Result<()> {
        self.segment.ids()?;
        self.segment.check_vectors()
    }

    /// Rows that are not deleted.
    pub(super) fn alive(&self) -> usize {
        self.segment.count() - self.deleted.len() as usize
    }

    pub(super) fn entry(&self) -> Entry {
        Entry { number: self.number, stamp: self.segment.stamp(), deleted: (*self.deleted).clone() }
    }

    /// Deletes a row; whether it was alive.
    pub(super) fn delete(&mut self, id: u64) -> Result<bool> {
        let Some(row) = self.segment.ids()?.row_of(id) else { return Ok(false) };
        Ok(!self.deleted.contains(row) && Arc::make_mut(&mut self.deleted).insert(row))
    }

    /// Adds what is alive.
    ///
    /// - `vectors`: the segment's, for all rows.
    pub(super) fn append_rows<'a>(&self, vectors: &'a [f32], rows: &mut Vec<Row<'a>>) -> Result<()> {
        let dimensions = vectors.len() / self.segment.count().max(1);
        for (id, row) in self.segment.ids()?.from(0).filter(|(_, row)| !self.deleted.contains(*row)) {
            rows.push(Row { id, vector: &vectors[row as usize * dimensions..][..dimensions] });
        }
        Ok(())
    }

    /// Adds the first ids from `from` on, ascending.
    pub(super) fn append_ids(&self, from: u64, limit: usize, ids: &mut Vec<u64>) -> Result<()> {
        let alive = self.segment.ids()?.from(from).filter(|(_, row)| !self.deleted.contains(*row));
        ids.extend(alive.map(|(id, _)| id).take(limit));
        Ok(())
    }

    pub(super) fn vector(&self, id: u64) -> Result<Option<Cow<'_, [f32]>>> {
        match self.segment.ids()?.row_of(id) {
            Some(row) if !self.deleted.contains(row) => self.segment.vector(row).map(Some),
            _ => Ok(None),
        }
    }
}
