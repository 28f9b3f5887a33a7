//! Looking around in a gallery: faces, photos, people and figures.

use std::fs;
use std::path::Path;
use std::sync::PoisonError;

use super::Gallery;
use crate::catalog::{FaceId, FaceRecord, Filter, PhotoHash, PhotoRecord};
use crate::{Error, Result, Task};

/// What is in a gallery.
#[derive(Clone, Debug, PartialEq)]
pub struct Stats {
    /// Stored photos.
    pub photos: u64,
    /// Stored faces.
    pub faces: u64,
    /// Distinct names.
    pub people: u64,
    /// Faces without a name.
    pub unnamed: u64,
    /// The model that made the embeddings.
    pub model: String,
    /// Bytes of all files.
    pub bytes: u64,
    /// Sequence number of the last commit.
    pub sequence: u64,
    /// Views that had to be rebuilt since the gallery was opened, with the reason.
    pub rebuilt: Vec<String>,
}

/// A name and how many faces carry it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The name.
    pub name: String,
    /// Faces.
    pub faces: u64,
}

impl Gallery {
    /// The names, by name.
    ///
    /// # Errors
    /// Only of storage.
    pub fn people(&self) -> Result<Vec<Person>> {
        let people = self.catalog.read()?.people()?;
        Ok(people.into_iter().map(|(name, faces)| Person { name, faces }).collect())
    }

    /// One stored face.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn face(&self, id: FaceId) -> Result<FaceRecord> {
        let face = self.catalog.read()?.face(id)?;
        face.ok_or_else(|| Error::NotFound { kind: "face", name: id.to_string() })
    }

    /// Stored faces in ascending order of id, at most `limit`, from the first id at or above `from`.
    ///
    /// # Errors
    /// `Argument` for a filter that names an unusable range.
    pub fn faces(&self, filter: Option<&Filter>, from: FaceId, limit: usize) -> Result<Vec<FaceRecord>> {
        let Some(filter) = filter else {
            return self.catalog.read()?.faces_from(from)?.take(limit).collect();
        };
        let mut allowed = self.allowed(filter)?;
        allowed.remove_range(..from.0);
        let now = self.catalog.read()?;
        allowed.iter().filter_map(|id| now.face(FaceId(id)).transpose()).take(limit).collect()
    }

    /// One photo; `None` when it was never ingested (or was forgotten).
    ///
    /// # Errors
    /// Only of storage.
    pub fn photo(&self, hash: &PhotoHash) -> Result<Option<PhotoRecord>> {
        self.catalog.read()?.photo(hash)
    }

    /// The threshold that suits a task in a gallery of this size, by the model's calibration.
    ///
    /// # Errors
    /// `Argument` when the model was not calibrated.
    pub fn default_threshold(&self, task: Task) -> Result<f32> {
        let faces = self.catalog.read()?.counts()?.faces;
        self.recognizer.calibration().default_threshold(task, faces)
    }

    /// What is in it.
    ///
    /// # Errors
    /// Only of storage.
    pub fn stats(&self) -> Result<Stats> {
        let now = self.catalog.read()?;
        let counts = now.counts()?;
        Ok(Stats {
            photos: counts.photos,
            faces: counts.faces,
            people: now.people()?.len() as u64,
            unnamed: counts.faces - counts.named,
            model: self.recognizer.digest().to_owned(),
            bytes: bytes_below(&self.folder)?,
            sequence: now.sequence(),
            rebuilt: self.rebuilt.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        })
    }
}

/// The length of all files. One that a view replaces at this moment counts for nothing.
fn bytes_below(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        bytes += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path())?,
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(Error::io(&entry.path())(error)),
        };
    }
    Ok(bytes)
}
