//! Crop → embedding: the network in candle, the convolution it is trained with, and its weights.

pub mod conv;
pub mod double;
pub(crate) mod graph;
pub(crate) mod kernel;
pub mod network;
pub(crate) mod norm;
pub(crate) mod onnx;
pub(crate) mod plan;
pub mod weights;

pub use plan::LayerTime;

use crate::{Calibration, Crop, Embedding, Result, face::Alignment};

/// Turns crops into embeddings.
pub trait Embed: Send + Sync {
    /// One embedding a crop, in order.
    ///
    /// # Errors
    /// Only when the computation itself fails.
    fn embed(&self, crops: &[Crop]) -> Result<Vec<Embedding>>;

    /// Hex digest of the weights: embeddings of two digests are never compared.
    fn digest(&self) -> &str;

    /// What distances mean for these weights.
    fn calibration(&self) -> &Calibration;

    /// The alignment that the weights were trained for.
    fn alignment(&self) -> Alignment;
}
