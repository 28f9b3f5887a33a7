//! What became of one photo, and of a whole run of them, as JSON.

use serde::{Deserialize, Serialize};
use vultus::catalog::{FaceRecord, Metadata, PhotoHash, PhotoRecord};
use vultus::gallery::{Added, Gallery};
use vultus::{Error, Result, ingest};

use super::face::StoredFace;

/// What became of one photo, and what the gallery now holds of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ingested {
    /// The photo's identity: 64 hex digits, the BLAKE3 hash of the file.
    pub photo: String,
    /// Whether it was new.
    pub outcome: IngestedOutcome,
    /// The path under which it was first ingested.
    pub path: String,
    /// Upright width in pixels.
    pub width: u32,
    /// Upright height in pixels.
    pub height: u32,
    /// What people say about it.
    pub metadata: Metadata,
    /// Its stored faces, ascending by id; empty when none was found or all were refused.
    pub faces: Vec<StoredFace>,
    /// Faces that were found and refused: the reason of each, for people to read.
    pub refused: Vec<String>,
}

/// Whether an ingested photo was new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IngestedOutcome {
    /// It was stored.
    Added,
    /// Its bytes were there already; nothing was changed.
    Known,
}

impl From<&Added> for IngestedOutcome {
    fn from(added: &Added) -> Self {
        match added {
            Added::New(_) => Self::Added,
            Added::Known(_) => Self::Known,
        }
    }
}

impl Ingested {
    /// What [`Gallery::ingest`] answered, with what the gallery holds of that photo.
    ///
    /// # Errors
    /// `NotFound` when somebody forgot the photo in the meantime; those of storage.
    pub fn read(gallery: &Gallery, hash: &PhotoHash, added: &Added) -> Result<Self> {
        let record = gallery.photo(hash)?.ok_or_else(|| Error::NotFound { kind: "photo", name: hash.to_string() })?;
        let faces: Vec<FaceRecord> = record.faces.iter().map(|id| gallery.face(*id)).collect::<Result<_>>()?;
        Ok(Self::new(IngestedOutcome::from(added), &record, &faces))
    }

    fn new(outcome: IngestedOutcome, record: &PhotoRecord, faces: &[FaceRecord]) -> Self {
        Self {
            photo: record.hash.to_string(),
            outcome,
            path: record.path.clone(),
            width: record.width,
            height: record.height,
            metadata: record.metadata.clone(),
            faces: faces.iter().map(StoredFace::from).collect(),
            refused: record.refused.clone(),
        }
    }
}

/// Figures of a run over many photos.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Photos that the sources hold, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub photos_total: Option<u64>,
    /// Photos dealt with: added, known or unreadable.
    pub photos: u64,
    /// Photos stored.
    pub added: u64,
    /// Photos whose bytes the gallery had.
    pub known: u64,
    /// Photos that could not be read.
    pub unreadable: u64,
    /// Files in folders and shards that are not photos by their name.
    pub others: u64,
    /// Photos stored that have a row in the metadata table.
    pub described: u64,
    /// Photos in which no face was found.
    pub without_faces: u64,
    /// Faces stored.
    pub faces: u64,
    /// Faces refused for their quality.
    pub refused: u64,
    /// Seconds since the start.
    pub seconds: f64,
    /// Whether the run was stopped before its end; running it again goes on.
    pub stopped: bool,
}

impl From<&ingest::Progress> for Progress {
    fn from(progress: &ingest::Progress) -> Self {
        Self {
            photos_total: progress.photos_total,
            photos: progress.photos,
            added: progress.added,
            known: progress.known,
            unreadable: progress.unreadable,
            others: progress.others,
            described: progress.described,
            without_faces: progress.without_faces,
            faces: progress.faces,
            refused: progress.refused,
            seconds: progress.seconds,
            stopped: progress.stopped,
        }
    }
}
