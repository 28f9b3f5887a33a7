//! Labelled crops → weights: data, sampler, augmentation, batches made ahead, triplet loss and mining, optimisers, checkpoints.
//!
//! Follows the FaceNet paper (Schroff et al. 2015, arXiv:1503.03832, section 3). A step is a function of the seed, the step's number and
//! the state in the checkpoint, nothing else: a run that is resumed takes the steps that it would have taken.

pub mod augment;
mod checkpoint;
pub mod data;
pub mod loss;
mod optimizer;
mod pipeline;
pub mod recipe;
mod run;
pub mod sampler;
mod trainer;

pub use crate::model::Precision;
pub use optimizer::Optimizer;
pub use optimizer::schedule::{Schedule, Span};
pub use recipe::{Begin, Recipe, Softmax, Stage, Triplets};
pub use run::{Observer, Output, Report, calibrate, sources, train};
pub use trainer::{Outcome, Trainer};
