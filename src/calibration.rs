//! What a distance means for one model: thresholds at stated false-accept rates, measured on held-out people.
//!
//! A threshold belongs to a model, its detector and its alignment; it is stored with the weights and is never a
//! constant in the code.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The distance below which a fraction `far` of pairs of different people falls.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperatingPoint {
    /// False-accept rate, 0 to 1.
    pub far: f64,
    /// Squared distance, 0 to 4.
    pub distance: f32,
    /// True-accept rate (the paper's VAL) at that distance.
    pub val: f64,
}

/// The operating points of one model, measured once on people that it was not trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Where it was measured, for people to read.
    pub data: String,
    /// Pairs of the same person behind the figures.
    pub same_pairs: u64,
    /// Pairs of different people behind the figures.
    pub different_pairs: u64,
    /// Ascending by `far` and by `distance`.
    pub points: Vec<OperatingPoint>,
}

impl Calibration {
    /// Measures operating points from the distances of labelled pairs.
    ///
    /// A false-accept rate with fewer than ten impostor pairs behind it is left out.
    ///
    /// # Errors
    /// [`Error::Argument`] if either list is empty or holds a value that is not finite.
    pub fn measure(data: &str, same: &[f32], different: &[f32]) -> Result<Self> {
        let _ = (data, same, different);
        todo!()
    }

    /// The threshold at a false-accept rate, between measured points interpolated in log FAR.
    ///
    /// # Errors
    /// [`Error::Argument`] when `far` lies outside what was measured: such a threshold would be a guess.
    pub fn threshold(&self, far: f64) -> Result<f32> {
        let _ = far;
        Err(Error::argument("far", "not measured"))
    }

    /// The fraction of pairs of different people that are at most this far apart: the odds that one comparison
    /// at this distance is a false match. Clamped to the measured range.
    pub fn far_at(&self, distance: f32) -> f64 {
        let _ = distance;
        todo!()
    }
}
