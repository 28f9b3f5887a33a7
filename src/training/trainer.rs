//! The state of a run between two steps, and the step.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::checkpoint::{self, RunState, Tensors};
use super::loss::{Memory, margin_softmax, mine, squared_distances, triplet_loss};
use super::optimizer::average::Average;
use super::optimizer::{State, Update};
use super::recipe::{Recipe, Softmax, Stage};
use crate::face::Alignment;
use crate::model::network::{FaceNet, NetworkConfig, input, resized};
use crate::model::weights::Weights;
use crate::{Crop, Embedding, Error, Result};

/// What one step found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// The loss.
    pub loss: f32,
    /// Share of the batch's triplets that were mined: of the anchor-positive pairs, of the anchors, or of all. Zero without triplets.
    pub mined: f32,
    /// Share of the crops whose own person was the nearest of all people of the source. Zero without a softmax.
    pub accuracy: f32,
    /// Mean squared distance of all pairs in the batch: near zero when the embedding collapses.
    pub spread: f32,
    /// Length of the gradient before it was clipped; zero when nothing was mined.
    pub gradient_norm: f64,
}

/// Weights, optimiser and step of a run.
pub struct Trainer {
    recipe: Recipe,
    device: Device,
    /// The people of each source, as labels.
    sources: Vec<Range<usize>>,
    /// The stage of the next step.
    stage: usize,
    /// Steps before that stage.
    before: u64,
    step: u64,
    net: FaceNet,
    tensors: Tensors,
}

/// What the directions of a softmax are called among the variables.
const PEOPLE: &str = "people";

/// The offset of the features, which stays zero: their mean over a batch is then the origin, and embeddings can't all move to one side.
const CENTRE: &str = "head.beta";

impl Trainer {
    /// A network with fresh weights: He et al. 2015 (arXiv:1502.01852), drawn from the seed; the same on any device, with steps that differ by
    /// rounding.
    ///
    /// - `sources`: the labels of each collection's people; labels in none may be trained on with triplets alone.
    ///
    /// # Errors
    /// `Argument` and `Tensor` for a recipe that makes no sense; `Tensor` when the device fails.
    pub fn new(recipe: Recipe, sources: Vec<Range<usize>>, device: Device) -> Result<Self> {
        recipe.check()?;
        let begun = begin(&recipe, 0, &sources, BTreeMap::new(), &device)?;
        let (net, tensors) = begun;
        Ok(Self { recipe, device, sources, stage: 0, before: 0, step: 0, net, tensors })
    }

    /// Steps taken.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The stage of the next step, and how many of its steps were taken.
    pub fn stage(&self) -> (&Stage, u64) {
        (&self.recipe.stages[self.stage], self.step - self.before)
    }

    /// Begins with the weights of another run, before the first step.
    ///
    /// - `people`: a direction for each person, `(people, 128)`, for stages with a softmax.
    ///
    /// # Errors
    /// `Argument` when these are weights of another network; `Tensor` when the device fails.
    pub fn begin_with(&mut self, weights: &Weights, people: Vec<f32>) -> Result<()> {
        let (expected, found) = (self.recipe.network_of(&self.recipe.stages[0]), weights.network());
        if (NetworkConfig { input_side: expected.input_side, ..found.clone() }) != expected {
            return Err(Error::argument("begin", format!("weights of {found:?}: expected those of {expected:?}")));
        }
        let float = |(name, tensor): (&String, &Tensor)| {
            Ok((name.clone(), tensor.to_dtype(DType::F32)?.to_device(&self.device)?))
        };
        let mut carried = weights.tensors().iter().map(float).collect::<Result<BTreeMap<_, _>>>()?;
        let shape = (people.len() / Embedding::DIMENSIONS, Embedding::DIMENSIONS);
        carried.insert(PEOPLE.to_owned(), Tensor::from_vec(people, shape, &self.device)?);
        (self.net, self.tensors) = begin(&self.recipe, 0, &self.sources, carried, &self.device)?;
        Ok(())
    }

    /// Goes on from a checkpoint.
    ///
    /// # Errors
    /// `Weights` when the file is damaged or its steps were those of another recipe.
    pub fn resume(&mut self, path: &Path) -> Result<()> {
        let file = checkpoint::Stored::read(path)?;
        let step = file.state().step;
        let expected = self.recipe.taken(step)?;
        file.check(&expected)?;
        let (stage, before) = self.recipe.stage_of(step.max(1));
        let (net, mut tensors) = begin(&self.recipe, stage, &self.sources, BTreeMap::new(), &self.device)?;
        file.load(&mut tensors)?;
        (self.stage, self.before, self.step, self.net, self.tensors) = (stage, before, step, net, tensors);
        Ok(())
    }

    /// Writes everything that the next step depends on.
    ///
    /// # Errors
    /// `Io`.
    pub fn save(&self, path: &Path) -> Result<()> {
        let remembered = self.tensors.memory.labels.clone();
        let state = RunState { step: self.step, recipe: self.recipe.taken(self.step)?, remembered };
        checkpoint::save(path, &state, &self.tensors)
    }

    /// One step on the crops of `labels`.
    ///
    /// # Errors
    /// `Argument` when the gradient is not finite, before it touches a weight; `Tensor` when the computation fails.
    pub fn train_on(&mut self, crops: &[Crop], labels: &[usize]) -> Result<Outcome> {
        let (index, before) = self.recipe.stage_of(self.step + 1);
        if index != self.stage {
            let carried = self.carried()?;
            (self.net, self.tensors) = begin(&self.recipe, index, &self.sources, carried, &self.device)?;
            (self.stage, self.before) = (index, before);
        }
        let stage = &self.recipe.stages[self.stage];
        let step = self.step - self.before + 1;
        let x = input(crops, self.recipe.network_of(stage).input_side, &self.device)?;
        let dropped = self.dropped(stage.dropout, crops.len())?;
        let pass = self.net.train(&x.to_dtype(self.recipe.precision.dtype()?)?, dropped.as_ref())?;
        let spread = spread(pass.embeddings())?;
        let mut outcome = Outcome { loss: 0.0, mined: 0.0, accuracy: 0.0, spread, gradient_norm: 0.0 };
        let mut losses = Vec::new();
        if let (Some(softmax), Some(people)) = (stage.softmax, &self.tensors.people) {
            let now = Softmax { margin: softmax.margin_at(step), ..softmax };
            let entropy = margin_softmax(pass.embeddings(), people, labels, &self.sources, now)?;
            outcome.accuracy = entropy.accuracy;
            losses.push((entropy.loss * f64::from(softmax.weight))?);
        }
        if let Some(triplets) = stage.triplets {
            let (others, labels) = self.tensors.memory.with(pass.embeddings(), labels)?;
            let distances = squared_distances(pass.embeddings(), &others)?;
            let flat = distances.detach().flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
            let of =
                |label: &usize| self.sources.iter().position(|source| source.contains(label)).unwrap_or(usize::MAX);
            let from: Vec<usize> = labels.iter().map(of).collect();
            let mined = mine(triplets.mining, &flat, &labels, &from, triplets.margin);
            outcome.mined = mined.len() as f32 / triplets.mining.most(crops.len(), &labels).max(1) as f32;
            if !mined.is_empty() {
                let loss = triplet_loss(&distances, &mined, triplets.margin.map(f64::from))?;
                losses.push((loss * f64::from(triplets.weight))?);
            }
        }
        self.tensors.memory.remember(
            pass.embeddings(),
            labels,
            stage.triplets.map_or(0, |triplets| triplets.memory),
        )?;
        self.step += 1;
        if !losses.is_empty() {
            let loss = Tensor::stack(&losses, 0)?.sum_all()?;
            outcome.loss = loss.to_dtype(DType::F32)?.to_scalar()?;
            let grads = pass.backward(&loss)?;
            outcome.gradient_norm = self.update(&grads, step)?;
        }
        if let Some(average) = &mut self.tensors.average {
            average.follow(&self.tensors.all, step)?;
        }
        Ok(outcome)
    }

    /// What the numbers that the head reads are multiplied by in the next step: nothing, or what makes up for those. A function of the seed and
    /// the step.
    fn dropped(&self, share: f32, batch: usize) -> Result<Option<Tensor>> {
        if share == 0.0 {
            return Ok(None);
        }
        let mut rng = ChaCha8Rng::seed_from_u64(self.recipe.seed);
        // Batches have the streams of their steps.
        rng.set_stream(!self.step);
        let shape = self.net.head_input(batch);
        let one = |_| if rng.random::<f32>() < share { 0.0 } else { 1.0 / (1.0 - share) };
        let factors: Vec<f32> = (0..shape.iter().product::<usize>()).map(one).collect();
        Ok(Some(Tensor::from_vec(factors, &shape, &self.device)?))
    }

    /// Changes the variables at a step of the stage; returns the length of the gradient.
    fn update(&mut self, grads: &GradStore, step: u64) -> Result<f64> {
        let stage = &self.recipe.stages[self.stage];
        let optimizer = &mut self.tensors.optimizer;
        let norm = optimizer.gradient_norm(grads)?;
        if !norm.is_finite() {
            let what = format!(
                "the gradient of step {} is not finite: lower the rate, warm up longer, or clip",
                self.before + step
            );
            return Err(Error::argument("learning rate", what));
        }
        let scale = stage.clip.map_or(1.0, |clip| (clip / norm).min(1.0));
        optimizer.update(grads, Update { step, learning_rate: stage.learning_rate_at(step), scale })?;
        Ok(norm)
    }

    /// What the next stage begins with.
    fn carried(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut carried: BTreeMap<String, Tensor> =
            self.tensors.all.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
        if let Some(average) = &self.tensors.average {
            carried.extend(average.shadow.iter().map(|(name, tensor)| (name.clone(), tensor.clone())));
        }
        carried.extend(self.tensors.people.iter().map(|people| (PEOPLE.to_owned(), people.as_tensor().clone())));
        Ok(carried)
    }

    /// The weights as they stand, or their average where the stage has one; rounded to `f16`, on the CPU, without a calibration.
    ///
    /// # Errors
    /// `Tensor`.
    pub fn weights(&self) -> Result<Weights> {
        let half = |(name, tensor): (String, Tensor)| Ok((name, tensor.to_device(&Device::Cpu)?.to_dtype(DType::F16)?));
        let tensors = self.carried()?.into_iter().filter(|(name, _)| name != PEOPLE).map(half);
        let network = self.recipe.network_of(&self.recipe.stages[self.stage]);
        Weights::new(network, Alignment::Landmarks, tensors.collect::<Result<_>>()?)
    }
}

/// The network and the memory of a stage that has not begun: with the weights that are carried over, and fresh ones for the others.
fn begin(
    recipe: &Recipe,
    index: usize,
    sources: &[Range<usize>],
    mut carried: BTreeMap<String, Tensor>,
    device: &Device,
) -> Result<(FaceNet, Tensors)> {
    let stage = &recipe.stages[index];
    let map = VarMap::new();
    let net = FaceNet::new(&recipe.network_of(stage), &VarBuilder::from_varmap(&map, DType::F32, device))?;
    let all: BTreeMap<String, Var> = match map.data().lock() {
        Ok(data) => data.iter().map(|(name, var)| (name.clone(), var.clone())).collect(),
        Err(poisoned) => poisoned.into_inner().iter().map(|(name, var)| (name.clone(), var.clone())).collect(),
    };
    let mut rng = ChaCha8Rng::seed_from_u64(recipe.seed);
    let mut fresh = |shape: &[usize], deviation: f32| {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| deviation * gaussian(&mut rng)).collect();
        Tensor::from_vec(values, shape, device)
    };
    for (name, var) in &all {
        match carried.remove(name) {
            Some(tensor) if tensor.dims() == var.dims() => var.set(&tensor.copy()?)?,
            Some(tensor) => var.set(&resized(&tensor, var.dims())?)?,
            None if var.rank() > 1 => {
                let inputs: usize = var.dims()[..3].iter().product();
                var.set(&fresh(var.dims(), (2.0 / inputs as f32).sqrt())?)?;
            }
            None => {}
        }
    }
    let count = sources.iter().map(|source| source.end).max().unwrap_or(0);
    // Once there were directions, they stay, for the stages to come.
    let wanted = recipe.stages[..=index].iter().any(|stage| stage.softmax.is_some());
    let people = match carried.remove(PEOPLE) {
        Some(people) => Some(people.copy()?),
        None if wanted && count == 0 => {
            return Err(Error::argument("softmax", "needs to know the people of the data"));
        }
        None if wanted => Some(fresh(&[count, Embedding::DIMENSIONS], 1.0 / (Embedding::DIMENSIONS as f32).sqrt())?),
        None => None,
    };
    let people = people.map(|people| Var::from_tensor(&people)).transpose()?;
    let trained = all.iter().filter(|(name, _)| !name.contains("running_") && *name != CENTRE);
    let mut trained: BTreeMap<String, Var> = trained.map(|(name, var)| (name.clone(), var.clone())).collect();
    trained.extend(people.iter().map(|people| (PEOPLE.to_owned(), people.clone())));
    let optimizer = State::new(stage.optimizer, stage.weight_decay, trained)?;
    let average = stage.ema.map(|decay| Average::new(decay, &all)).transpose()?;
    Ok((net, Tensors { all, people, memory: Memory::default(), optimizer, average }))
}

/// Mean squared distance of all pairs of a batch.
fn spread(embeddings: &Tensor) -> Result<f32> {
    // Of unit vectors: two less twice the squared length of their mean.
    let mean = embeddings.detach().mean(0)?;
    Ok(2.0 - 2.0 * mean.sqr()?.sum_all()?.to_dtype(DType::F32)?.to_scalar::<f32>()?)
}

/// A draw from the normal distribution (Box & Muller 1958).
fn gaussian(rng: &mut ChaCha8Rng) -> f32 {
    let radius = (-2.0 * (1.0 - rng.random::<f32>()).ln()).sqrt();
    radius * (std::f32::consts::TAU * rng.random::<f32>()).cos()
}
