//! Many photos into a gallery: sources, bounded queues, batches, and a letter box for what can't be read.
//!
//! Knows files and threads; says what happens through [`Observer`], never prints. A photo's identity is the hash of its
//! bytes, so a run that was stopped, or killed, goes on when it is started again: what was committed is skipped unread.

mod dead_letters;
mod metadata;
mod pipeline;
mod sources;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use crate::{Gallery, Result};

pub use metadata::MetadataTable;
pub use sources::read_file;

/// What a bulk run takes and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Photos (tried whatever their name), folders (recursive, in order of name) and tar shards. In folders and shards,
    /// photos are what is named `.jpg`, `.jpeg`, `.png` or `.webp`, and shards what is named `.tar`.
    pub paths: Vec<PathBuf>,
    /// Whether a photo is about the person whose name its folder carries.
    pub person_from_folder: PersonFrom,
    /// Metadata by path.
    pub metadata: MetadataTable,
    /// Where photos that can't be read are listed, one JSON object (`path`, `reason`) a line. Emptied at the start.
    pub dead_letters: Option<PathBuf>,
    /// Threads that decode and detect; 0 means one a core.
    pub threads: usize,
    /// Faces that are embedded, and committed, as one batch.
    pub batch_faces: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            paths: Vec::new(),
            person_from_folder: PersonFrom::Nothing,
            metadata: MetadataTable::default(),
            dead_letters: None,
            threads: 0,
            batch_faces: 64,
        }
    }
}

/// Whether folders are people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PersonFrom {
    /// Nobody is named.
    #[default]
    Nothing,
    /// The name of the folder that holds the photo goes to the photo's [`subject`](crate::gallery::subject), its large
    /// central face; bystanders stay unnamed.
    Folder,
}

/// Figures of a run, so far or in all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Photos that the sources hold, once counted.
    pub photos_total: Option<u64>,
    /// Photos dealt with: added, known or unreadable.
    pub photos: u64,
    /// Photos committed.
    pub added: u64,
    /// Photos whose bytes the gallery had; nothing of them was changed.
    pub known: u64,
    /// Photos, folders and shards that could not be read: see the dead letters.
    pub unreadable: u64,
    /// Files in folders and shards that are not photos by their name.
    pub others: u64,
    /// Added photos that have a row in the metadata table.
    pub described: u64,
    /// Added photos in which no face was found.
    pub without_faces: u64,
    /// Faces stored.
    pub faces: u64,
    /// Faces refused for their quality.
    pub refused: u64,
    /// Seconds since the start.
    pub seconds: f64,
    /// Whether the run was stopped before its end.
    pub stopped: bool,
}

/// Hears of a run while it goes; always on the thread that called [`run`].
pub trait Observer {
    /// After every commit and a few times a second.
    fn progress(&self, progress: &Progress) {
        let _ = progress;
    }

    /// A photo, folder or shard that could not be read.
    fn unreadable(&self, path: &str, reason: &str) {
        let _ = (path, reason);
    }
}

/// Hears nothing.
impl Observer for () {}

/// Ingests everything that `options` names. Stops cleanly soon after `stop` turns true; running again goes on.
///
/// Memory does not grow with the number of photos, only with that of `paths`, of folders, of files in one folder and of
/// rows of metadata: a handful of photos is in flight at any time.
///
/// # Errors
/// A path that does not exist (then nothing was done), a gallery or a dead-letter file that can't be written. Photos
/// that can't be read are no error. What was committed before an error stays.
pub fn run(gallery: &Gallery, options: &Options, stop: &AtomicBool, observer: &dyn Observer) -> Result<Progress> {
    sources::check(&options.paths)?;
    let dead_letters = dead_letters::DeadLetters::create(options.dead_letters.as_deref())?;
    pipeline::run(gallery, options, stop, observer, dead_letters)
}
