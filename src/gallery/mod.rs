//! The folder on disk: the only module that knows the index and the catalog both.

use std::path::Path;

use crate::catalog::{FaceId, FaceRecord, Filter, Metadata, PhotoHash, PhotoRecord};
use crate::clustering::Partition;
use crate::face::{Quality, Refusal};
use crate::recognizer::RecognizedFace;
use crate::{Bounds, Embedding, Face, Photo, Recognizer, Result};

/// One folder of faces: catalog (the truth), vectors and filters (views), and the recognizer that made them.
///
/// All methods take `&self` and may be called from many threads; writes are serialised inside.
pub struct Gallery {
    recognizer: Recognizer,
}

/// A photo that has been looked at and is ready to be committed.
#[derive(Clone, Debug)]
pub struct NewPhoto {
    /// Its identity.
    pub hash: PhotoHash,
    /// Where it came from.
    pub path: String,
    /// Upright width in pixels.
    pub width: u32,
    /// Upright height in pixels.
    pub height: u32,
    /// What people say about it.
    pub metadata: Metadata,
    /// Faces to store.
    pub faces: Vec<NewFace>,
    /// Faces that were found and refused.
    pub refused: Vec<Refusal>,
}

/// A face that is ready to be committed.
#[derive(Clone, Debug)]
pub struct NewFace {
    /// Where it is.
    pub face: Face,
    /// What was measured.
    pub quality: Quality,
    /// Its embedding.
    pub embedding: Embedding,
    /// Whose face it is, when somebody said so.
    pub person: Option<String>,
}

impl NewPhoto {
    /// Adds what the recognizer saw. `person` is whom the photo is about, as when photos are sorted in a folder per
    /// person: that name goes to one face, the [`subject`], and bystanders stay unnamed. When the subject was refused
    /// nobody is named, for a bystander with the wrong name is worse than a face without one.
    #[must_use]
    pub fn with_faces(mut self, faces: Vec<RecognizedFace>, person: Option<&str>) -> Self {
        let bounds: Vec<Bounds> = faces.iter().map(|found| found.face.bounds).collect();
        let named = person.and_then(|_| subject(self.width, self.height, &bounds));
        for (at, found) in faces.into_iter().enumerate() {
            let person = person.filter(|_| named == Some(at)).map(str::to_owned);
            match found.outcome {
                Ok(embedding) => {
                    self.faces.push(NewFace { face: found.face, quality: found.quality, embedding, person });
                }
                Err(refusal) => self.refused.push(refusal),
            }
        }
        self
    }
}

/// Which face a photo is about: large and central. The greatest `area - 2 * offset²`, where `offset` is the distance
/// from the photo's centre to the face's, in pixels; the first of equals.
///
/// Source: the rule by which D. Sandberg's `facenet` picks LFW's faces (`align_dataset_mtcnn.py`).
pub fn subject(width: u32, height: u32, faces: &[Bounds]) -> Option<usize> {
    let weight = |face: &Bounds| {
        let dx = face.x + face.width / 2.0 - width as f32 / 2.0;
        let dy = face.y + face.height / 2.0 - height as f32 / 2.0;
        face.width * face.height - 2.0 * (dx * dx + dy * dy)
    };
    // `max_by` gives the last of equals, hence the reversal.
    let weighed = faces.iter().map(weight).enumerate().rev();
    weighed.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(at, _)| at)
}

/// What became of one photo of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Added {
    /// It was stored, with these faces (maybe none).
    New(Vec<FaceId>),
    /// Its bytes were there already; nothing was changed.
    Known(Vec<FaceId>),
}

/// How identify looks.
#[derive(Clone, Debug)]
pub struct IdentifyOptions {
    /// Nearest faces wanted.
    pub k: usize,
    /// Farthest squared distance that still counts as a match.
    pub within: f32,
    /// Only among these faces.
    pub filter: Option<Filter>,
    /// Compare with every stored face instead of asking the graph.
    pub exact: bool,
}

/// A stored face near the one asked about.
#[derive(Clone, Debug)]
pub struct NearFace {
    /// The stored face.
    pub record: FaceRecord,
    /// Squared distance, 0 to 4.
    pub distance: f32,
}

/// A person near the face asked about: what identify answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Match {
    /// The name.
    pub person: String,
    /// Squared distance of the person's nearest face.
    pub distance: f32,
    /// The odds that a stranger's face is that near: the model's false-accept rate at this distance, for one comparison.
    pub far: f64,
    /// The nearest face.
    pub face: FaceId,
}

/// Who one face is.
#[derive(Clone, Debug)]
pub struct Identified {
    /// The face that was asked about.
    pub face: Face,
    /// Why it could not be compared, if so; then the lists are empty.
    pub refusal: Option<Refusal>,
    /// The nearest stored faces within the threshold, nearest first.
    pub neighbors: Vec<NearFace>,
    /// The nearest named people within the threshold, nearest first; empty means unknown.
    pub people: Vec<Match>,
}

/// One side of a verification.
#[derive(Clone, Copy)]
pub enum Probe<'a> {
    /// The largest usable face of a photo.
    Photo(&'a Photo),
    /// A stored face.
    Face(FaceId),
}

/// Whether two faces are the same person.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verified {
    /// Whether the distance is within the threshold.
    pub same: bool,
    /// Squared distance, 0 to 4.
    pub distance: f32,
    /// The threshold that was used.
    pub within: f32,
    /// The odds that two strangers are that near.
    pub far: f64,
}

/// What cluster found in the whole gallery.
#[derive(Clone, Debug)]
pub struct Clustered {
    /// The faces, ascending by id.
    pub faces: Vec<FaceId>,
    /// Which group each belongs to.
    pub partition: Partition,
}

/// What to remove.
#[derive(Clone, Debug)]
pub enum Forget {
    /// One face.
    Face(FaceId),
    /// A photo and its faces.
    Photo(PhotoHash),
    /// Every face of a person; photos left without a face and a refusal go too.
    Person(String),
}

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
    /// Views that had to be rebuilt when the gallery was opened, with the reason.
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

#[expect(unused_variables, clippy::todo, reason = "the gallery lands next")]
impl Gallery {
    /// Opens a gallery, or starts one where the folder is missing or empty.
    ///
    /// # Errors
    /// `Locked`, `OtherModel`, `Version`, `Corrupt` (of the catalog; damaged views are rebuilt), `Io`.
    pub fn open(folder: &Path, recognizer: Recognizer) -> Result<Self> {
        todo!()
    }

    /// The recognizer that this gallery was opened with.
    pub fn recognizer(&self) -> &Recognizer {
        &self.recognizer
    }

    /// Commits a batch; returns when it is durable. All of it or nothing.
    ///
    /// # Errors
    /// `Argument` for metadata that is not flat; `Io` and friends.
    pub fn add(&self, photos: &[NewPhoto]) -> Result<Vec<Added>> {
        todo!()
    }

    /// Decodes, recognizes and commits one photo, given as its file's bytes. `person` is whom the photo is about
    /// (see [`NewPhoto::with_faces`]).
    ///
    /// # Errors
    /// `Photo` when the bytes can't be read, and those of [`add`](Self::add).
    pub fn ingest(&self, bytes: &[u8], path: &str, person: Option<&str>, metadata: Metadata) -> Result<Added> {
        todo!()
    }

    /// Who is in a photo: one answer a face, largest first.
    ///
    /// # Errors
    /// `Argument` for `k` of zero or a threshold outside 0 to 4.
    pub fn identify(&self, photo: &Photo, options: &IdentifyOptions) -> Result<Vec<Identified>> {
        todo!()
    }

    /// The nearest stored faces and people of one embedding.
    ///
    /// # Errors
    /// As [`identify`](Self::identify).
    pub fn nearest(&self, embedding: &Embedding, options: &IdentifyOptions) -> Result<(Vec<NearFace>, Vec<Match>)> {
        todo!()
    }

    /// Whether two faces are the same person: their distance against a threshold.
    ///
    /// # Errors
    /// `NoFace` when a photo shows no usable face, `NotFound` for an unknown id.
    pub fn verify(&self, a: Probe<'_>, b: Probe<'_>, within: f32) -> Result<Verified> {
        todo!()
    }

    /// Groups every stored face.
    ///
    /// # Errors
    /// `Argument` as [`crate::clustering::cluster`].
    pub fn cluster(&self, method: crate::clustering::Method) -> Result<Clustered> {
        todo!()
    }

    /// Removes faces; returns how many when that is durable. They are hidden from every answer at once.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn forget(&self, what: &Forget) -> Result<u64> {
        todo!()
    }

    /// Says whose face this is, or (`None`) that nobody knows.
    ///
    /// # Errors
    /// `NotFound`; `Argument` for an empty name.
    pub fn name_face(&self, face: FaceId, person: Option<&str>) -> Result<()> {
        todo!()
    }

    /// The names, by name.
    ///
    /// # Errors
    /// Only of storage.
    pub fn people(&self) -> Result<Vec<Person>> {
        todo!()
    }

    /// One stored face.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn face(&self, id: FaceId) -> Result<FaceRecord> {
        todo!()
    }

    /// Stored faces in ascending order of id, at most `limit`, from the first id at or above `from`.
    ///
    /// # Errors
    /// `Argument` for a filter that names an unusable range.
    pub fn faces(&self, filter: Option<&Filter>, from: FaceId, limit: usize) -> Result<Vec<FaceRecord>> {
        todo!()
    }

    /// One photo; `None` when it was never ingested (or was forgotten).
    ///
    /// # Errors
    /// Only of storage.
    pub fn photo(&self, hash: &PhotoHash) -> Result<Option<PhotoRecord>> {
        todo!()
    }

    /// What is in it.
    ///
    /// # Errors
    /// Only of storage.
    pub fn stats(&self) -> Result<Stats> {
        todo!()
    }

    /// Writes every view to disk, so that the next open has nothing to replay. Dropping does the same, ignoring errors.
    ///
    /// # Errors
    /// Only of storage.
    pub fn flush(&self) -> Result<()> {
        todo!()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_large_central_face_is_the_subject() {
        let face = |x, y, side| Bounds { x, y, width: side, height: side };
        let corner = face(0.0, 0.0, 60.0);
        let speck = face(88.0, 88.0, 8.0);
        assert_eq!(subject(180, 180, &[corner, face(60.0, 50.0, 70.0), speck]), Some(1));
        assert_eq!(subject(180, 180, &[speck, face(40.0, 20.0, 100.0)]), Some(1));
        assert_eq!(subject(180, 180, &[corner, corner]), Some(0));
        assert_eq!(subject(180, 180, &[]), None);
    }
}
