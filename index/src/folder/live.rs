//! A segment that answers come from, and which of its rows were deleted since it was written.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use roaring::RoaringBitmap;

use super::manifest::Entry;
use super::plan::{Size, State};
use crate::Result;
use crate::segment::{Bridge, Row, Segment};
use crate::stop::Stop;

/// Cheap to clone: a snapshot holds one of each, and copies the deletions only when there are more of them.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) number: u64,
    pub(super) segment: Arc<Segment>,
    pub(super) deleted: Arc<RoaringBitmap>,
    pub(super) bridged: Option<Bridged>,
}

/// A way from another segment.
#[derive(Clone)]
pub(super) struct Bridged {
    /// The other's number.
    from: u64,
    /// What all clones share: empty until somebody tried to build it, and `None` where that does not pay.
    bridge: Arc<OnceLock<Option<Bridge>>>,
}

impl Live {
    pub(super) fn new(number: u64, segment: Segment, deleted: RoaringBitmap) -> Self {
        Self { number, segment: Arc::new(segment), deleted: Arc::new(deleted), bridged: None }
    }

    /// Is to be reached from the segment of a number from now on, once the bridge is built.
    pub(super) fn reach_from(&mut self, number: u64) {
        if self.bridged.as_ref().is_none_or(|bridged| bridged.from != number) {
            self.bridged = Some(Bridged { from: number, bridge: Arc::default() });
        }
    }

    /// Whether a bridge is still to be built.
    pub(super) fn lacks_bridge(&self) -> bool {
        self.bridged.as_ref().is_some_and(|bridged| bridged.bridge.get().is_none())
    }

    /// Builds the bridge that it is to be reached by, for all clones; later where the other was not compared with its checksums yet.
    pub(super) fn build_bridge(&self, from: &Self, stop: &Stop) {
        let Some(bridged) = self.bridged.as_ref().filter(|bridged| bridged.from == from.number) else { return };
        if !from.segment.is_all_sound() {
            return;
        }
        // What cannot be read is met by searches, too.
        let bridge = Bridge::new(&from.segment, &self.segment, stop).unwrap_or_default();
        if !stop.is_set() {
            // Nobody else builds it.
            let _ = bridged.bridge.set(bridge);
        }
    }

    /// The bridge from the segment of a number, where there is one.
    pub(super) fn bridge(&self, from: Option<u64>) -> Option<&Bridge> {
        let bridged = self.bridged.as_ref().filter(|bridged| Some(bridged.from) == from)?;
        bridged.bridge.get()?.as_ref()
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
