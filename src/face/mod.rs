//! A face in a photo: where it is, how it is aligned to a crop, and whether it is good enough to use.

use crate::{Photo, Result};

/// An upright rectangle in pixels of the upright photo; may reach beyond its edges.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Left edge.
    pub x: f32,
    /// Top edge.
    pub y: f32,
    /// Width, positive.
    pub width: f32,
    /// Height, positive.
    pub height: f32,
}

/// Left eye, right eye, nose, left and right mouth corner (as seen in the photo), each `[x, y]` in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Landmarks(pub [[f32; 2]; 5]);

/// A face that a detector found in one photo.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Face {
    /// Where it is.
    pub bounds: Bounds,
    /// Its five points.
    pub landmarks: Landmarks,
    /// The detector's probability, 0 to 1.
    pub confidence: f32,
}

/// One face, cut out of its photo: 112 x 112 RGB.
#[derive(Clone, PartialEq, Eq)]
pub struct Crop(Vec<u8>);

impl Crop {
    /// Pixels on a side.
    pub const SIDE: usize = 112;

    /// Takes `112 * 112 * 3` bytes, rows from the top.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for any other length.
    pub fn from_rgb(pixels: Vec<u8>) -> Result<Self> {
        if pixels.len() != Self::SIDE * Self::SIDE * 3 {
            let what = format!("a crop is 112 x 112 RGB, 37632 bytes; found {}", pixels.len());
            return Err(crate::Error::argument("crop", what));
        }
        Ok(Self(pixels))
    }

    /// The bytes, `(112, 112, 3)`.
    pub fn pixels(&self) -> &[u8] {
        &self.0
    }
}

/// How a face becomes a crop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alignment {
    /// Least-squares similarity of the five landmarks to the usual 112 x 112 template.
    #[default]
    Landmarks,
    /// The detector's box alone, as in the FaceNet paper (section 4.1: "tight crop").
    Tight,
}

impl Alignment {
    /// Cuts one face out of its photo.
    pub fn crop(self, photo: &Photo, face: &Face) -> Crop {
        let _ = (photo, face);
        todo!()
    }
}

/// What can be said about a face before it is embedded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// The shorter side of the bounds, in pixels.
    pub face_px: f32,
    /// Variance of the Laplacian of the grey crop; small is blurred.
    pub sharpness: f32,
    /// Degrees from frontal, left and right; estimated from the landmarks.
    pub yaw: f32,
    /// Degrees in the plane of the photo.
    pub roll: f32,
    /// The detector's probability, 0 to 1.
    pub confidence: f32,
}

impl Quality {
    /// Measures a face and its crop.
    pub fn measure(face: &Face, crop: &Crop) -> Self {
        let _ = (face, crop);
        todo!()
    }
}

/// What a face must have to be embedded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QualityLimits {
    /// Smallest `face_px` accepted.
    pub face_px_min: f32,
    /// Smallest sharpness accepted.
    pub sharpness_min: f32,
    /// Largest yaw accepted, degrees.
    pub yaw_max: f32,
    /// Smallest confidence accepted.
    pub confidence_min: f32,
}

impl Default for QualityLimits {
    fn default() -> Self {
        Self { face_px_min: 24.0, sharpness_min: 8.0, yaw_max: 75.0, confidence_min: 0.8 }
    }
}

impl QualityLimits {
    /// Refuses nothing.
    pub const NONE: Self = Self { face_px_min: 0.0, sharpness_min: 0.0, yaw_max: 180.0, confidence_min: 0.0 };

    /// The first reason to refuse, if any.
    pub fn check(&self, quality: &Quality) -> Option<Refusal> {
        let _ = quality;
        todo!()
    }
}

/// Why a face was found but not used. `Display` gives the figure and the limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Refusal {
    /// The face covers too few pixels.
    TooSmall {
        /** pixels */
        found: f32,
        /** pixels */
        limit: f32,
    },
    /// The crop is too blurred.
    TooBlurred {
        /** sharpness */
        found: f32,
        /** sharpness */
        limit: f32,
    },
    /// The head is turned too far.
    TooTurned {
        /** degrees */
        found: f32,
        /** degrees */
        limit: f32,
    },
    /// The detector is not sure enough.
    LowConfidence {
        /** probability */
        found: f32,
        /** probability */
        limit: f32,
    },
}
