//! What can go wrong, grouped by what the caller can do about it.

use std::io;
use std::path::{Path, PathBuf};

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
    #[error("an index holds vectors of 1 to {max} dimensions, not of {found}")]
    DimensionsRange {
        /// What the options say.
        found: usize,
        /// The most there can be.
        max: usize,
    },
    /// The caller's mistake; nothing was written.
    #[error("vector is not of unit length and finite: its squared length is {squared_length}")]
    NotUnit {
        /// Should be 1 within 1e-3.
        squared_length: f32,
    },
    /// Somebody else has the folder open: wait, or close the other one.
    #[error("{path}: this index is already open, in this process or another; close it first", path = path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
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
    /// It is not known any more what a crash would leave, so nothing is written: open the folder anew. What is in memory is still searched.
    #[error("{path}: nothing is written since this failed: {reason}", path = path.display())]
    ReadOnly {
        /// The folder.
        path: PathBuf,
        /// What failed.
        reason: String,
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

impl Error {
    pub(crate) fn corrupt(path: &Path, what: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), what: what.into() }
    }

    /// For `map_err`: the file that the operating system's error is about.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}
