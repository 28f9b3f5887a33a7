//! Embeddings → people: which faces of a collection are the same person, without being told.
//!
//! Knows embeddings only. The cut, the mean distance up to which groups merge, comes from the model's calibration: a
//! number that is right for one model is nonsense for the next.

mod agreement;
mod kmeans;
mod linkage;
mod nearest;

use std::collections::HashMap;

pub use agreement::{Agreement, PrecisionRecall, agreement};

use crate::{Embedding, Error, Result};

/// Which group each input belongs to: labels count up from 0 in order of first appearance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// One label an input.
    pub labels: Vec<u32>,
}

impl Partition {
    /// Renames arbitrary labels.
    fn renamed(labels: Vec<u32>) -> Self {
        let mut names = HashMap::new();
        let mut rename = |label| {
            let next = names.len() as u32;
            *names.entry(label).or_insert(next)
        };
        Self { labels: labels.into_iter().map(&mut rename).collect() }
    }

    /// How many groups there are.
    pub fn groups(&self) -> usize {
        self.labels.iter().max().map_or(0, |last| *last as usize + 1)
    }
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
/// Average linkage does not depend on the order of the input either, apart from the labels' names: ties are broken by
/// content. It compares every face with every other, so time grows with the square of their number; memory with their
/// number, about 2.5 KiB a face.
///
/// # Errors
/// [`Error::Argument`] for a cut outside 0 to 4, or `k` of zero or above the number of inputs.
pub fn cluster(embeddings: &[Embedding], method: Method) -> Result<Partition> {
    if u32::try_from(embeddings.len()).is_err() {
        return Err(Error::argument("embeddings", "more than 4,294,967,295 of them"));
    }
    let labels = match method {
        Method::AverageLinkage { cut } => {
            if !(0.0..=4.0).contains(&cut) {
                return Err(Error::argument("cut", format!("a squared distance is 0 to 4, found {cut}")));
            }
            linkage::average_linkage(embeddings, cut)
        }
        Method::KMeans { k, seed } => {
            if k == 0 || k > embeddings.len() {
                let what = format!("from 1 to the number of faces, {}, found {k}", embeddings.len());
                return Err(Error::argument("k", what));
            }
            kmeans::k_means(embeddings, k, seed)
        }
    };
    Ok(Partition::renamed(labels))
}
