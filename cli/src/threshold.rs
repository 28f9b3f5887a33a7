//! How near is near enough: a false-accept rate that was measured, or a distance that its user answers for.

use vultus::{Calibration, Task};

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

impl Threshold {
    /// The squared distance; what suits the task in a gallery of `faces` faces when nothing was asked for.
    ///
    /// # Errors
    /// A rate that was not measured, or a distance outside 0 to 4.
    pub(crate) fn distance(&self, calibration: &Calibration, task: Task, faces: u64) -> anyhow::Result<f32> {
        match (self.within, self.far) {
            (Some(within), _) if (0.0..=4.0).contains(&within) => Ok(within),
            (Some(within), _) => anyhow::bail!("--within: {within} is no squared distance, 0 to 4"),
            (None, Some(far)) => Ok(calibration.threshold(far)?),
            (None, None) => Ok(calibration.default_threshold(task, faces)?),
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
        let ask = |far, within, task| Threshold { far, within }.distance(calibration, task, 500);
        assert_eq!(ask(None, None, Task::Verify).unwrap(), calibration.threshold(1e-3).unwrap());
        assert_eq!(ask(None, None, Task::Identify).unwrap(), calibration.threshold(1e-4).unwrap());
        assert_eq!(ask(None, Some(0.7), Task::Identify).unwrap(), 0.7);
        assert!(ask(Some(1e-9), None, Task::Identify).is_err());
        assert!(ask(None, Some(4.1), Task::Identify).is_err());
        assert!(ask(None, Some(f32::NAN), Task::Identify).is_err());
    }
}
