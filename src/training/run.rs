//! A training run: batches made ahead by a thread, steps, checkpoints, evaluation as it goes, weights at the end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::augment::Augmentation;
use super::checkpoint::{self, RunState};
use super::data::LabelledCrops;
use super::loss::{semi_hard, squared_distances, triplet_loss};
use super::optimizer::AdamW;
use super::sampler::{BatchShape, Sampler};
use crate::face::Alignment;
use crate::model::Embed;
use crate::model::network::{FaceNet, Mode, NetworkConfig, input};
use crate::model::weights::{TrainedEmbedder, Weights};
use crate::{Calibration, Crop, Error, Result};

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
    /// Steps in all: the learning rate falls to zero along half a cosine until then.
    pub steps: u64,
    /// Highest learning rate, reached after a twentieth of the steps.
    pub learning_rate: f64,
    /// AdamW's weight decay.
    pub weight_decay: f64,
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
            weight_decay: 5e-4,
            augmentation: Augmentation::default(),
            seed: 1,
        }
    }
}

/// Where a run writes, and how often.
#[derive(Clone, Debug)]
pub struct Output {
    /// The checkpoint: resumed when it exists.
    pub checkpoint: PathBuf,
    /// Steps between two checkpoints.
    pub checkpoint_every: u64,
    /// Steps between two evaluations.
    pub evaluate_every: u64,
}

/// One step, as it is reported.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Report {
    /// Steps taken.
    pub step: u64,
    /// Mean loss over the mined triplets.
    pub loss: f32,
    /// Share of the anchor-positive pairs that had a semi-hard negative.
    pub mined: f32,
    /// Mean squared distance of all pairs in the batch: near zero when the embedding collapses.
    pub spread: f32,
    /// The learning rate of the step.
    pub learning_rate: f64,
    /// Crops in this step's batch.
    pub batch_crops: u64,
    /// Crops trained on, in this process.
    pub crops: u64,
    /// Seconds since the process began to train.
    pub seconds: f64,
}

/// Hears of a run.
pub trait Observer {
    /// After every step.
    fn step(&mut self, report: &Report);

    /// After an evaluation on the held-out people.
    fn evaluated(&mut self, step: u64, calibration: &Calibration);
}

/// The state of a run: variables, optimiser, step.
pub struct Trainer {
    options: Options,
    net: FaceNet,
    /// Every tensor of the network, by name.
    all: BTreeMap<String, Var>,
    optimizer: AdamW,
    step: u64,
}

/// What one step trains on.
struct Batch {
    crops: Vec<Crop>,
    labels: Vec<usize>,
}

impl Trainer {
    /// A network with fresh weights: He et al. 2015 (arXiv:1502.01852), drawn from the seed.
    ///
    /// # Errors
    /// `Tensor` for an unreasonable network.
    pub fn new(options: Options) -> Result<Self> {
        let map = VarMap::new();
        let net = FaceNet::new(&options.network, &VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu))?;
        let all: BTreeMap<String, Var> = match map.data().lock() {
            Ok(data) => data.iter().map(|(name, var)| (name.clone(), var.clone())).collect(),
            Err(poisoned) => poisoned.into_inner().iter().map(|(name, var)| (name.clone(), var.clone())).collect(),
        };
        let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
        for var in all.values().filter(|var| var.rank() > 1) {
            let inputs: usize = var.dims()[..3].iter().product();
            let deviation = (2.0 / inputs as f32).sqrt();
            let values: Vec<f32> = (0..var.elem_count()).map(|_| deviation * gaussian(&mut rng)).collect();
            var.set(&Tensor::from_vec(values, var.shape(), &Device::Cpu)?)?;
        }
        let trained = all.iter().filter(|(name, _)| !name.contains("running_"));
        let trained = trained.map(|(name, var)| (name.clone(), var.clone())).collect();
        let optimizer = AdamW::new(trained, options.weight_decay)?;
        Ok(Self { options, net, all, optimizer, step: 0 })
    }

    /// Steps taken.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Goes on from a checkpoint.
    ///
    /// # Errors
    /// `Weights` when the file is damaged or comes from other options.
    pub fn resume(&mut self, path: &std::path::Path) -> Result<()> {
        self.step = checkpoint::load(path, &self.recipe()?, &self.all, &mut self.optimizer)?;
        Ok(())
    }

    /// Writes everything that the next step depends on.
    ///
    /// # Errors
    /// `Io`.
    pub fn save(&self, path: &std::path::Path) -> Result<()> {
        let state = RunState { step: self.step, recipe: self.recipe()? };
        checkpoint::save(path, &state, &self.all, &self.optimizer)
    }

    fn recipe(&self) -> Result<serde_json::Value> {
        serde_json::to_value(&self.options).map_err(|error| Error::argument("options", error.to_string()))
    }

    /// One step on the crops of `labels`; returns loss, mined share and spread.
    ///
    /// # Errors
    /// `Tensor` when the computation fails.
    pub fn train_on(&mut self, crops: &[Crop], labels: &[usize]) -> Result<(f32, f32, f32)> {
        let x = input(crops, self.options.network.input_side)?;
        let distances = squared_distances(&self.net.forward(&x, Mode::Train)?)?;
        let flat = distances.flatten_all()?.to_vec1::<f32>()?;
        let triplets = semi_hard(&flat, labels, self.options.margin);
        let loss = triplet_loss(&distances, &triplets, f64::from(self.options.margin))?;
        self.step += 1;
        if !triplets.is_empty() {
            self.optimizer.update(&loss.backward()?, self.learning_rate(), self.step)?;
        }
        let pairs = labels.iter().map(|a| labels.iter().filter(|b| *b == a).count() - 1).sum::<usize>();
        let spread = flat.iter().sum::<f32>() / flat.len() as f32;
        Ok((loss.to_scalar::<f32>()?, triplets.len() as f32 / pairs.max(1) as f32, spread))
    }

    /// The learning rate of the step that was just begun: a linear rise, then half a cosine.
    fn learning_rate(&self) -> f64 {
        let (step, steps) = (self.step as f64, self.options.steps.max(1) as f64);
        let warm_up = (steps / 20.0).max(1.0);
        let fall = 0.5
            * (1.0 + (std::f64::consts::PI * ((step - warm_up) / (steps - warm_up).max(1.0)).clamp(0.0, 1.0)).cos());
        self.options.learning_rate * (step / warm_up).min(1.0) * fall.max(1e-3)
    }

    /// The weights as they stand, rounded to `f16`, without a calibration.
    ///
    /// # Errors
    /// `Tensor`.
    pub fn weights(&self) -> Result<Weights> {
        let tensors = self.all.iter().map(|(name, var)| Ok((name.clone(), var.as_tensor().to_dtype(DType::F16)?)));
        let tensors = tensors.collect::<Result<_>>()?;
        Weights::new(self.options.network.clone(), Alignment::Landmarks, tensors)
    }
}

/// Trains until `options.steps`, resuming from the checkpoint where there is one; returns the weights.
///
/// # Errors
/// Those of the data, of the checkpoint, and `Tensor`.
pub fn train(
    options: &Options,
    output: &Output,
    data: &LabelledCrops,
    held_out: Option<&LabelledCrops>,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Trainer> {
    let shape = BatchShape { people: options.people, crops: options.crops };
    let sampler = Sampler::new(data.identities(), shape)?;
    let mut trainer = Trainer::new(options.clone())?;
    if output.checkpoint.exists() {
        trainer.resume(&output.checkpoint)?;
    }
    let (begin, from) = (Instant::now(), trainer.step);
    let mut crops = 0;
    std::thread::scope(|scope| {
        let (sender, batches) = sync_channel(2);
        scope.spawn(move || {
            // A receiver that is gone means that the run is over.
            (from + 1..=options.steps).try_for_each(|step| sender.send(batch(options, data, &sampler, step)).ok())
        });
        while trainer.step < options.steps && !stop.load(Ordering::Relaxed) {
            let Ok(batch) = batches.recv() else { break };
            let batch = batch?;
            let (loss, mined, spread) = trainer.train_on(&batch.crops, &batch.labels)?;
            let batch_crops = batch.crops.len() as u64;
            crops += batch_crops;
            let (step, learning_rate) = (trainer.step, trainer.learning_rate());
            let seconds = begin.elapsed().as_secs_f64();
            observer.step(&Report { step, loss, mined, spread, learning_rate, batch_crops, crops, seconds });
            if step % output.checkpoint_every.max(1) == 0 {
                trainer.save(&output.checkpoint)?;
            }
            if let Some(held_out) = held_out.filter(|_| step % output.evaluate_every.max(1) == 0) {
                observer.evaluated(step, &calibrate(&trainer.weights()?, held_out, "held-out people")?);
            }
        }
        Ok::<(), Error>(())
    })?;
    trainer.save(&output.checkpoint)?;
    Ok(trainer)
}

/// The batch of one step: a function of the seed and the step.
fn batch(options: &Options, data: &LabelledCrops, sampler: &Sampler, step: u64) -> Result<Batch> {
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    rng.set_stream(step);
    let draws = sampler.draw(&mut rng);
    let one = |draw: &super::sampler::Draw| options.augmentation.apply(&data.photo(draw.crop)?, &mut rng);
    Ok(Batch {
        crops: draws.iter().map(one).collect::<Result<_>>()?,
        labels: draws.iter().map(|d| d.identity).collect(),
    })
}

/// Measures operating points from all pairs of labelled crops.
///
/// # Errors
/// Those of the data, and `Argument` when there are too few pairs.
pub fn calibrate(weights: &Weights, data: &LabelledCrops, name: &str) -> Result<Calibration> {
    let embedder = TrainedEmbedder::new(weights.clone())?;
    let mut embeddings = Vec::new();
    let mut labels = Vec::new();
    for (label, identity) in data.identities().iter().enumerate() {
        let crops = identity.crops.iter().map(|index| data.crop(*index)).collect::<Result<Vec<_>>>()?;
        embeddings.extend(embedder.embed(&crops)?);
        labels.resize(embeddings.len(), label);
    }
    let (mut same, mut different) = (Vec::new(), Vec::new());
    for a in 0..labels.len() {
        for b in a + 1..labels.len() {
            let pairs = if labels[a] == labels[b] { &mut same } else { &mut different };
            pairs.push(embeddings[a].distance(&embeddings[b]));
        }
    }
    Calibration::measure(name, &same, &different)
}

/// A draw from the normal distribution (Box & Muller 1958).
fn gaussian(rng: &mut ChaCha8Rng) -> f32 {
    let radius = (-2.0 * (1.0 - rng.random::<f32>()).ln()).sqrt();
    radius * (std::f32::consts::TAU * rng.random::<f32>()).cos()
}
