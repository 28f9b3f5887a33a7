//! The whole state of a run in one safetensors file: weights, running statistics, what the optimiser remembers, the average, the step.
//!
//! | tensor         | meaning                                                                                       |
//! |----------------|-----------------------------------------------------------------------------------------------|
//! | `weight.NAME`  | a variable or running statistic, `f32`                                                        |
//! | `SLOT.NAME`    | what the optimiser remembers of a variable: `momentum`; `first` and `second` moment; or `sum` |
//! | `average.NAME` | the shadow of a variable or running statistic, in runs that average their weights             |
//!
//! The metadata key `run` holds the step and the recipe as JSON. A new file is written beside the old one and renamed, so that a
//! crash leaves one of the two.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{Tensor, Var};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use super::optimizer::State;
use super::optimizer::average::Average;
use crate::{Error, Result};

/// What must agree for a run to go on, and where it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct RunState {
    /// Steps taken.
    pub(super) step: u64,
    /// The options that shape every step, as JSON text: numbers are compared as they were written.
    pub(super) recipe: String,
}

/// The tensors of a run.
pub(super) struct Tensors {
    /// Every tensor of the network, by name.
    pub(super) all: BTreeMap<String, Var>,
    /// What the optimiser remembers.
    pub(super) optimizer: State,
    /// The averaged weights, in runs that have them.
    pub(super) average: Option<Average>,
}

/// Writes the state of a run.
pub(super) fn save(path: &Path, state: &RunState, run: &Tensors) -> Result<()> {
    let mut tensors = BTreeMap::new();
    for (name, var) in &run.all {
        tensors.insert(format!("weight.{name}"), var.as_tensor().clone());
    }
    tensors.extend(run.optimizer.slots().map(|(name, tensor)| (name, tensor.clone())));
    if let Some(average) = &run.average {
        tensors.extend(average.shadow.iter().map(|(name, tensor)| (format!("average.{name}"), tensor.clone())));
    }
    let run = serde_json::to_string(state).map_err(|error| Error::argument("recipe", error.to_string()))?;
    crate::model::weights::write_tensors(path, &tensors, HashMap::from([("run".to_owned(), run)]))
}

/// Reads a state back; returns the steps taken.
///
/// # Errors
/// `Weights` when the file is damaged or of another recipe.
pub(super) fn load(path: &Path, recipe: &str, run: &mut Tensors) -> Result<u64> {
    let wrong = |what: String| Error::Weights { path: path.to_owned(), what };
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| wrong(format!("not a checkpoint: {error}")))?;
    let (_, header) =
        SafeTensors::read_metadata(&bytes).map_err(|error| wrong(format!("not a checkpoint: {error}")))?;
    let state = header.metadata().as_ref().and_then(|all| all.get("run"));
    let state: RunState = state
        .and_then(|state| serde_json::from_str(state).ok())
        .ok_or_else(|| wrong("not a checkpoint of a training run, or of another release".into()))?;
    if state.recipe != recipe {
        let what = format!("the checkpoint was made by another recipe; expected {recipe}, found {}", state.recipe);
        return Err(wrong(what));
    }
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
    for (name, slot) in run.optimizer.slots_mut() {
        *slot = read(name, slot)?;
    }
    for (name, shadow) in run.average.iter_mut().flat_map(|average| &mut average.shadow) {
        *shadow = read(format!("average.{name}"), shadow)?;
    }
    Ok(state.step)
}
