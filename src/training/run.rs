//! A training run: batches made ahead by threads, steps, checkpoints, evaluation as it goes, weights at the end.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use candle_core::Device;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::data::{Identity, LabelledCrops};
use super::pipeline::Ahead;
use super::recipe::Recipe;
use super::sampler::{Draw, Sampler};
use super::trainer::{Outcome, Trainer};
use crate::model::Embed;
use crate::model::weights::{TrainedEmbedder, Weights};
use crate::{Calibration, Crop, Embedding, Error, Result};

/// Where a run writes, how often, who makes its batches and what computes: nothing that a checkpoint remembers.
#[derive(Clone, Debug)]
pub struct Output {
    /// The checkpoint: resumed when it exists.
    pub checkpoint: PathBuf,
    /// Steps between two checkpoints.
    pub checkpoint_every: u64,
    /// Steps between two evaluations.
    pub evaluate_every: u64,
    /// What the held-out people are called in a calibration.
    pub held_out: String,
    /// Threads that decode and augment; at least one is started.
    pub data_threads: usize,
    /// What the network is trained on; evaluations run on the CPU.
    pub device: Device,
}

/// One step, as it is reported.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Steps taken.
    pub step: u64,
    /// The stage's name.
    pub stage: String,
    /// The loss.
    pub loss: f32,
    /// Share of the batch's triplets that were mined; zero without triplets.
    pub mined: f32,
    /// Share of the crops whose own person was the nearest; zero without a softmax.
    pub accuracy: f32,
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

/// Hears of a run.
pub trait Observer {
    /// After every step.
    fn step(&mut self, report: &Report);

    /// After an evaluation on the held-out people, with the weights that were evaluated and what it found for them.
    fn evaluated(&mut self, step: u64, weights: &Weights, calibration: &Calibration);
}

/// What one step trains on.
struct Batch {
    crops: Vec<Crop>,
    labels: Vec<usize>,
}

/// Trains to the recipe's last step, resuming from the checkpoint where there is one; returns the weights.
///
/// # Errors
/// Those of the data, of the checkpoint, and `Tensor`.
pub fn train(
    recipe: &Recipe,
    output: &Output,
    data: &LabelledCrops,
    held_out: Option<&LabelledCrops>,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Trainer> {
    let samplers = recipe.stages.iter().map(|stage| Sampler::new(data.identities(), stage.batch));
    let samplers = samplers.collect::<Result<Vec<_>>>()?;
    let mut trainer = Trainer::new(recipe.clone(), sources(data.identities()), output.device.clone())?;
    if output.checkpoint.exists() {
        trainer.resume(&output.checkpoint)?;
    } else if let Some(begin) = &recipe.begin {
        let weights = Weights::read(&begin.weights)?;
        if weights.digest() != begin.digest {
            let what =
                format!("{} has the digest {}, expected {}", begin.weights.display(), weights.digest(), begin.digest);
            return Err(Error::argument("begin", what));
        }
        trainer.begin_with(&weights, directions(&weights, data)?)?;
    }
    let (begin, from) = (Instant::now(), trainer.step());
    let mut crops = 0;
    std::thread::scope(|scope| {
        let make = |step| batch(recipe, data, &samplers, step);
        let mut batches = Ahead::begin(scope, output.data_threads, from + 1..recipe.steps() + 1, make);
        while trainer.step() < recipe.steps() && !stop.load(Ordering::Relaxed) {
            let Some(batch) = batches.next() else { break };
            let batch = batch?;
            let outcome = trainer.train_on(&batch.crops, &batch.labels)?;
            let Outcome { loss, mined, accuracy, spread, gradient_norm } = outcome;
            let batch_crops = batch.crops.len() as u64;
            crops += batch_crops;
            let step = trainer.step();
            let (stage, taken) = trainer.stage();
            observer.step(&Report {
                step,
                stage: stage.name.clone(),
                loss,
                mined,
                accuracy,
                spread,
                gradient_norm,
                learning_rate: stage.learning_rate_at(taken),
                batch_crops,
                crops,
                seconds: begin.elapsed().as_secs_f64(),
                waited_seconds: batches.waited().as_secs_f64(),
            });
            if step % output.checkpoint_every.max(1) == 0 {
                trainer.save(&output.checkpoint)?;
            }
            if let Some(held_out) = held_out.filter(|_| step % output.evaluate_every.max(1) == 0) {
                let weights = trainer.weights()?;
                observer.evaluated(step, &weights, &calibrate(&weights, held_out, &output.held_out)?);
            }
        }
        Ok::<(), Error>(())
    })?;
    trainer.save(&output.checkpoint)?;
    Ok(trainer)
}

/// The labels of each source's people, which are side by side since a source is the beginning of a name.
pub fn sources(identities: &[Identity]) -> Vec<Range<usize>> {
    let mut sources: Vec<Range<usize>> = Vec::new();
    for (label, identity) in identities.iter().enumerate() {
        match sources.last_mut() {
            Some(last) if identities[last.start].source == identity.source => last.end = label + 1,
            _ => sources.push(label..label + 1),
        }
    }
    sources
}

/// The batch of one step: a function of the seed and the step.
fn batch(recipe: &Recipe, data: &LabelledCrops, samplers: &[Sampler], step: u64) -> Result<Batch> {
    let (stage, _) = recipe.stage_of(step);
    let mut rng = ChaCha8Rng::seed_from_u64(recipe.seed);
    rng.set_stream(step);
    let draws = samplers[stage].draw(&mut rng);
    let augmentation = recipe.stages[stage].augmentation;
    let one = |draw: &Draw| data.photo(draw.crop).and_then(|photo| augmentation.apply(&photo, &mut rng));
    Ok(Batch {
        crops: draws.iter().map(one).collect::<Result<_>>()?,
        labels: draws.iter().map(|d| d.identity).collect(),
    })
}

/// The embeddings of each person's crops, one person after the other.
fn embedded(weights: &Weights, data: &LabelledCrops) -> Result<Vec<Vec<Embedding>>> {
    let embedder = TrainedEmbedder::new(weights.clone())?;
    let of = |identity: &Identity| {
        let crops = identity.crops.iter().map(|index| data.crop(*index)).collect::<Result<Vec<_>>>()?;
        embedder.embed(&crops)
    };
    data.identities().iter().map(of).collect()
}

/// Where each person's embeddings point to, as unit vectors.
fn directions(weights: &Weights, data: &LabelledCrops) -> Result<Vec<f32>> {
    let mut directions = Vec::new();
    for embeddings in embedded(weights, data)? {
        let mut sum = vec![0.0; Embedding::DIMENSIONS];
        embeddings.iter().for_each(|one| sum.iter_mut().zip(one.as_slice()).for_each(|(sum, x)| *sum += x));
        directions.extend_from_slice(Embedding::normalized(&sum)?.as_slice());
    }
    Ok(directions)
}

/// Measures operating points from all pairs of labelled crops.
///
/// # Errors
/// Those of the data, and `Argument` when there are too few pairs.
pub fn calibrate(weights: &Weights, data: &LabelledCrops, name: &str) -> Result<Calibration> {
    let mut embeddings = Vec::new();
    let mut labels = Vec::new();
    for (label, of_one) in embedded(weights, data)?.into_iter().enumerate() {
        embeddings.extend(of_one);
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
