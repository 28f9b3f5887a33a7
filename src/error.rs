//! What can go wrong, grouped by what the caller can do about it.

use std::io;
use std::path::{Path, PathBuf};

/// The result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error from this crate. Messages name the file or the argument and end without a full stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are not a photo that can be read; nothing was written. The caller adds the file's name.
    #[error("not a readable photo: {what}")]
    Photo {
        /// What was expected and what was found.
        what: String,
    },
    /// An argument is out of its range or malformed; nothing was written.
    #[error("{name}: {what}")]
    Argument {
        /// The argument as its user spells it.
        name: &'static str,
        /// What was expected and what was found.
        what: String,
    },
    /// A photo was expected to show exactly one usable face, or any face at all.
    #[error("{what}")]
    NoFace {
        /// How many faces were found, and why none could be used.
        what: String,
    },
    /// There is no such face, photo or person in the gallery.
    #[error("no such {kind}: {name}")]
    NotFound {
        /// `face`, `photo` or `person`.
        kind: &'static str,
        /// The id or name that was asked for.
        name: String,
    },
    /// The weights file is not one that this release can use.
    #[error("{path}: {what}", path = path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        what: String,
    },
    /// The gallery belongs to another model: use that model, or ingest into a fresh gallery.
    #[error(
        "{path}: this gallery holds embeddings of model {found}, but model {expected} is loaded; \
         load that model's weights, or ingest the photos into a fresh gallery",
        path = path.display()
    )]
    OtherModel {
        /// The gallery.
        path: PathBuf,
        /// The digest of the model that is loaded.
        expected: String,
        /// The digest that the gallery remembers.
        found: String,
    },
    /// Another process or handle has the gallery open.
    #[error("{path}: the gallery is open elsewhere; close the other process, or ask it over HTTP", path = path.display())]
    Locked {
        /// The gallery.
        path: PathBuf,
    },
    /// Written by a newer release: upgrade.
    #[error("{path}: format version {found}, this release reads {known}; upgrade vultus, or ingest again", path = path.display())]
    Version {
        /// The file or folder.
        path: PathBuf,
        /// The version it carries.
        found: u64,
        /// The version this release writes.
        known: u64,
    },
    /// The bytes are not what was written: restore from a backup.
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
    /// The vector index failed.
    #[error(transparent)]
    Index(#[from] vultus_index::Error),
    /// A tensor operation failed; a fault of ours, or no memory.
    #[error("tensor operation: {0}")]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    /// For `map_err`: an I/O error with the path that it is about.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    /// An argument that is out of its range.
    pub(crate) fn argument(name: &'static str, what: impl Into<String>) -> Self {
        Self::Argument { name, what: what.into() }
    }

    /// A file whose bytes are not what was written.
    pub(crate) fn corrupt(path: &Path, what: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), what: what.into() }
    }
}
