//! What vultus says as JSON: one definition, used by HTTP answers and by the program's `--json`.
//!
//! Library types are never `Serialize`, so that they can change while these stay. A field is never renamed
//! or removed within `/v1`; new ones may appear, so a client ignores what it does not know. Distances are
//! squared Euclidean between unit vectors, 0 to 4. A field that does not apply is left out.

mod cluster;
mod face;
mod identify;
mod ingest;
mod people;
mod problem;

pub use cluster::{Agreement, Cluster, Group, PrecisionRecall};
pub use face::{Bounds, Face, Landmarks, Quality, Refusal, StoredFace};
pub use identify::{Identified, IdentifiedFace, Match, Neighbor, Verified};
pub use ingest::{Ingested, IngestedOutcome, Progress};
pub use people::{Faces, Forgotten, Health, People, Person, Stats};
pub use problem::Problem;
