//! Who is in a photo, and whether two faces are one person, as JSON.

use serde::{Deserialize, Serialize};
use vultus::gallery;

use super::face::{Bounds, Face, Refusal};

/// The answer of identify: one entry for each face of the photo, largest first; empty when no face was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identified {
    /// The faces.
    pub faces: Vec<IdentifiedFace>,
    /// The farthest squared distance that counted as a match.
    pub within: f32,
}

impl Identified {
    /// The answer of [`vultus::Gallery::identify`] under the threshold that was used.
    pub fn new(faces: &[gallery::Identified], within: f32) -> Self {
        Self { faces: faces.iter().map(IdentifiedFace::from).collect(), within }
    }
}

/// Who one face of the photo is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IdentifiedFace {
    /// Where it is, its landmarks and its confidence, as members of the same object.
    #[serde(flatten)]
    pub face: Face,
    /// Why it could not be compared, if so; then both lists are empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// The nearest named people within the threshold, nearest first; empty means unknown.
    pub people: Vec<Match>,
    /// The nearest stored faces within the threshold, named or not, nearest first.
    pub neighbors: Vec<Neighbor>,
}

impl From<&gallery::Identified> for IdentifiedFace {
    fn from(identified: &gallery::Identified) -> Self {
        Self {
            face: Face::from(&identified.face),
            refusal: identified.refusal.as_ref().map(Refusal::from),
            people: identified.people.iter().map(Match::from).collect(),
            neighbors: identified.neighbors.iter().map(Neighbor::from).collect(),
        }
    }
}

/// A person near the face that was asked about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Match {
    /// The name.
    pub person: String,
    /// Squared distance of the person's nearest face.
    pub distance: f32,
    /// The odds that a stranger's face is that near, for one comparison.
    pub far: f64,
    /// The id of that nearest face.
    pub face: u64,
}

impl From<&gallery::Match> for Match {
    fn from(found: &gallery::Match) -> Self {
        Self { person: found.person.clone(), distance: found.distance, far: found.far, face: found.face.0 }
    }
}

/// A stored face near the one that was asked about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Neighbor {
    /// The stored face's id.
    pub face: u64,
    /// The photo that it is in, 64 hex digits.
    pub photo: String,
    /// Where it is in that photo.
    pub bounds: Bounds,
    /// Whose face it is, when somebody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
    /// Squared distance, 0 to 4.
    pub distance: f32,
}

impl From<&gallery::NearFace> for Neighbor {
    fn from(near: &gallery::NearFace) -> Self {
        Self {
            face: near.record.id.0,
            photo: near.record.photo.to_string(),
            bounds: Bounds::from(&near.record.face.bounds),
            person: near.record.person.clone(),
            distance: near.distance,
        }
    }
}

/// Whether two faces are the same person.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
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

impl From<&gallery::Verified> for Verified {
    fn from(verified: &gallery::Verified) -> Self {
        Self { same: verified.same, distance: verified.distance, within: verified.within, far: verified.far }
    }
}
