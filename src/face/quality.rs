//! Whether a face is good enough to be embedded, and if not, why.

use std::fmt;

use super::{Crop, Face};

/// What can be said about a face before it is embedded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// The shorter side of the bounds, in pixels.
    pub face_px: f32,
    /// Variance of the Laplacian of the grey crop; small is blurred.
    pub sharpness: f32,
    /// Degrees from frontal, positive to the right of the photo; estimated from the landmarks.
    pub yaw: f32,
    /// Degrees in the plane of the photo, positive clockwise.
    pub roll: f32,
    /// The detector's probability, 0 to 1.
    pub confidence: f32,
}

impl Quality {
    /// Measures a face and its crop. Every figure is finite and none but the angles negative; what can't be known is 0.
    pub fn measure(face: &Face, crop: &Crop) -> Self {
        let known = |value: f32| if value.is_finite() { value.max(0.0) } else { 0.0 };
        Self {
            face_px: known(face.bounds.width.min(face.bounds.height)),
            sharpness: sharpness(crop),
            yaw: face.landmarks.yaw(),
            roll: face.landmarks.roll(),
            confidence: known(face.confidence),
        }
    }
}

/// Variance of the four-neighbour Laplacian of the luma (BT.601), borders left out.
fn sharpness(crop: &Crop) -> f32 {
    let side = Crop::SIDE;
    let luma = |[r, g, b]: &[u8; 3]| 0.299 * f32::from(*r) + 0.587 * f32::from(*g) + 0.114 * f32::from(*b);
    let grey: Vec<f32> = crop.pixels().as_chunks::<3>().0.iter().map(luma).collect();
    let (mut sum, mut squares) = (0.0f64, 0.0f64);
    for y in 1..side - 1 {
        for at in y * side + 1..(y + 1) * side - 1 {
            let value = grey[at - side] + grey[at + side] + grey[at - 1] + grey[at + 1] - 4.0 * grey[at];
            sum += f64::from(value);
            squares += f64::from(value * value);
        }
    }
    let count = ((side - 2) * (side - 2)) as f64;
    (squares / count - (sum / count).powi(2)).max(0.0) as f32
}

/// What a face must have to be embedded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QualityLimits {
    /// Smallest `face_px` accepted.
    pub face_px_min: f32,
    /// Smallest sharpness accepted.
    pub sharpness_min: f32,
    /// Largest yaw accepted, degrees to either side.
    pub yaw_max: f32,
    /// Smallest confidence accepted.
    pub confidence_min: f32,
}

impl Default for QualityLimits {
    /// Refuses what no photo of people should hold, and nearly nothing else. Of 401 photos of LFW the extremes are 74 px, sharpness 25,
    /// 47 degrees and .99; of 190 rendered people, who are smooth and turn far, 58 px, 12, 60 degrees and .72 (the original
    /// detector, aligned to the template).
    fn default() -> Self {
        Self { face_px_min: 24.0, sharpness_min: 6.0, yaw_max: 70.0, confidence_min: 0.7 }
    }
}

impl QualityLimits {
    /// Refuses nothing.
    pub const NONE: Self = Self { face_px_min: 0.0, sharpness_min: 0.0, yaw_max: 180.0, confidence_min: 0.0 };

    /// The first reason to refuse, if any: size, then confidence, pose and sharpness.
    pub fn check(&self, quality: &Quality) -> Option<Refusal> {
        let Quality { face_px, sharpness, yaw, confidence, .. } = *quality;
        if face_px < self.face_px_min {
            Some(Refusal::TooSmall { found: face_px, limit: self.face_px_min })
        } else if confidence < self.confidence_min {
            Some(Refusal::LowConfidence { found: confidence, limit: self.confidence_min })
        } else if yaw.abs() > self.yaw_max {
            Some(Refusal::TooTurned { found: yaw.abs(), limit: self.yaw_max })
        } else if sharpness < self.sharpness_min {
            Some(Refusal::TooBlurred { found: sharpness, limit: self.sharpness_min })
        } else {
            None
        }
    }
}

/// Why a face was found but not used. `Display` gives the figure and the limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Refusal {
    /// The face covers too few pixels.
    TooSmall {
        /// Pixels on the shorter side.
        found: f32,
        /// Pixels needed.
        limit: f32,
    },
    /// The crop is too blurred.
    TooBlurred {
        /// Variance of the Laplacian.
        found: f32,
        /// Variance needed.
        limit: f32,
    },
    /// The head is turned too far.
    TooTurned {
        /// Degrees from frontal.
        found: f32,
        /// Degrees allowed.
        limit: f32,
    },
    /// The detector is not sure enough.
    LowConfidence {
        /// Probability.
        found: f32,
        /// Probability needed.
        limit: f32,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSmall { found, limit } => write!(f, "too small: {found:.0} px, at least {limit:.0} needed"),
            Self::TooBlurred { found, limit } => {
                write!(f, "too blurred: sharpness {found:.1}, at least {limit:.1} needed")
            }
            Self::TooTurned { found, limit } => write!(f, "too turned: {found:.0} degrees, at most {limit:.0} allowed"),
            Self::LowConfidence { found, limit } => {
                write!(f, "low confidence: {found:.2}, at least {limit:.2} needed")
            }
        }
    }
}

impl std::error::Error for Refusal {}
