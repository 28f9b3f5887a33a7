//! What an id means: the records (redb, the truth) and the filters over them (tantivy, a view).

mod acknowledged;
mod filter;
pub mod filters;
mod parser;
mod read;
mod record;
mod store;
mod write;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use filter::{Filter, FilterValue};
pub(crate) use read::Snapshot;
pub(crate) use record::Touch;
pub(crate) use store::Catalog;
pub(crate) use write::Change;

use crate::{Embedding, Error, Face, Result, face::Quality};

/// A face in a gallery. Given once, ascending, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FaceId(pub u64);

impl fmt::Display for FaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A photo's identity: the BLAKE3 hash of its file's bytes. Shown as 64 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PhotoHash(pub [u8; 32]);

impl PhotoHash {
    /// The hash of a file's bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for PhotoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::str::FromStr for PhotoHash {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| Error::argument("photo", "expected 64 hex digits"))?;
        Ok(Self(*hash.as_bytes()))
    }
}

/// What people say about a photo: a flat JSON object of strings, numbers and booleans, and lists of them.
pub type Metadata = serde_json::Map<String, serde_json::Value>;

/// One stored face.
#[derive(Clone, Debug, PartialEq)]
pub struct FaceRecord {
    /// Its id.
    pub id: FaceId,
    /// The photo that it is in.
    pub photo: PhotoHash,
    /// Where it is in the upright photo.
    pub face: Face,
    /// What was measured when it was ingested.
    pub quality: Quality,
    /// Its embedding.
    pub embedding: Embedding,
    /// Whose face it is, when somebody said so.
    pub person: Option<String>,
}

/// One ingested photo, also when no face of it could be used.
#[derive(Clone, Debug, PartialEq)]
pub struct PhotoRecord {
    /// Its identity.
    pub hash: PhotoHash,
    /// Where it came from: a path, or `shard.tar!member`.
    pub path: String,
    /// Upright width in pixels.
    pub width: u32,
    /// Upright height in pixels.
    pub height: u32,
    /// The detector that looked at it.
    pub detector: String,
    /// What people say about it.
    pub metadata: Metadata,
    /// Milliseconds since 1970 when it was committed.
    pub ingested_ms: u64,
    /// Its stored faces.
    pub faces: Vec<FaceId>,
    /// Faces that were found and refused, each with the reason as text.
    pub refused: Vec<String>,
}
