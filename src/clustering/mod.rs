//! Embeddings → people: which faces of a collection are the same person, without being told.

use crate::{Embedding, Result};

/// Which group each input belongs to: labels count up from 0 in order of first appearance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// One label an input.
    pub labels: Vec<u32>,
}

/// How faces are grouped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// Exact average linkage: groups merge while the mean squared distance between their members is at most `cut`.
    AverageLinkage {
        /// Squared distance, 0 to 4.
        cut: f32,
    },
    /// Spherical k-means with k-means++ seeding.
    KMeans {
        /// Number of groups wanted.
        k: usize,
        /// Seed of the initial centres.
        seed: u64,
    },
}

/// Groups embeddings; the result does not depend on the number of threads.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) for a cut outside 0 to 4, or `k` of zero or above the number of inputs.
pub fn cluster(embeddings: &[Embedding], method: Method) -> Result<Partition> {
    let _ = (embeddings, method);
    todo!()
}

/// How well a partition agrees with the truth.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Agreement {
    /// BCubed precision, recall and F.
    pub bcubed: PrecisionRecall,
    /// The same over pairs of inputs.
    pub pairwise: PrecisionRecall,
}

/// Precision, recall and their harmonic mean, each 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct PrecisionRecall {
    /// Of what was put together, the share that belongs together.
    pub precision: f64,
    /// Of what belongs together, the share that was put together.
    pub recall: f64,
    /// Harmonic mean.
    pub f: f64,
}

/// Compares `found` with `truth`, any labels, same length.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) when the lengths differ or are zero.
pub fn agreement(found: &[u32], truth: &[u32]) -> Result<Agreement> {
    let _ = (found, truth);
    todo!()
}
