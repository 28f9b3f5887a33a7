//! What shapes every step of a run, and which of it makes sense.

use serde::{Deserialize, Serialize};

use super::augment::Augmentation;
use super::optimizer::Optimizer;
use super::optimizer::schedule::{Schedule, Span};
use crate::model::Precision;
use crate::model::network::NetworkConfig;
use crate::{Error, Result};

/// What shapes every step of a run; a checkpoint can only be resumed with the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// The size of the network.
    pub network: NetworkConfig,
    /// People in a batch (P).
    pub people: usize,
    /// Crops of each (K).
    pub crops: usize,
    /// The triplet margin, a squared distance.
    pub margin: f32,
    /// Steps in all.
    pub steps: u64,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// How the learning rate changes along the run.
    pub schedule: Schedule,
    /// Steps until the highest learning rate is reached.
    pub warm_up: u64,
    /// How gradients change weights.
    pub optimizer: Optimizer,
    /// Weight decay, of matrices and kernels.
    pub weight_decay: f64,
    /// The longest that all gradients together may be, as one vector: a longer one is shortened (Pascanu et al. 2013, arXiv:1211.5063).
    pub clip: Option<f64>,
    /// Decay of the averaged weights; with it, these are evaluated and returned.
    pub ema: Option<f64>,
    /// Numbers that the network computes in.
    pub precision: Precision,
    /// How crops are changed.
    pub augmentation: Augmentation,
    /// Seed of the first weights, the batches and the augmentation.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            network: NetworkConfig::default(),
            people: 32,
            crops: 4,
            margin: 0.2,
            steps: 3000,
            learning_rate: 1e-3,
            schedule: Schedule::default(),
            warm_up: 150,
            optimizer: Optimizer::default(),
            weight_decay: 5e-4,
            clip: None,
            ema: None,
            precision: Precision::default(),
            augmentation: Augmentation::default(),
            seed: 1,
        }
    }
}

impl Options {
    /// Whether such a run can be made.
    ///
    /// # Errors
    /// `Argument` with the option's name, what was expected and what was found; `Tensor` for an unreasonable network.
    pub fn check(&self) -> Result<()> {
        let range = |name: &'static str, value: f64, sense: bool, expected: &str| match sense && value.is_finite() {
            true => Ok(()),
            false => Err(Error::argument(name, format!("{value}: expected {expected}"))),
        };
        let share = |name, value: f64| range(name, value, (0.0..1.0).contains(&value), "at least 0 and below 1");
        self.network.check()?;
        self.precision.dtype()?;
        let margin = f64::from(self.margin);
        range("margin", margin, margin > 0.0 && margin <= 4.0, "a squared distance above 0, at most 4")?;
        range("steps", self.steps as f64, self.steps > 0, "at least one")?;
        range("learning rate", self.learning_rate, self.learning_rate > 0.0, "a number above 0")?;
        range("warm-up", self.warm_up as f64, self.warm_up <= self.steps, "at most as many steps as the run has")?;
        range("weight decay", self.weight_decay, self.weight_decay >= 0.0, "a number of at least 0")?;
        if let Schedule::Step { every, factor } = self.schedule {
            range("schedule", every as f64, every > 0, "at least one step between two changes")?;
            range("schedule", factor, factor > 0.0 && factor <= 1.0, "a factor above 0, at most 1")?;
        }
        match self.optimizer {
            Optimizer::Sgd { momentum, .. } => share("momentum", momentum)?,
            Optimizer::AdamW { beta_1, beta_2 } => {
                share("beta 1", beta_1)?;
                share("beta 2", beta_2)?;
            }
            Optimizer::AdaGrad => {}
        }
        if let Some(clip) = self.clip {
            range("clip", clip, clip > 0.0, "a length above 0")?;
        }
        self.ema.map_or(Ok(()), |decay| share("ema", decay))
    }

    /// The learning rate of a step, counted from 1.
    pub fn learning_rate_at(&self, step: u64) -> f64 {
        self.learning_rate * self.schedule.share(step, Span { steps: self.steps, warm_up: self.warm_up })
    }
}
