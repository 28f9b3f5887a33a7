//! Nearest neighbours of unit vectors, in a folder of sealed, mapped, checksummed files.
//!
//! Knows 64-bit ids and vectors; has never heard of a face. What is added is searched at once, exactly; `seal` writes it to an
//! immutable segment, with a graph when it is large. The owner of the truth is somebody else: what was not sealed is lost on a
//! crash, and [`Index::sequence`] says from where to replay.

use std::io;
use std::path::{Path, PathBuf};

use roaring::RoaringTreemap;

/// The result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error from this crate. Messages name the file and end without a full stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's mistake; nothing was written.
    #[error("vector has {found} dimensions, this index holds {expected}")]
    Dimensions {
        /// What the index holds.
        expected: usize,
        /// What was given.
        found: usize,
    },
    /// The caller's mistake; nothing was written.
    #[error("vector is not of unit length and finite: its squared length is {squared_length}")]
    NotUnit {
        /// Should be 1 within 1e-3.
        squared_length: f32,
    },
    /// Written by a newer release: upgrade, or rebuild.
    #[error("{path}: format version {found}, this release reads {known}", path = path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version it carries.
        found: u32,
        /// The version this release writes.
        known: u32,
    },
    /// The bytes are not what was written: rebuild from the source of truth.
    #[error("{path}: {what}", path = path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What does not hold.
        what: String,
    },
    /// The operating system refused.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
}

/// A stored id and its distance from the query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbor {
    /// The id it was added under.
    pub id: u64,
    /// Squared Euclidean distance, 0 to 4.
    pub distance: f32,
}

/// How an index is laid out. Given on creation, checked on every open.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Floats in a vector.
    pub dimensions: usize,
    /// Segments with fewer vectors than this get no graph: scanning them is as fast, and exact.
    pub graph_vectors_min: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { dimensions: 128, graph_vectors_min: 20_000 }
    }
}

/// How to search.
#[derive(Clone, Copy, Debug)]
pub struct Search<'a> {
    /// Neighbours wanted; fewer come back only when fewer exist.
    pub k: usize,
    /// Beam width in graphs; raised to `k` when smaller.
    pub ef: usize,
    /// Compare with every vector instead of walking graphs.
    pub exact: bool,
    /// Only these ids.
    pub allowed: Option<&'a RoaringTreemap>,
}

/// A folder of vectors. One writer (`&mut`), many readers (`&`).
pub struct Index;

#[expect(unused_variables, clippy::todo, reason = "lands next")]
impl Index {
    /// Opens the folder, or starts an empty index where there is none. Every byte of every file is verified.
    ///
    /// # Errors
    /// `Corrupt`, `Version`, `Io`.
    pub fn open(folder: &Path, options: Options) -> Result<Self> {
        todo!()
    }

    /// Adds or replaces one vector. Searched at once; on disk after the next [`seal`](Self::seal).
    ///
    /// # Errors
    /// `Dimensions`, `NotUnit`.
    pub fn add(&mut self, id: u64, vector: &[f32]) -> Result<()> {
        todo!()
    }

    /// Removes a vector; hidden at once. Returns whether it was there.
    pub fn remove(&mut self, id: u64) -> bool {
        todo!()
    }

    /// Makes everything added and removed so far durable, as the state at the caller's `sequence`.
    ///
    /// Deletions alone write only a small file; pending vectors become a segment, merged with its small neighbours.
    ///
    /// # Errors
    /// `Io`; then nothing changed on disk.
    pub fn seal(&mut self, sequence: u64) -> Result<()> {
        todo!()
    }

    /// The caller's sequence number at the last seal; 0 in a new index.
    pub fn sequence(&self) -> u64 {
        todo!()
    }

    /// Vectors that are only in memory.
    pub fn pending(&self) -> usize {
        todo!()
    }

    /// Vectors that answers can contain.
    pub fn count(&self) -> usize {
        todo!()
    }

    /// The nearest vectors, nearest first, ties by id.
    ///
    /// # Errors
    /// `Dimensions`, `NotUnit`.
    pub fn search(&self, query: &[f32], search: &Search<'_>) -> Result<Vec<Neighbor>> {
        todo!()
    }

    /// Stored ids in ascending order, at most `limit`, from the first at or above `from`.
    pub fn scroll(&self, from: u64, limit: usize) -> Vec<u64> {
        todo!()
    }

    /// The vector stored under an id.
    pub fn vector(&self, id: u64) -> Option<&[f32]> {
        todo!()
    }
}
