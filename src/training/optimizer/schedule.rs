//! How the learning rate changes along a run.

use serde::{Deserialize, Serialize};

/// What follows the warm-up, in which the learning rate rises in a straight line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Half a cosine, down to a thousandth at the last step (Loshchilov & Hutter 2017, arXiv:1608.03983, without restarts).
    #[default]
    Cosine,
    /// Times `factor` after each `every` steps from the end of the warm-up on.
    Step {
        /// Steps between two changes.
        every: u64,
        /// What each change multiplies by, 0 to 1.
        factor: f64,
    },
    /// The highest rate to the end.
    Constant,
}

/// The lowest share of the highest rate that the cosine falls to: a step of nothing would be wasted.
const LOWEST: f64 = 1e-3;

impl Schedule {
    /// The share of the highest learning rate that `step` trains with.
    ///
    /// - `step`: from 1 to `span.steps`.
    /// - Returns more than 0, at most 1: `step / warm_up` until `warm_up` is reached, then what the schedule says.
    pub fn share(&self, step: u64, span: Span) -> f64 {
        let Span { steps, warm_up } = span;
        if step < warm_up {
            return step as f64 / warm_up as f64;
        }
        let past = step - warm_up;
        match *self {
            Self::Constant => 1.0,
            Self::Step { every, factor } => factor.powf((past / every.max(1)) as f64),
            Self::Cosine => {
                let way = past as f64 / steps.saturating_sub(warm_up).max(1) as f64;
                (0.5 * (1.0 + (std::f64::consts::PI * way.min(1.0)).cos())).max(LOWEST)
            }
        }
    }
}

/// The steps of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// In all.
    pub steps: u64,
    /// Of these, until the highest learning rate is reached.
    pub warm_up: u64,
}
