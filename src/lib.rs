//! Photos in, people out: the library behind the `vultus` program.
//!
//! bytes → [`Photo`] → [`Face`] → [`Crop`] → [`Embedding`] → neighbor → [`Match`](gallery::Match).
//!
//! A [`Recognizer`] holds weights and touches no disk; a [`Gallery`] holds a folder on disk and answers the
//! five verbs: ingest, forget, identify, verify, cluster. The modules below stand in suggested reading order.

mod calibration;
pub mod catalog;
pub mod clustering;
pub mod detect;
mod embedding;
mod error;
pub mod evaluation;
pub mod face;
pub mod gallery;
pub mod ingest;
pub mod model;
pub mod photo;
pub mod recognizer;
pub mod training;

pub use calibration::{Calibration, OperatingPoint, Task};
pub use embedding::Embedding;
pub use error::{Error, Result};
pub use face::{Bounds, Crop, Face, Landmarks};
pub use gallery::Gallery;
pub use photo::Photo;
pub use recognizer::Recognizer;
