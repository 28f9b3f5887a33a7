//! Vectors that are only in memory, until the next seal.

use std::collections::BTreeMap;

use crate::nearest::Nearest;
use crate::scan;
use crate::segment::Row;

/// Vectors by id. Rows are dense, so that a search scans one slice.
pub(super) struct Pending {
    dimensions: usize,
    rows: BTreeMap<u64, usize>,
    /// The id of each row.
    ids: Vec<u64>,
    vectors: Vec<f32>,
}

impl Pending {
    pub(super) fn new(dimensions: usize) -> Self {
        Self { dimensions, rows: BTreeMap::new(), ids: Vec::new(), vectors: Vec::new() }
    }

    /// Adds or replaces.
    pub(super) fn add(&mut self, id: u64, vector: &[f32]) {
        if let Some(&row) = self.rows.get(&id) {
            self.vectors[row * self.dimensions..][..self.dimensions].copy_from_slice(vector);
        } else {
            self.rows.insert(id, self.ids.len());
            self.ids.push(id);
            self.vectors.extend_from_slice(vector);
        }
    }

    /// Removes, and says whether it was there. The last row moves into the gap.
    pub(super) fn remove(&mut self, id: u64) -> bool {
        let Some(row) = self.rows.remove(&id) else { return false };
        self.ids.swap_remove(row);
        if let Some(&moved) = self.ids.get(row) {
            self.rows.insert(moved, row);
        }
        let last = self.ids.len() * self.dimensions;
        self.vectors.copy_within(last.., row * self.dimensions);
        self.vectors.truncate(last);
        true
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.dimensions);
    }

    pub(super) fn count(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn vector(&self, id: u64) -> Option<&[f32]> {
        self.rows.get(&id).map(|row| &self.vectors[row * self.dimensions..][..self.dimensions])
    }

    /// Ids from `from` on, ascending.
    pub(super) fn ids_from(&self, from: u64) -> impl Iterator<Item = u64> {
        self.rows.range(from..).map(|(id, _)| *id)
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.ids.iter().zip(self.vectors.chunks_exact(self.dimensions)).map(|(id, vector)| Row { id: *id, vector })
    }

    /// Offers every vector that is allowed.
    pub(super) fn search(&self, query: &[f32], is_allowed: impl Fn(u64) -> bool, nearest: &mut Nearest) {
        scan::every_row(query, &self.vectors, nearest, |row| Some(self.ids[row]).filter(|id| is_allowed(*id)));
    }
}
