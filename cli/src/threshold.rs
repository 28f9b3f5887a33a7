//! How near is near enough: a false-accept rate that was measured, or a distance that its user answers for.

use vultus::Calibration;

/// A threshold, as its user gives it.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Threshold {
    /// Accept this share of strangers, as measured for the model: a false-accept rate such as 1e-3
    #[arg(long, value_name = "RATE", conflicts_with = "within")]
    far: Option<f64>,
    /// Accept up to this squared distance, 0 to 4
    #[arg(long, value_name = "DISTANCE")]
    within: Option<f32>,
}

/// What is used when nothing was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DefaultRate {
    /// Two faces, or two groups, are compared: one stranger in a thousand is accepted.
    Pair,
    /// A face is compared with everyone, so even a small rate adds up: the strictest that was measured for the model.
    Strictest,
}

impl DefaultRate {
    /// The squared distance.
    ///
    /// # Errors
    /// A model that was not measured at that rate.
    pub(crate) fn distance(self, calibration: &Calibration) -> vultus::Result<f32> {
        calibration.threshold(match self {
            Self::Pair => 1e-3,
            Self::Strictest => calibration.points.first().map_or(0.0, |point| point.far),
        })
    }
}

impl Threshold {
    /// The squared distance.
    ///
    /// # Errors
    /// A rate that was not measured, or a distance outside 0 to 4.
    pub(crate) fn distance(&self, calibration: &Calibration, default: DefaultRate) -> anyhow::Result<f32> {
        match (self.within, self.far) {
            (Some(within), _) if (0.0..=4.0).contains(&within) => Ok(within),
            (Some(within), _) => anyhow::bail!("--within: {within} is no squared distance, 0 to 4"),
            (None, Some(far)) => Ok(calibration.threshold(far)?),
            (None, None) => Ok(default.distance(calibration)?),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use super::*;
    use vultus::Recognizer;

    #[test]
    fn the_default_is_a_measured_rate_and_never_a_guess() {
        let recognizer = Recognizer::double();
        let calibration = recognizer.calibration();
        let ask = |far, within, default| Threshold { far, within }.distance(calibration, default);
        assert_eq!(ask(None, None, DefaultRate::Pair).unwrap(), calibration.threshold(1e-3).unwrap());
        assert_eq!(ask(None, None, DefaultRate::Strictest).unwrap(), calibration.points[0].distance);
        assert_eq!(ask(None, Some(0.7), DefaultRate::Strictest).unwrap(), 0.7);
        assert!(ask(Some(1e-9), None, DefaultRate::Strictest).is_err());
        assert!(ask(None, Some(4.1), DefaultRate::Strictest).is_err());
        assert!(ask(None, Some(f32::NAN), DefaultRate::Strictest).is_err());
    }
}
