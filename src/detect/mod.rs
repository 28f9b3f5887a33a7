//! Photo → faces.
//!
//! [`Mtcnn`] is the detector that ships; [`double`] stands in for it where a test is about something else.

mod candidate;
pub mod double;
mod mtcnn;
mod nets;
mod pyramid;

pub use mtcnn::{Mtcnn, MtcnnOptions};
pub use nets::MtcnnNet;

use crate::{Face, Photo, Result};

/// Finds faces in a photo, largest first.
pub trait Detect: Send + Sync {
    /// All faces of an upright photo; none is not an error.
    ///
    /// # Errors
    /// Only when the computation itself fails.
    fn detect(&self, photo: &Photo) -> Result<Vec<Face>>;

    /// What goes into a face's provenance, for example `mtcnn-1`.
    fn name(&self) -> &str;
}
