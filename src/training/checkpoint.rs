//! The whole state of a run in one safetensors file: weights, running statistics, what the optimiser remembers, the average, the step.
//!
//! | tensor         | meaning                                                                                       |
//! |----------------|-----------------------------------------------------------------------------------------------|
//! | `weight.NAME`  | a variable or running statistic, `f32`                                                        |
//! | `people`       | the directions of a softmax, a row a person, once there was one                               |
//! | `memory`       | faces that triplets remember, a row each                                                      |
//! | `SLOT.NAME`    | what the optimiser remembers of a variable: `momentum`; `first` and `second` moment; or `sum` |
//! | `average.NAME` | the shadow of a variable or running statistic, in runs that average their weights             |
//!
//! The metadata key `run` holds the step, the recipe and whose the remembered faces are as JSON. A new file is written beside the old one and renamed, so that a
//! crash leaves one of the two.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor, Var};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use super::loss::Memory;
use super::optimizer::State;
use super::optimizer::average::Average;
use crate::{Embedding, Error, Result};

/// What must agree for a run to go on, and where it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct RunState {
    /// Steps taken.
    pub(super) step: u64,
    /// What of the recipe shaped them, as JSON text: numbers are compared as they were written.
    pub(super) recipe: String,
    /// Whose the faces are that triplets remember.
    #[serde(default)]
    pub(super) remembered: Vec<usize>,
}

/// The tensors of a run.
pub(super) struct Tensors {
    /// Every tensor of the network, by name.
    pub(super) all: BTreeMap<String, Var>,
    /// The directions of a softmax: a row a person.
    pub(super) people: Option<Var>,
    /// Faces that triplets remember.
    pub(super) memory: Memory,
    /// What the optimiser remembers.
    pub(super) optimizer: State,
    /// The averaged weights, in stages that have them.
    pub(super) average: Option<Average>,
}

/// Writes the state of a run.
pub(super) fn save(path: &Path, state: &RunState, run: &Tensors) -> Result<()> {
    let mut tensors = BTreeMap::new();
    for (name, var) in &run.all {
        tensors.insert(format!("weight.{name}"), var.as_tensor().clone());
    }
    tensors.extend(run.people.iter().map(|people| ("people".to_owned(), people.as_tensor().clone())));
    tensors.extend(run.memory.embeddings.iter().map(|embeddings| ("memory".to_owned(), embeddings.clone())));
    tensors.extend(run.optimizer.slots().map(|(name, tensor)| (name, tensor.clone())));
    if let Some(average) = &run.average {
        tensors.extend(average.shadow.iter().map(|(name, tensor)| (format!("average.{name}"), tensor.clone())));
    }
    let run = serde_json::to_string(state).map_err(|error| Error::argument("recipe", error.to_string()))?;
    crate::model::weights::write_tensors(path, &tensors, HashMap::from([("run".to_owned(), run)]))
}

/// A checkpoint as it was read.
pub(super) struct Stored {
    path: PathBuf,
    bytes: Vec<u8>,
    state: RunState,
}

impl Stored {
    /// # Errors
    /// `Io`; `Weights` when the file is no checkpoint.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let damaged = |error| wrong(path, format!("not a checkpoint: {error}"));
        SafeTensors::deserialize(&bytes).map_err(damaged)?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(damaged)?;
        let state = header.metadata().as_ref().and_then(|all| all.get("run"));
        let state = state
            .and_then(|state| serde_json::from_str(state).ok())
            .ok_or_else(|| wrong(path, "not a checkpoint of a training run, or of another release".into()))?;
        Ok(Self { path: path.to_owned(), bytes, state })
    }

    pub(super) fn state(&self) -> &RunState {
        &self.state
    }

    /// Whether its steps were those of this recipe.
    ///
    /// # Errors
    /// `Weights` if not.
    pub(super) fn check(&self, recipe: &str) -> Result<()> {
        if self.state.recipe == recipe {
            return Ok(());
        }
        let found = &self.state.recipe;
        let what = format!("the checkpoint was made by another recipe; expected {recipe}, found {found}");
        Err(wrong(&self.path, what))
    }

    /// Fills the tensors of a run.
    ///
    /// # Errors
    /// `Weights` when one is missing or has another shape.
    pub(super) fn load(&self, run: &mut Tensors) -> Result<()> {
        let wrong = |what: String| wrong(&self.path, what);
        let tensors = SafeTensors::deserialize(&self.bytes).map_err(|error| wrong(error.to_string()))?;
        let read = |name: String, like: &Tensor| -> Result<Tensor> {
            let view = tensors.tensor(&name).map_err(|_| wrong(format!("tensor {name} is missing")))?;
            let tensor = crate::model::weights::tensor(&view, like.device())?;
            if tensor.dims() != like.dims() || tensor.dtype() != like.dtype() {
                return Err(wrong(format!("tensor {name}: expected {:?}, found {:?}", like.shape(), tensor.shape())));
            }
            Ok(tensor)
        };
        for (name, var) in &run.all {
            var.set(&read(format!("weight.{name}"), var)?)?;
        }
        if let Some(people) = &run.people {
            people.set(&read("people".to_owned(), people)?)?;
        }
        let remembered = &self.state.remembered;
        if let (false, Some(var)) = (remembered.is_empty(), run.all.values().next()) {
            let shape = (remembered.len(), Embedding::DIMENSIONS);
            let embeddings = read("memory".to_owned(), &Tensor::zeros(shape, DType::F32, var.device())?)?;
            run.memory = Memory { embeddings: Some(embeddings), labels: remembered.clone() };
        }
        for (name, slot) in run.optimizer.slots_mut() {
            *slot = read(name, slot)?;
        }
        for (name, shadow) in run.average.iter_mut().flat_map(|average| &mut average.shadow) {
            *shadow = read(format!("average.{name}"), shadow)?;
        }
        Ok(())
    }
}

fn wrong(path: &Path, what: String) -> Error {
    Error::Weights { path: path.to_owned(), what }
}
