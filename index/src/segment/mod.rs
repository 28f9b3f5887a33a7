//! One immutable file of vectors: ids, vectors, and where that pays codes and a graph to find them by.
//!
//! A row is a vector's place in its segment. Which rows were deleted is not known here: the file never changes.

mod header;
#[expect(unsafe_code, reason = "maps files")]
mod map;
mod search;
mod write;

use std::path::{Path, PathBuf};

use header::{BLOCK, Header, LEN, Sections};
use map::Map;

use crate::graph::Graph;
use crate::quantiser::Quantiser;
use crate::{Error, Result};

pub(crate) use write::{Layout, write};

/// A segment file, mapped.
pub(crate) struct Segment {
    path: PathBuf,
    map: Map,
    header: Header,
    sections: Sections,
    stamp: Stamp,
}

/// What a manifest says about a segment file: enough to tell any other file from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stamp {
    pub(crate) bytes: u64,
    /// The header's checksum, which covers the checksums of all sections.
    pub(crate) crc: u32,
}

/// A vector on its way into a segment.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) id: u64,
    pub(crate) vector: &'a [f32],
}

impl Segment {
    /// Maps the file. Its header and its length are checked, the sections are not: [`verify`](Self::verify) does that.
    pub(crate) fn open(path: PathBuf, stamp: Stamp, dimensions: usize) -> Result<Self> {
        let corrupt = |what: &str| Error::corrupt(&path, what);
        if !path.exists() {
            return Err(corrupt("is missing, though the manifest names it"));
        }
        let map = Map::open(&path)?;
        let bytes = map.bytes();
        let head: &[u8; LEN] = bytes.first_chunk().ok_or_else(|| corrupt("is shorter than a header"))?;
        let header = Header::decode(head, &path)?;
        if stamp != (Stamp { bytes: bytes.len() as u64, crc: header::crc(head) }) {
            return Err(corrupt("is not the file that the manifest names"));
        }
        if header.bytes() != bytes.len() as u64 || header.dimensions as usize != dimensions {
            return Err(corrupt("holds something else than its header and the manifest say"));
        }
        let segment = Self { sections: header.sections(), map, header, stamp, path };
        if segment.header.has_graph() {
            segment.view_graph().map_err(|what| Error::corrupt(&segment.path, what))?;
        }
        Ok(segment)
    }

    /// Compares every byte with its checksum, and checks what a search relies on.
    pub(crate) fn verify(&self) -> Result<()> {
        let corrupt = |what: &str| Error::corrupt(&self.path, what);
        let checks = &self.map.bytes()[self.sections.checks.clone()];
        if crc32fast::hash(checks) != self.header.checks_crc {
            return Err(corrupt("the checksum of the checksums is wrong"));
        }
        let blocks = self.map.bytes()[LEN..self.sections.checks.start].chunks(BLOCK);
        for (number, (block, crc)) in blocks.zip(checks.as_chunks::<4>().0).enumerate() {
            if crc32fast::hash(block) != u32::from_le_bytes(*crc) {
                let from = LEN + number * BLOCK;
                return Err(corrupt(&format!("the checksum of bytes {from} to {} is wrong", from + block.len())));
            }
        }
        let is_row = |row: &u32| (*row as usize) < self.count();
        if !self.by_id().iter().all(is_row) || !self.ids_from(0).is_sorted_by(|a, b| a.0 < b.0) {
            return Err(corrupt("ids do not ascend"));
        }
        if self.header.has_graph() && !self.quantiser().is_sound() {
            return Err(corrupt("the quantiser has no levels"));
        }
        Ok(())
    }

    /// What tells this file from any other.
    pub(crate) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The caller's sequence numbers behind which and up to which its vectors were written.
    pub(crate) fn sequences(&self) -> [u64; 2] {
        self.header.sequences
    }

    /// Vectors in the file, those deleted since included.
    pub(crate) fn count(&self) -> usize {
        self.header.count as usize
    }

    /// The id of each row.
    pub(crate) fn ids(&self) -> &[u64] {
        bytemuck::cast_slice(&self.map.bytes()[self.sections.ids.clone()])
    }

    /// Rows by ascending id.
    fn by_id(&self) -> &[u32] {
        bytemuck::cast_slice(&self.map.bytes()[self.sections.by_id.clone()])
    }

    /// Ids that are at least `from`, ascending, and their rows.
    pub(crate) fn ids_from(&self, from: u64) -> impl Iterator<Item = (u64, u32)> {
        let first = self.by_id().partition_point(|row| self.ids()[*row as usize] < from);
        self.by_id()[first..].iter().map(|row| (self.ids()[*row as usize], *row))
    }

    /// One vector for each row.
    pub(crate) fn vectors(&self) -> &[f32] {
        bytemuck::cast_slice(&self.map.bytes()[self.sections.vectors.clone()])
    }

    pub(crate) fn vector(&self, row: u32) -> &[f32] {
        let dimensions = self.header.dimensions as usize;
        &self.vectors()[row as usize * dimensions..][..dimensions]
    }

    /// The row of an id, deleted or not.
    pub(crate) fn row_of(&self, id: u64) -> Option<u32> {
        let at = self.by_id().binary_search_by_key(&id, |row| self.ids()[*row as usize]).ok()?;
        Some(self.by_id()[at])
    }

    fn quantiser(&self) -> Quantiser<'_> {
        Quantiser::view(bytemuck::cast_slice(&self.map.bytes()[self.sections.quantiser.clone()]))
    }

    /// One code for each row.
    fn codes(&self) -> &[u8] {
        &self.map.bytes()[self.sections.codes.clone()]
    }

    fn view_graph(&self) -> Result<Graph<'_>, &'static str> {
        Graph::view(&self.map.bytes()[self.sections.graph.clone()], self.count(), self.header.dimensions as usize)
    }

    fn graph(&self) -> Option<Graph<'_>> {
        self.header.has_graph().then(|| self.view_graph().ok()).flatten()
    }
}

/// The file name of a segment.
pub(crate) fn file(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:06}.{EXTENSION}"))
}

/// Of segment files.
pub(crate) const EXTENSION: &str = "seg";
