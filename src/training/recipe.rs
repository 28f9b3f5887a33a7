//! What shapes every step of a run, as data: the network and the stages that it goes through.
//!
//! A recipe is a TOML file. A curriculum is its stages: each has its own input side, batches, loss, mining, augmentation and learning rate, and begins
//! with the weights that the one before ended with. Training it twice from the same seed takes the same steps.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::augment::Augmentation;
use super::loss::Mining;
use super::optimizer::Optimizer;
use super::optimizer::schedule::{Schedule, Span};
use super::sampler::Batches;
use crate::model::Precision;
use crate::model::network::NetworkConfig;
use crate::{Error, Result};

/// A run from fresh weights to the last step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Seed of the first weights, the batches and the augmentation.
    pub seed: u64,
    /// Letters of a person's name that say which collection they are from: negatives and the classes of a softmax come from the same one.
    #[serde(default)]
    pub source_letters: usize,
    /// Numbers that the network computes in.
    #[serde(default)]
    pub precision: Precision,
    /// What the run begins with instead of fresh weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begin: Option<Begin>,
    /// The network that comes out.
    pub network: NetworkConfig,
    /// What it goes through, one after the other.
    #[serde(rename = "stage")]
    pub stages: Vec<Stage>,
}

/// Weights of another run of the same network. A person's direction in a softmax is then the mean of their embeddings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Begin {
    /// The file; in a recipe file, as seen from there.
    pub weights: PathBuf,
    /// Its digest, so that the recipe means one file wherever it lies.
    pub digest: String,
}

/// Some steps of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// What it is called in reports.
    pub name: String,
    /// How many steps.
    pub steps: u64,
    /// Pixels on a side of the input, where they are not the network's own: the head's weights are resized when this changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_side: Option<usize>,
    /// How crops are drawn.
    pub batch: Batches,
    /// Cross entropy with a margin over the people of a source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub softmax: Option<Softmax>,
    /// Triplet loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub triplets: Option<Triplets>,
    /// How gradients change weights.
    #[serde(default)]
    pub optimizer: Optimizer,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// How the learning rate changes along the stage.
    #[serde(default)]
    pub schedule: Schedule,
    /// Steps until the highest learning rate is reached.
    #[serde(default)]
    pub warm_up: u64,
    /// Weight decay, of matrices and kernels.
    #[serde(default)]
    pub weight_decay: f64,
    /// The longest that all gradients together may be, as one vector: a longer one is shortened (Pascanu et al. 2013, arXiv:1211.5063).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
    /// Decay of the averaged weights; with it, these are evaluated, and what the next stage begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema: Option<f64>,
    /// Chance that one of the numbers that the head reads is left out: Srivastava et al. 2014 (JMLR 15).
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub dropout: f32,
    /// How crops are changed.
    #[serde(default)]
    pub augmentation: Augmentation,
}

/// Cross entropy over the people of a source, of cosines from which the right one's had a margin taken: Wang et al. 2018 (CosFace,
/// arXiv:1801.09414), equation 4.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Softmax {
    /// What cosines are multiplied by.
    pub scale: f32,
    /// What is taken from the right one's, 0 to 1.
    pub margin: f32,
    /// Steps in which the margin grows from nothing in a straight line.
    #[serde(default)]
    pub ramp: u64,
    /// Share of a batch, those whose own person is the least likely, that is not learned from: labels are wrong at times.
    #[serde(default)]
    pub trim: f32,
    /// Share in the loss.
    #[serde(default = "one")]
    pub weight: f32,
}

/// Triplet loss, and which triplets of a batch it takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Triplets {
    /// Which triplets.
    #[serde(default)]
    pub mining: Mining,
    /// Faces of the batches before that are remembered as they were embedded, to be positives and negatives: Wang et al. 2020 (arXiv:1912.06798).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub memory: usize,
    /// A squared distance; none for the soft margin, `ln(1 + exp(d(a, p) - d(a, n)))`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f32>,
    /// Share in the loss.
    #[serde(default = "one")]
    pub weight: f32,
}

/// What a recipe does not say is not written either: checkpoints go on when a release adds a setting.
fn is_zero(count: &usize) -> bool {
    *count == 0
}

fn is_nothing(share: &f32) -> bool {
    *share == 0.0
}

fn one() -> f32 {
    1.0
}

impl Default for Stage {
    /// Small batches, semi-hard triplets and AdamW.
    fn default() -> Self {
        Self {
            name: "triplets".into(),
            steps: 3000,
            input_side: None,
            batch: Batches { people: 32, crops: 4, ..Batches::default() },
            softmax: None,
            triplets: Some(Triplets { mining: Mining::SemiHard, memory: 0, margin: Some(0.2), weight: 1.0 }),
            optimizer: Optimizer::default(),
            learning_rate: 1e-3,
            schedule: Schedule::default(),
            warm_up: 150,
            weight_decay: 5e-4,
            clip: None,
            ema: None,
            dropout: 0.0,
            augmentation: Augmentation::default(),
        }
    }
}

impl From<Stage> for Recipe {
    /// One stage, the first model's network, seed 1.
    fn from(stage: Stage) -> Self {
        Self {
            seed: 1,
            source_letters: 0,
            precision: Precision::default(),
            begin: None,
            network: NetworkConfig::default(),
            stages: vec![stage],
        }
    }
}

impl Recipe {
    /// Reads and checks a recipe file.
    ///
    /// # Errors
    /// `Io`; `Argument` with the file's name, the line and what was expected.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let wrong = |what: String| Error::argument("recipe", format!("{}: {what}", path.display()));
        let mut recipe: Self = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if let (Some(begin), Some(folder)) = (&mut recipe.begin, path.parent()) {
            begin.weights = folder.join(&begin.weights);
        }
        recipe.check().map_err(|error| wrong(error.to_string()))?;
        Ok(recipe)
    }

    /// Whether such a run can be made.
    ///
    /// # Errors
    /// `Argument` with the setting's name, what was expected and what was found; `Tensor` for an unreasonable network.
    pub fn check(&self) -> Result<()> {
        self.precision.dtype()?;
        self.network.check()?;
        if self.stages.is_empty() {
            return Err(Error::argument("stage", "none: expected at least one [[stage]]"));
        }
        for stage in &self.stages {
            self.network_of(stage).check()?;
            stage.check().map_err(|error| Error::argument("stage", format!("`{}`: {error}", stage.name)))?;
        }
        match self.stages.last().and_then(|stage| stage.input_side) {
            Some(side) if side != self.network.input_side => {
                let what = format!("{side} in the last stage: expected the network's own, {}", self.network.input_side);
                Err(Error::argument("input side", what))
            }
            _ => Ok(()),
        }
    }

    /// The network as a stage trains it.
    pub fn network_of(&self, stage: &Stage) -> NetworkConfig {
        NetworkConfig { input_side: stage.input_side.unwrap_or(self.network.input_side), ..self.network.clone() }
    }

    /// Steps in all.
    pub fn steps(&self) -> u64 {
        self.stages.iter().map(|stage| stage.steps).sum()
    }

    /// The stage of a step, counted from 1, and the steps before that stage. Steps behind the last are of the last stage.
    pub fn stage_of(&self, step: u64) -> (usize, u64) {
        let mut before = 0;
        for (index, stage) in self.stages.iter().enumerate() {
            if step <= before + stage.steps || index + 1 == self.stages.len() {
                return (index, before);
            }
            before += stage.steps;
        }
        (0, 0)
    }

    /// Everything that shaped the steps until `step`, as text: two recipes that agree in it can take each other's checkpoints. So what is still to
    /// come may change: later stages, and the end of a stage whose learning rate does not depend on it.
    pub(super) fn taken(&self, step: u64) -> Result<String> {
        let (last, _) = self.stage_of(step.max(1));
        let mut taken = Self { stages: self.stages[..=last].to_vec(), ..self.clone() };
        // Its digest says which file it was.
        taken.begin.iter_mut().for_each(|begin| begin.weights = PathBuf::new());
        if let Some(stage) = taken.stages.last_mut().filter(|stage| stage.schedule != Schedule::Cosine) {
            stage.steps = 0;
        }
        serde_json::to_string(&taken).map_err(|error| Error::argument("recipe", error.to_string()))
    }
}

impl Stage {
    fn check(&self) -> Result<()> {
        let range = |name: &'static str, value: f64, sense: bool, expected: &str| match sense && value.is_finite() {
            true => Ok(()),
            false => Err(Error::argument(name, format!("{value}: expected {expected}"))),
        };
        let share = |name, value: f64| range(name, value, (0.0..1.0).contains(&value), "at least 0 and below 1");
        let weight = |value: f32| range("weight", value.into(), value > 0.0, "a number above 0");
        range("steps", self.steps as f64, self.steps > 0, "at least one")?;
        range("learning rate", self.learning_rate, self.learning_rate > 0.0, "a number above 0")?;
        range("warm-up", self.warm_up as f64, self.warm_up <= self.steps, "at most as many steps as the stage has")?;
        range("weight decay", self.weight_decay, self.weight_decay >= 0.0, "a number of at least 0")?;
        share("dropout", self.dropout.into())?;
        self.batch.check()?;
        self.augmentation.check()?;
        if self.softmax.is_none() && self.triplets.is_none() {
            return Err(Error::argument("loss", "none: expected softmax, triplets or both"));
        }
        if let Some(softmax) = self.softmax {
            range("scale", softmax.scale.into(), softmax.scale > 0.0, "a number above 0")?;
            range("margin", softmax.margin.into(), (0.0..=1.0).contains(&softmax.margin), "a cosine, 0 to 1")?;
            share("trim", softmax.trim.into())?;
            weight(softmax.weight)?;
        }
        if let Some(triplets) = self.triplets {
            let margin = triplets.margin.unwrap_or(1.0);
            range("margin", margin.into(), margin > 0.0 && margin <= 4.0, "a squared distance above 0, at most 4")?;
            weight(triplets.weight)?;
            let most = 1 << 20;
            range("memory", triplets.memory as f64, triplets.memory <= most, "at most 1,048,576 faces")?;
            if self.batch.crops < 2 {
                return Err(Error::argument("batch", "triplets need at least two crops of each person"));
            }
            if triplets.margin.is_none() && matches!(triplets.mining, Mining::SemiHard) {
                return Err(Error::argument("margin", "none: semi-hard negatives are those within the margin"));
            }
        }
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

    /// The learning rate of a step, counted from the first of the stage, 1.
    pub fn learning_rate_at(&self, step: u64) -> f64 {
        self.learning_rate * self.schedule.share(step, Span { steps: self.steps, warm_up: self.warm_up })
    }
}

impl Softmax {
    /// The margin of a step, counted from the first of the stage, 1.
    pub fn margin_at(&self, step: u64) -> f32 {
        if step >= self.ramp { self.margin } else { self.margin * step as f32 / self.ramp as f32 }
    }
}
