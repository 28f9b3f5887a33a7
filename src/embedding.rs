//! The 128 numbers that stand for a face, and the distance between two of them.

use crate::{Error, Result};

/// A face as a point on the unit sphere: 128 `f32`, unit length.
#[derive(Clone, PartialEq)]
pub struct Embedding([f32; Self::DIMENSIONS]);

impl Embedding {
    /// Numbers in an embedding, as in the FaceNet paper (section 5.4).
    pub const DIMENSIONS: usize = 128;

    /// Scales `values` to unit length.
    ///
    /// # Errors
    /// [`Error::Argument`] unless there are 128 finite values whose length is not zero.
    pub fn normalized(values: &[f32]) -> Result<Self> {
        let values: [f32; Self::DIMENSIONS] = values
            .try_into()
            .map_err(|_| Error::argument("embedding", format!("expected 128 values, found {}", values.len())))?;
        let length = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        if !length.is_finite() || length < 1e-12 {
            return Err(Error::argument("embedding", "its length is zero or not finite"));
        }
        Ok(Self(values.map(|v| (f64::from(v) / length) as f32)))
    }

    /// Values that were an embedding before they were stored, bit for bit; `None` unless they are of unit length.
    pub(crate) fn from_stored(values: [f32; Self::DIMENSIONS]) -> Option<Self> {
        let squared_length: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
        ((squared_length - 1.0).abs() < 1e-3).then_some(Self(values))
    }

    /// The 128 values.
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }

    /// Squared Euclidean distance, 0 to 4: the D of the FaceNet paper.
    pub fn distance(&self, other: &Self) -> f32 {
        self.0.iter().zip(&other.0).map(|(a, b)| (a - b) * (a - b)).sum()
    }
}

impl std::fmt::Debug for Embedding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Embedding([{:.3}, {:.3}, …])", self.0[0], self.0[1])
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]
mod tests {
    use super::*;

    #[test]
    fn distance_runs_from_zero_to_four() {
        let mut values = [0.0; 128];
        values[3] = 5.0;
        let a = Embedding::normalized(&values).unwrap();
        values[3] = -0.1;
        let opposite = Embedding::normalized(&values).unwrap();
        assert_eq!(a.distance(&a), 0.0);
        assert_eq!(a.distance(&opposite), 4.0);
    }

    #[test]
    fn zero_nan_and_short_input_are_refused() {
        assert!(Embedding::normalized(&[0.0; 128]).is_err());
        assert!(Embedding::normalized(&[f32::NAN; 128]).is_err());
        assert!(Embedding::normalized(&[1.0; 127]).is_err());
    }
}
