//! A face as JSON: where it is, how good it is, and what is stored of it.

use serde::{Deserialize, Serialize};
use vultus::catalog::FaceRecord;

/// An upright rectangle in pixels of the upright photo; may reach beyond its edges.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
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

impl From<&vultus::Bounds> for Bounds {
    fn from(bounds: &vultus::Bounds) -> Self {
        Self { x: bounds.x, y: bounds.y, width: bounds.width, height: bounds.height }
    }
}

/// Five points, each `[x, y]` in pixels of the upright photo; left and right as seen in the photo.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Landmarks {
    /// Centre of the eye on the left.
    pub left_eye: [f32; 2],
    /// Centre of the eye on the right.
    pub right_eye: [f32; 2],
    /// Tip of the nose.
    pub nose: [f32; 2],
    /// Corner of the mouth on the left.
    pub left_mouth: [f32; 2],
    /// Corner of the mouth on the right.
    pub right_mouth: [f32; 2],
}

impl From<&vultus::Landmarks> for Landmarks {
    fn from(landmarks: &vultus::Landmarks) -> Self {
        let [left_eye, right_eye, nose, left_mouth, right_mouth] = landmarks.0;
        Self { left_eye, right_eye, nose, left_mouth, right_mouth }
    }
}

/// A face that was found in a photo.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Face {
    /// Where it is.
    pub bounds: Bounds,
    /// Its five points.
    pub landmarks: Landmarks,
    /// The detector's probability, 0 to 1.
    pub confidence: f32,
}

impl From<&vultus::Face> for Face {
    fn from(face: &vultus::Face) -> Self {
        Self {
            bounds: Bounds::from(&face.bounds),
            landmarks: Landmarks::from(&face.landmarks),
            confidence: face.confidence,
        }
    }
}

/// What was measured of a face before it was embedded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// The shorter side of the bounds, in pixels.
    pub face_px: f32,
    /// Variance of the Laplacian of the grey crop; small is blurred.
    pub sharpness: f32,
    /// Degrees from frontal, left and right.
    pub yaw: f32,
    /// Degrees in the plane of the photo.
    pub roll: f32,
}

impl From<&vultus::face::Quality> for Quality {
    fn from(quality: &vultus::face::Quality) -> Self {
        Self { face_px: quality.face_px, sharpness: quality.sharpness, yaw: quality.yaw, roll: quality.roll }
    }
}

/// Why a face was found but not used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// `too_small`, `too_blurred`, `too_turned` or `low_confidence`.
    pub reason: String,
    /// What was measured: pixels, sharpness, degrees or probability.
    pub found: f32,
    /// What was asked, in the same unit.
    pub limit: f32,
}

impl From<&vultus::face::Refusal> for Refusal {
    fn from(refusal: &vultus::face::Refusal) -> Self {
        use vultus::face::Refusal::{LowConfidence, TooBlurred, TooSmall, TooTurned};
        let (reason, found, limit) = match *refusal {
            TooSmall { found, limit } => ("too_small", found, limit),
            TooBlurred { found, limit } => ("too_blurred", found, limit),
            TooTurned { found, limit } => ("too_turned", found, limit),
            LowConfidence { found, limit } => ("low_confidence", found, limit),
        };
        Self { reason: reason.to_owned(), found, limit }
    }
}

/// A face in the gallery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredFace {
    /// Its id: given once, never reused.
    pub id: u64,
    /// The photo that it is in: 64 hex digits, the BLAKE3 hash of the file.
    pub photo: String,
    /// Whose face it is, when somebody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
    /// Where it is, its landmarks and its confidence, as members of the same object.
    #[serde(flatten)]
    pub face: Face,
    /// What was measured when it was ingested.
    pub quality: Quality,
}

impl From<&FaceRecord> for StoredFace {
    fn from(record: &FaceRecord) -> Self {
        Self {
            id: record.id.0,
            photo: record.photo.to_string(),
            person: record.person.clone(),
            face: Face::from(&record.face),
            quality: Quality::from(&record.quality),
        }
    }
}
