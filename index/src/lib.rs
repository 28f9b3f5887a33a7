//! Nearest neighbours of unit vectors, in a folder of sealed, mapped, checksummed files.
//!
//! Knows 64-bit ids and vectors; has never heard of a face. What is added is searched at once, exactly; [`seal`](Index::seal) writes it to
//! an immutable segment, and merges in the background give large ones graphs, until [`settle`](Index::settle) has nothing left to wait for. Any
//! number of [`Reader`]s search [`Snapshot`]s meanwhile. The owner of the truth is somebody else: what was not sealed is lost on a
//! crash, and [`Snapshot::sequence`] says from where to replay.
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
mod fine;
mod folder;
mod graph;
#[expect(unsafe_code, reason = "SIMD")]
mod kernel;
mod nearest;
mod quantiser;
mod scan;
mod segment;
mod sieve;
mod stop;
mod storage;

use roaring::RoaringTreemap;

pub use error::{Error, Result};
pub use folder::{Index, Lost, Reader, Snapshot};
pub use storage::{Bytes, Disk, NewFile, Storage};

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

/// What a segment with a graph keeps of its vectors, to compare them by once codes found them. Bytes are those at 128 dimensions; codes, links and
/// ids take some 207 more, in any case (`vultus bench ann --keep`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kept {
    /// 512 bytes: vectors as they were added.
    #[default]
    F32,
    /// 256 bytes: the upper half of each float. Distances are off by about a thousandth.
    Bf16,
    /// 48 bytes: three bits for each number, beside the four that are its code. For owners who have the vectors elsewhere: what is read is near what
    /// was added, and a merge reads what the last one wrote. Of the ten nearest of 100,000 face-like vectors, .987 are found at most.
    Codes,
}

/// How an index is laid out.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Floats in a vector, 1 to 65,536. Fixed when the folder is made, and checked on every open.
    pub dimensions: usize,
    /// Segments with fewer vectors than this get no graph: they are scanned, exactly, until what is near is reached from the largest segment. That is
    /// prepared in the background after each seal (`vultus bench serving` shows what searches take meanwhile). Holds for segments written from now on.
    pub graph_vectors_min: usize,
    /// What is kept of vectors in segments with a graph; all of them in others, and in memory. Holds for segments written from now on: one folder
    /// may have several kinds.
    pub kept: Kept,
    /// Segments are not merged to ones with more vectors than this, since a merge needs about 700 bytes of memory for each at 128
    /// dimensions, 1,200 where it reads others than `Kept::F32`. What is sealed at once stays together.
    pub merged_vectors_max: usize,
    /// Threads that a merge works with; 0 for as many as there are cores.
    pub merge_threads: usize,
    /// Share of the time that each of these works in, .05 to 1: where others answer on the same cores, a merge that takes all of one makes them
    /// wait. All of it once somebody waits for the end ([`Index::settle`]).
    pub merge_share: f32,
    /// Vectors, or a fourth of all where that is more, that a merge inserts into a graph before it writes how far it is: one that is cut off goes on from there
    /// when the folder is open again, and not from the beginning. What it writes is 128 bytes for each vector of the merge.
    pub merge_kept_every: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dimensions: 128,
            graph_vectors_min: 2_048,
            kept: Kept::F32,
            merged_vectors_max: 10_000_000,
            merge_threads: 0,
            merge_share: 1.0,
            merge_kept_every: 1 << 18,
        }
    }
}

/// How to search.
#[derive(Clone, Copy, Debug)]
pub struct Search<'a> {
    /// Neighbours wanted; fewer come back only when fewer exist.
    pub k: usize,
    /// How much work an answer is worth.
    pub effort: Effort,
    /// Only these ids.
    pub allowed: Option<&'a RoaringTreemap>,
    /// Only neighbours at most this far away, squared. With as large a `k` as there is room for: all of them, as far as the effort
    /// finds them.
    pub within: Option<f32>,
}

/// How much work an answer is worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Effort {
    /// Of the beam in graphs (the paper's ef); raised to `k` when smaller. So wide is a walk in the mean over many queries: each stops where what is left is
    /// farther than its `k` nearest by a share of their distance that the graph knows to take as much work as a beam of this width. What is in the beam is
    /// compared exactly.
    Width(usize),
    /// The share of the true neighbours to find in the mean, up to 1. Each graph knows from when it was built which width reaches it,
    /// rounded up to a step of .8, .9, .95, .97, .98, .99, .995 or .999; where none does, everything is compared.
    Recall(f32),
    /// Everything is compared.
    Exact,
}

impl Default for Search<'_> {
    fn default() -> Self {
        Self { k: 10, effort: Effort::Width(128), allowed: None, within: None }
    }
}
