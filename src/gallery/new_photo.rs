//! What is handed to a gallery: a photo that has been looked at, and which of its faces the photo is about.

use crate::catalog::{Metadata, PhotoHash};
use crate::face::{Quality, Refusal};
use crate::recognizer::RecognizedFace;
use crate::{Bounds, Embedding, Face};

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
