//! A face in a photo: where it is, how it is aligned to a crop, and whether it is good enough to use.
//!
//! Geometry and grey levels only: who found the face, and what its crop is used for, is others' business.

mod alignment;
mod bounds;
mod crop;
mod landmarks;
mod quality;

pub use alignment::Alignment;
pub use bounds::Bounds;
pub use crop::Crop;
pub(crate) use crop::{mirror, template};
pub use landmarks::Landmarks;
pub use quality::{Quality, QualityLimits, Refusal};

use std::fmt;

/// A face that a detector found in one photo. `Display` gives its bounds: `40,32 96x120`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Face {
    /// Where it is.
    pub bounds: Bounds,
    /// Its five points.
    pub landmarks: Landmarks,
    /// The detector's probability, 0 to 1.
    pub confidence: f32,
}

impl fmt::Display for Face {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bounds.fmt(f)
    }
}
