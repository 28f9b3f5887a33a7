//! Many photos into a gallery: sources, bounded queues, batches, and a letter box for what can't be read.
//!
//! Knows files and threads; says what happens through [`Observer`], never prints.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use crate::{Gallery, Result, catalog::Metadata};

/// What a bulk run takes and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Photos, folders (recursive) and tar shards.
    pub paths: Vec<PathBuf>,
    /// Whether a photo is about the person whose name its folder carries.
    pub person_from_folder: PersonFrom,
    /// Metadata by path, as [`MetadataTable`] reads it.
    pub metadata: MetadataTable,
    /// Where photos that can't be read are listed, one JSON object a line.
    pub dead_letters: Option<PathBuf>,
    /// Threads that decode and detect; 0 means one a core.
    pub threads: usize,
    /// Faces that are embedded, and committed, as one batch.
    pub batch_faces: usize,
}

/// Whether folders are people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PersonFrom {
    /// Nobody is named.
    #[default]
    Nothing,
    /// The name of the folder that holds the photo.
    Folder,
}

/// Metadata of photos by path, from CSV (a `path` column and any others) or JSON lines (a `path` member and any others).
#[derive(Clone, Debug, Default)]
pub struct MetadataTable {
    rows: std::collections::HashMap<String, Metadata>,
}

/// Figures of a run, so far or in all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Photos that the sources hold, once known.
    pub photos_total: Option<u64>,
    /// Photos dealt with: added, known or unreadable.
    pub photos: u64,
    /// Photos committed.
    pub added: u64,
    /// Photos whose bytes the gallery had.
    pub known: u64,
    /// Photos that could not be read: see the dead letters.
    pub unreadable: u64,
    /// Photos in which no face was found.
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

/// Hears of a run while it goes.
pub trait Observer: Sync {
    /// After every commit and a few times a second.
    fn progress(&self, progress: &Progress) {
        let _ = progress;
    }

    /// A photo that could not be read.
    fn unreadable(&self, path: &str, reason: &str) {
        let _ = (path, reason);
    }
}

/// Ingests everything that `options` names. Stops cleanly soon after `stop` turns true; running again goes on.
///
/// # Errors
/// A path that does not exist, a gallery that can't be written. Photos that can't be read are no error.
pub fn run(gallery: &Gallery, options: &Options, stop: &AtomicBool, observer: &dyn Observer) -> Result<Progress> {
    let _ = (gallery, options, stop, observer);
    todo!()
}
