//! People, stored faces and figures of a gallery, as JSON.

use serde::{Deserialize, Serialize};
use vultus::gallery;

use super::face::StoredFace;

/// The names in a gallery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct People {
    /// By name.
    pub people: Vec<Person>,
}

impl From<&[gallery::Person]> for People {
    fn from(people: &[gallery::Person]) -> Self {
        Self { people: people.iter().map(Person::from).collect() }
    }
}

/// A name and how many faces carry it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// The name.
    pub name: String,
    /// How many faces carry it, within what was asked about.
    pub faces: u64,
}

impl From<&gallery::Person> for Person {
    fn from(person: &gallery::Person) -> Self {
        Self { name: person.name.clone(), faces: person.faces }
    }
}

/// Stored faces, one page of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Faces {
    /// Ascending by id.
    pub faces: Vec<StoredFace>,
    /// Where the next page starts; left out on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// What was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// Faces removed.
    pub removed: u64,
}

/// What is in a gallery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Stored photos.
    pub photos: u64,
    /// Stored faces.
    pub faces: u64,
    /// Distinct names.
    pub people: u64,
    /// Faces without a name.
    pub unnamed: u64,
    /// The digest of the model that made the embeddings.
    pub model: String,
    /// Bytes of all files.
    pub bytes: u64,
    /// Sequence number of the last commit.
    pub sequence: u64,
    /// What had to be rebuilt since the gallery was opened, with the reason.
    pub rebuilt: Vec<String>,
}

impl From<&gallery::Stats> for Stats {
    fn from(stats: &gallery::Stats) -> Self {
        Self {
            photos: stats.photos,
            faces: stats.faces,
            people: stats.people,
            unnamed: stats.unnamed,
            model: stats.model.clone(),
            bytes: stats.bytes,
            sequence: stats.sequence,
            rebuilt: stats.rebuilt.clone(),
        }
    }
}

/// Says that the server answers, and which one it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `ok`.
    pub status: String,
    /// The release of vultus.
    pub version: String,
    /// The digest of the model that is loaded.
    pub model: String,
}
