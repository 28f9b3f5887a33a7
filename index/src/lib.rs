//! Nearest neighbours of unit vectors, in a folder of sealed, mapped, checksummed files.
//!
//! Knows 64-bit ids and vectors; has never heard of a face. What is added is searched at once, exactly; `seal` writes it to an
//! immutable segment, with a graph when it is large. The owner of the truth is somebody else: what was not sealed is lost on a
//! crash, and [`Index::sequence`] says from where to replay.
//!
//! ```
//! use vultus_index::{Index, Options, Search};
//!
//! let folder = tempfile::tempdir()?;
//! let mut index = Index::open(folder.path(), Options { dimensions: 2, ..Options::default() })?;
//! index.add(7, &[1.0, 0.0])?;
//! index.add(8, &[0.0, 1.0])?;
//! index.seal(2)?;
//! let nearest = index.search(&[0.6, 0.8], &Search::default())?;
//! assert_eq!(nearest[0].id, 8);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod folder;
mod graph;
#[expect(unsafe_code, reason = "SIMD")]
mod kernel;
mod nearest;
mod quantiser;
mod scan;
mod segment;

use roaring::RoaringTreemap;

pub use error::{Error, Result};
pub use folder::Index;

/// More than any embedding has; keeps every size in a file far from overflow.
const DIMENSIONS_MAX: usize = 65_536;

/// A stored id and its distance from the query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbor {
    /// The id it was added under.
    pub id: u64,
    /// Squared Euclidean distance, 0 to 4.
    pub distance: f32,
}

/// How an index is laid out.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Floats in a vector, 1 to 65,536. Fixed when the folder is made, and checked on every open.
    pub dimensions: usize,
    /// Segments with fewer vectors than this get no graph: scanning them is as fast, and exact. Holds for segments written from
    /// now on.
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

impl Default for Search<'_> {
    fn default() -> Self {
        Self { k: 10, ef: 128, exact: false, allowed: None }
    }
}
