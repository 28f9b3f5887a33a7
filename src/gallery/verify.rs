//! verify: are these two the same person?

use super::Gallery;
use super::identify::check_within;
use crate::catalog::FaceId;
use crate::{Embedding, Error, Photo, Result};

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

impl Gallery {
    /// Whether two faces are the same person: their distance against a threshold.
    ///
    /// ```
    /// # use vultus::{Gallery, Photo, Recognizer, gallery::Probe};
    /// # let folder = tempfile::tempdir()?;
    /// let gallery = Gallery::open(folder.path(), Recognizer::double())?;
    /// let orange = Photo::from_rgb(2, 1, vec![200, 90, 40, 200, 90, 40])?;
    /// let blue = Photo::from_rgb(2, 1, vec![10, 20, 240, 10, 20, 240])?;
    ///
    /// let within = gallery.recognizer().calibration().threshold(1e-3)?;
    /// assert!(gallery.verify(Probe::Photo(&orange), Probe::Photo(&orange), within)?.same);
    /// assert!(!gallery.verify(Probe::Photo(&orange), Probe::Photo(&blue), within)?.same);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `NoFace` when a photo shows no usable face, `NotFound` for an unknown id, `Argument` for a threshold outside 0 to 4.
    pub fn verify(&self, a: Probe<'_>, b: Probe<'_>, within: f32) -> Result<Verified> {
        check_within(within)?;
        let distance = self.embedding("first", a)?.distance(&self.embedding("second", b)?);
        let far = self.recognizer.calibration().far_at(distance);
        Ok(Verified { same: distance <= within, distance, within, far })
    }

    fn embedding(&self, which: &str, probe: Probe<'_>) -> Result<Embedding> {
        match probe {
            Probe::Face(id) => Ok(self.face(id)?.embedding),
            Probe::Photo(photo) => self.recognizer.embedding(photo).map_err(|error| match error {
                Error::NoFace { what } => Error::NoFace { what: format!("the {which} photo shows {what}") },
                other => other,
            }),
        }
    }
}
