//! One immutable file of vectors: ids in ascending order, vectors in the same order, and a graph where that pays.
//!
//! A row is a vector's place in its segment. Which rows were deleted is not known here: the file never changes.

mod header;
#[expect(unsafe_code, reason = "maps files")]
mod map;
mod search;
mod write;

use std::path::{Path, PathBuf};

use header::{Header, LEN};
use map::Map;

use crate::graph::Graph;
use crate::{Error, Result};

pub(crate) use write::write;

/// A segment file, verified and mapped.
pub(crate) struct Segment {
    map: Map,
    header: Header,
    stamp: Stamp,
    has_graph: bool,
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
    /// Maps the file and verifies every byte of it.
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
        if header.bytes != bytes.len() as u64 || header.dimensions as usize != dimensions {
            return Err(corrupt("holds something else than its header and the manifest say"));
        }
        let segment = Self { has_graph: header.graph_at() < header.bytes, map, header, stamp };
        for (section, crc, name) in [
            (segment.section(LEN as u64, header.vectors_at()), header.ids_crc, "ids"),
            (segment.section(header.vectors_at(), header.graph_at()), header.vectors_crc, "vectors"),
            (segment.section(header.graph_at(), header.bytes), header.graph_crc, "graph"),
        ] {
            if crc32fast::hash(section) != crc {
                return Err(corrupt(&format!("the checksum of the {name} is wrong")));
            }
        }
        if !segment.ids().is_sorted_by(|a, b| a < b) {
            return Err(corrupt("ids do not ascend"));
        }
        if segment.has_graph {
            Graph::check(segment.graph_bytes(), segment.count()).map_err(corrupt)?;
        }
        Ok(segment)
    }

    /// What tells this file from any other.
    pub(crate) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Vectors in the file, those deleted since included.
    pub(crate) fn count(&self) -> usize {
        self.header.count as usize
    }

    /// Ids, ascending.
    pub(crate) fn ids(&self) -> &[u64] {
        bytemuck::cast_slice(&self.map.bytes()[LEN..][..self.count() * 8])
    }

    /// Vectors, in the order of their ids.
    pub(crate) fn vectors(&self) -> &[f32] {
        let floats = self.count() * self.header.dimensions as usize;
        bytemuck::cast_slice(&self.map.bytes()[self.header.vectors_at() as usize..][..floats * 4])
    }

    pub(crate) fn vector(&self, row: u32) -> &[f32] {
        let dimensions = self.header.dimensions as usize;
        &self.vectors()[row as usize * dimensions..][..dimensions]
    }

    /// The row of an id, deleted or not.
    pub(crate) fn row_of(&self, id: u64) -> Option<u32> {
        self.ids().binary_search(&id).ok().map(|row| row as u32)
    }

    fn graph(&self) -> Option<Graph<'_>> {
        self.has_graph.then(|| Graph::view(self.graph_bytes(), self.count()))
    }

    fn graph_bytes(&self) -> &[u8] {
        self.section(self.header.graph_at(), self.header.bytes)
    }

    fn section(&self, from: u64, to: u64) -> &[u8] {
        &self.map.bytes()[from as usize..to as usize]
    }
}

/// The file name of a segment.
pub(crate) fn file(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:06}.{EXTENSION}"))
}

/// Of segment files.
pub(crate) const EXTENSION: &str = "seg";
