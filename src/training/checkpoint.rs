//! The whole state of a run in one safetensors file: weights, running statistics, the optimiser's moments, the step.
//!
//! | tensor        | meaning                                |
//! |---------------|----------------------------------------|
//! | `weight.NAME` | a variable or running statistic, `f32` |
//! | `first.NAME`  | its first moment                       |
//! | `second.NAME` | its second moment                      |
//!
//! The metadata key `run` holds the step and the recipe as JSON. A new file is written beside the old one and renamed, so that a
//! crash leaves one of the two.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{Device, Tensor, Var};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use super::optimizer::AdamW;
use crate::{Error, Result};

/// What must agree for a run to go on, and where it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct RunState {
    /// Steps taken.
    pub(super) step: u64,
    /// The options that shape every step, as JSON.
    pub(super) recipe: serde_json::Value,
}

/// Writes the state of a run.
pub(super) fn save(path: &Path, state: &RunState, all: &BTreeMap<String, Var>, optimizer: &AdamW) -> Result<()> {
    let mut tensors = BTreeMap::new();
    for (name, var) in all {
        tensors.insert(format!("weight.{name}"), var.as_tensor().clone());
    }
    for (name, (first, second)) in &optimizer.moments {
        tensors.insert(format!("first.{name}"), first.clone());
        tensors.insert(format!("second.{name}"), second.clone());
    }
    let run = serde_json::to_string(state).map_err(|error| Error::argument("recipe", error.to_string()))?;
    crate::model::weights::write_tensors(path, &tensors, HashMap::from([("run".to_owned(), run)]))
}

/// Reads a state back into the variables and the optimiser.
///
/// # Errors
/// `Weights` when the file is damaged or of another recipe.
pub(super) fn load(
    path: &Path,
    recipe: &serde_json::Value,
    all: &BTreeMap<String, Var>,
    optimizer: &mut AdamW,
) -> Result<u64> {
    let wrong = |what: String| Error::Weights { path: path.to_owned(), what };
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| wrong(format!("not a checkpoint: {error}")))?;
    let (_, header) =
        SafeTensors::read_metadata(&bytes).map_err(|error| wrong(format!("not a checkpoint: {error}")))?;
    let run = header.metadata().as_ref().and_then(|all| all.get("run"));
    let state: RunState = run
        .and_then(|run| serde_json::from_str(run).ok())
        .ok_or_else(|| wrong("not a checkpoint of a training run".into()))?;
    if &state.recipe != recipe {
        let what = format!("the checkpoint was made by another recipe; expected {recipe}, found {}", state.recipe);
        return Err(wrong(what));
    }
    let read = |name: String, like: &Tensor| -> Result<Tensor> {
        let view = tensors.tensor(&name).map_err(|_| wrong(format!("tensor {name} is missing")))?;
        let tensor = crate::model::weights::tensor(&view, &Device::Cpu)?;
        if tensor.dims() != like.dims() || tensor.dtype() != like.dtype() {
            return Err(wrong(format!("tensor {name}: expected {:?}, found {:?}", like.shape(), tensor.shape())));
        }
        Ok(tensor)
    };
    for (name, var) in all {
        var.set(&read(format!("weight.{name}"), var)?)?;
    }
    for (name, (first, second)) in &mut optimizer.moments {
        *first = read(format!("first.{name}"), first)?;
        *second = read(format!("second.{name}"), second)?;
    }
    Ok(state.step)
}
