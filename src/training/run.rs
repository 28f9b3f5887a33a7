//! A training run: batches made ahead by threads, steps, checkpoints, evaluation as it goes, weights at the end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::checkpoint::{self, RunState, Tensors};
use super::data::LabelledCrops;
use super::loss::{semi_hard, squared_distances, triplet_loss};
use super::optimizer::average::Average;
use super::optimizer::{State, Update};
use super::options::Options;
use super::pipeline::Ahead;
use super::sampler::{BatchShape, Sampler};
use crate::face::Alignment;
use crate::model::Embed;
use crate::model::network::{FaceNet, input};
use crate::model::weights::{TrainedEmbedder, Weights};
use crate::{Calibration, Crop, Error, Result};

/// Where a run writes, how often, who makes its batches and what computes: nothing that a checkpoint remembers.
#[derive(Clone, Debug)]
pub struct Output {
    /// The checkpoint: resumed when it exists.
    pub checkpoint: PathBuf,
    /// Steps between two checkpoints.
    pub checkpoint_every: u64,
    /// Steps between two evaluations.
    pub evaluate_every: u64,
    /// Threads that decode and augment; at least one is started.
    pub data_threads: usize,
    /// What the network is trained on; evaluations run on the CPU.
    pub device: Device,
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
    /// Length of the gradient before it was clipped; zero when nothing was mined.
    pub gradient_norm: f64,
    /// The learning rate of the step.
    pub learning_rate: f64,
    /// Crops in this step's batch.
    pub batch_crops: u64,
    /// Crops trained on, in this process.
    pub crops: u64,
    /// Seconds since the process began to train.
    pub seconds: f64,
    /// Seconds of these in which the trainer waited for batches.
    pub waited_seconds: f64,
}

/// What one step found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Mean loss over the mined triplets.
    pub loss: f32,
    /// Share of the anchor-positive pairs that had a semi-hard negative.
    pub mined: f32,
    /// Mean squared distance of all pairs in the batch.
    pub spread: f32,
    /// Length of the gradient before it was clipped; zero when nothing was mined.
    pub gradient_norm: f64,
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
    device: Device,
    net: FaceNet,
    tensors: Tensors,
    step: u64,
}

/// What one step trains on.
struct Batch {
    crops: Vec<Crop>,
    labels: Vec<usize>,
}

impl Trainer {
    /// A network with fresh weights, on the CPU: He et al. 2015 (arXiv:1502.01852), drawn from the seed.
    ///
    /// # Errors
    /// `Argument` and `Tensor` for options that make no sense.
    pub fn new(options: Options) -> Result<Self> {
        Self::on(options, Device::Cpu)
    }

    /// The same on any device: the same first weights, and steps that differ by rounding.
    ///
    /// # Errors
    /// As [`new`](Self::new); `Tensor` when the device fails.
    pub fn on(options: Options, device: Device) -> Result<Self> {
        options.check()?;
        let map = VarMap::new();
        let net = FaceNet::new(&options.network, &VarBuilder::from_varmap(&map, DType::F32, &device))?;
        let all: BTreeMap<String, Var> = match map.data().lock() {
            Ok(data) => data.iter().map(|(name, var)| (name.clone(), var.clone())).collect(),
            Err(poisoned) => poisoned.into_inner().iter().map(|(name, var)| (name.clone(), var.clone())).collect(),
        };
        let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
        for var in all.values().filter(|var| var.rank() > 1) {
            let inputs: usize = var.dims()[..3].iter().product();
            let deviation = (2.0 / inputs as f32).sqrt();
            let values: Vec<f32> = (0..var.elem_count()).map(|_| deviation * gaussian(&mut rng)).collect();
            var.set(&Tensor::from_vec(values, var.shape(), &device)?)?;
        }
        let trained = all.iter().filter(|(name, _)| !name.contains("running_"));
        let trained = trained.map(|(name, var)| (name.clone(), var.clone())).collect();
        let optimizer = State::new(options.optimizer, options.weight_decay, trained)?;
        let average = options.ema.map(|decay| Average::new(decay, &all)).transpose()?;
        Ok(Self { options, device, net, tensors: Tensors { all, optimizer, average }, step: 0 })
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
        self.step = checkpoint::load(path, &self.recipe()?, &mut self.tensors)?;
        Ok(())
    }

    /// Writes everything that the next step depends on.
    ///
    /// # Errors
    /// `Io`.
    pub fn save(&self, path: &std::path::Path) -> Result<()> {
        let state = RunState { step: self.step, recipe: self.recipe()? };
        checkpoint::save(path, &state, &self.tensors)
    }

    fn recipe(&self) -> Result<String> {
        serde_json::to_string(&self.options).map_err(|error| Error::argument("options", error.to_string()))
    }

    /// One step on the crops of `labels`.
    ///
    /// # Errors
    /// `Argument` when the gradient is not finite, before it touches a weight; `Tensor` when the computation fails.
    pub fn train_on(&mut self, crops: &[Crop], labels: &[usize]) -> Result<Outcome> {
        let x = input(crops, self.options.network.input_side, &self.device)?;
        let x = x.to_dtype(self.options.precision.dtype()?)?;
        let pass = self.net.train(&x)?;
        let distances = squared_distances(pass.embeddings())?;
        let flat = distances.flatten_all()?.to_vec1::<f32>()?;
        let triplets = semi_hard(&flat, labels, self.options.margin);
        let loss = triplet_loss(&distances, &triplets, f64::from(self.options.margin))?;
        self.step += 1;
        let grads = if triplets.is_empty() { None } else { Some(pass.backward(&loss)?) };
        let gradient_norm = grads.map_or(Ok(0.0), |grads| self.update(&grads))?;
        if let Some(average) = &mut self.tensors.average {
            average.follow(&self.tensors.all, self.step)?;
        }
        let pairs = labels.iter().map(|a| labels.iter().filter(|b| *b == a).count() - 1).sum::<usize>();
        let mined = triplets.len() as f32 / pairs.max(1) as f32;
        let spread = flat.iter().sum::<f32>() / flat.len() as f32;
        Ok(Outcome { loss: loss.to_scalar::<f32>()?, mined, spread, gradient_norm })
    }

    /// Changes the variables; returns the length of the gradient.
    fn update(&mut self, grads: &GradStore) -> Result<f64> {
        let (step, optimizer) = (self.step, &mut self.tensors.optimizer);
        let norm = optimizer.gradient_norm(grads)?;
        if !norm.is_finite() {
            let what = format!("the gradient of step {step} is not finite: lower the rate, warm up longer, or clip");
            return Err(Error::argument("learning rate", what));
        }
        let scale = self.options.clip.map_or(1.0, |clip| (clip / norm).min(1.0));
        optimizer.update(grads, Update { step, learning_rate: self.options.learning_rate_at(step), scale })?;
        Ok(norm)
    }

    /// The weights as they stand, or their average where the run has one; rounded to `f16`, on the CPU, without a calibration.
    ///
    /// # Errors
    /// `Tensor`.
    pub fn weights(&self) -> Result<Weights> {
        let Tensors { all, average, .. } = &self.tensors;
        let half = |(name, tensor): (&String, &Tensor)| {
            Ok((name.clone(), tensor.to_device(&Device::Cpu)?.to_dtype(DType::F16)?))
        };
        let tensors = match average {
            Some(average) => average.shadow.iter().map(half).collect::<Result<_>>()?,
            None => all.iter().map(|(name, var)| half((name, var.as_tensor()))).collect::<Result<_>>()?,
        };
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
    let mut trainer = Trainer::on(options.clone(), output.device.clone())?;
    if output.checkpoint.exists() {
        trainer.resume(&output.checkpoint)?;
    }
    let (begin, from) = (Instant::now(), trainer.step);
    let mut crops = 0;
    std::thread::scope(|scope| {
        let make = |step| batch(options, data, &sampler, step);
        let mut batches = Ahead::begin(scope, output.data_threads, from + 1..options.steps + 1, make);
        while trainer.step < options.steps && !stop.load(Ordering::Relaxed) {
            let Some(batch) = batches.next() else { break };
            let batch = batch?;
            let outcome = trainer.train_on(&batch.crops, &batch.labels)?;
            let Outcome { loss, mined, spread, gradient_norm } = outcome;
            let batch_crops = batch.crops.len() as u64;
            crops += batch_crops;
            let step = trainer.step;
            observer.step(&Report {
                step,
                loss,
                mined,
                spread,
                gradient_norm,
                learning_rate: options.learning_rate_at(step),
                batch_crops,
                crops,
                seconds: begin.elapsed().as_secs_f64(),
                waited_seconds: batches.waited().as_secs_f64(),
            });
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
