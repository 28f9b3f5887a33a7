//! AdamW whose state can be saved: the stock one keeps its moments private, so a run could not be resumed.
//!
//! Loshchilov & Hutter 2019 (arXiv:1711.05101), algorithm 2. Matrices and kernels are decayed, scales and offsets are not.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// The variables of a run and their moments, by name.
pub(super) struct AdamW {
    variables: BTreeMap<String, Var>,
    /// First and second moment of each variable.
    pub(super) moments: BTreeMap<String, (Tensor, Tensor)>,
    weight_decay: f64,
}

impl AdamW {
    pub(super) fn new(variables: BTreeMap<String, Var>, weight_decay: f64) -> Result<Self> {
        let zeros = |(name, var): (&String, &Var)| Ok((name.clone(), (var.zeros_like()?, var.zeros_like()?)));
        let moments = variables.iter().map(zeros).collect::<Result<_>>()?;
        Ok(Self { variables, moments, weight_decay })
    }

    /// One update; `step` counts from 1.
    pub(super) fn update(&mut self, grads: &GradStore, learning_rate: f64, step: u64) -> Result<()> {
        let correction = |beta: f64| 1.0 - beta.powi(i32::try_from(step).unwrap_or(i32::MAX));
        let (first_scale, second_scale) = (1.0 / correction(BETA_1), 1.0 / correction(BETA_2));
        for (name, var) in &self.variables {
            let (Some(grad), Some((first, second))) = (grads.get(var), self.moments.get_mut(name)) else { continue };
            *first = ((&*first * BETA_1)? + (grad * (1.0 - BETA_1))?)?;
            *second = ((&*second * BETA_2)? + (grad.sqr()? * (1.0 - BETA_2))?)?;
            let direction = ((&*first * first_scale)? / ((&*second * second_scale)?.sqrt()? + EPSILON)?)?;
            let decay = if var.rank() > 1 { 1.0 - learning_rate * self.weight_decay } else { 1.0 };
            var.set(&((var.as_tensor().detach() * decay)? - (direction * learning_rate)?)?)?;
        }
        Ok(())
    }
}
