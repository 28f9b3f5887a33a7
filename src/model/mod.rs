//! Crop → embedding: the network in candle, the convolution it is trained with, and its weights.

pub mod conv;
mod device;
pub mod double;
#[cfg(all(test, feature = "cuda"))]
mod gpu_tests;
pub(crate) mod graph;
pub(crate) mod kernel;
pub mod network;
pub(crate) mod norm;
pub(crate) mod onnx;
pub(crate) mod plan;
pub mod weights;

pub use device::{Compute, Precision};
pub use plan::LayerTime;

/// Whether the environment's `VULTUS_CPU_LEVEL`, if it is set, names instructions that this CPU has: `portable`, `avx2` or `avx512`.
/// The library ignores another name; a program had better say so.
///
/// # Errors
/// `Argument` with the levels of this CPU.
pub fn check_cpu_level() -> Result<()> {
    kernel::Level::named().map(|_| ())
}

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
