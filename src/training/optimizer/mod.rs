//! Gradients → new weights: SGD, AdamW or AdaGrad, with everything that they remember in the open.
//!
//! candle's SGD has no momentum and its AdamW keeps its moments to itself, so that a run could not be resumed. Here a rule is a
//! few named tensors for each variable (its slots) and one formula. On the CPU the formula is one pass over each variable
//! ([`fused`]); on other devices it is written in tensor operations ([`tensors`]), and a test holds the two to each other.
//!
//! With `g` the gradient (clipped), `d` the weight decay (zero for scales and offsets) and `r` the learning rate:
//!
//! | rule    | slots             | update of the slots and of `w`                                                        |
//! |---------|-------------------|---------------------------------------------------------------------------------------|
//! | SGD     | `momentum`        | `v ← momentum·v + (g + d·w)`; `w ← w - r·v`; Nesterov: `w ← w - r·(g + d·w + momentum·v)` |
//! | AdamW   | `first`, `second` | `m ← β₁·m + (1-β₁)·g`; `v ← β₂·v + (1-β₂)·g²`; `w ← w - r·(m̂ / (√v̂ + 1e-8) + d·w)`       |
//! | AdaGrad | `sum`             | `s ← s + (g + d·w)²`; `w ← w - r·(g + d·w) / (√s + 1e-10)`                                |
//!
//! These are PyTorch's conventions: no dampening, the learning rate outside the momentum, AdaGrad's sum begins at zero.

pub(super) mod average;
mod fused;
pub(super) mod schedule;
mod tensors;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{DType, Result, Tensor, Var};
use serde::{Deserialize, Serialize};

/// How gradients change weights; the module's table says it in formulas.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Optimizer {
    /// Stochastic gradient descent with momentum (Sutskever et al., ICML 2013); weight decay is added to the gradient.
    Sgd {
        /// Share of the last direction that is kept, 0 to 1.
        momentum: f64,
        /// Whether the step looks ahead along the momentum (Nesterov).
        nesterov: bool,
    },
    /// Loshchilov & Hutter 2019 (arXiv:1711.05101), algorithm 2: weight decay apart from the gradient.
    AdamW {
        /// Share of the first moment that is kept, 0 to 1.
        beta_1: f64,
        /// Share of the second moment that is kept, 0 to 1.
        beta_2: f64,
    },
    /// Duchi et al. 2011 (JMLR 12), what the FaceNet paper trained with (section 3.3); weight decay is added to the gradient.
    AdaGrad,
}

impl Default for Optimizer {
    fn default() -> Self {
        Self::AdamW { beta_1: 0.9, beta_2: 0.999 }
    }
}

impl Optimizer {
    /// Names of the tensors that are kept for each variable.
    fn slots(&self) -> &'static [&'static str] {
        match self {
            Self::Sgd { .. } => &["momentum"],
            Self::AdamW { .. } => &["first", "second"],
            Self::AdaGrad => &["sum"],
        }
    }
}

/// Keeps a square root of zero from dividing.
const ADAMW_EPSILON: f64 = 1e-8;
const ADAGRAD_EPSILON: f64 = 1e-10;

/// The trained variables and the optimiser's memory of each, by name.
pub(super) struct State {
    rule: Optimizer,
    weight_decay: f64,
    variables: BTreeMap<String, Variable>,
}

/// A variable and its slots, in the order of [`Optimizer::slots`].
struct Variable {
    var: Var,
    slots: Vec<Tensor>,
}

/// What one update depends on besides the gradients.
#[derive(Clone, Copy, Debug)]
pub(super) struct Update {
    /// The number of the step, from 1.
    pub(super) step: u64,
    pub(super) learning_rate: f64,
    /// What every gradient is multiplied by: below 1 when the step is clipped.
    pub(super) scale: f64,
}

impl State {
    /// With slots of zeros.
    pub(super) fn new(rule: Optimizer, weight_decay: f64, variables: BTreeMap<String, Var>) -> Result<Self> {
        let with_slots = |(name, var): (String, Var)| {
            let slots = rule.slots().iter().map(|_| var.zeros_like()).collect::<Result<_>>()?;
            Ok((name, Variable { var, slots }))
        };
        let variables = variables.into_iter().map(with_slots).collect::<Result<_>>()?;
        Ok(Self { rule, weight_decay, variables })
    }

    /// Every slot as `SLOT.VARIABLE`.
    pub(super) fn slots(&self) -> impl Iterator<Item = (String, &Tensor)> {
        self.variables.iter().flat_map(|(name, variable)| {
            self.rule.slots().iter().zip(&variable.slots).map(move |(slot, tensor)| (format!("{slot}.{name}"), tensor))
        })
    }

    /// The same, to be replaced.
    pub(super) fn slots_mut(&mut self) -> impl Iterator<Item = (String, &mut Tensor)> {
        let names = self.rule.slots();
        self.variables.iter_mut().flat_map(move |(name, variable)| {
            names.iter().zip(&mut variable.slots).map(move |(slot, tensor)| (format!("{slot}.{name}"), tensor))
        })
    }

    /// Length of all gradients together, as one vector.
    pub(super) fn gradient_norm(&self, grads: &GradStore) -> Result<f64> {
        let mut sum = 0.0;
        // Sums that wait on another device, so that they come over in one go.
        let mut elsewhere = Vec::new();
        for grad in self.variables.values().filter_map(|variable| grads.get(&variable.var)) {
            if grad.device().is_cpu() {
                sum += fused::squares(grad)?;
            } else {
                elsewhere.push(grad.sqr()?.sum_all()?.to_dtype(DType::F32)?);
            }
        }
        if !elsewhere.is_empty() {
            sum += Tensor::stack(&elsewhere, 0)?.to_vec1::<f32>()?.into_iter().map(f64::from).sum::<f64>();
        }
        Ok(sum.sqrt())
    }

    /// One update of every variable that has a gradient.
    pub(super) fn update(&mut self, grads: &GradStore, update: Update) -> Result<()> {
        for Variable { var, slots } in self.variables.values_mut() {
            let Some(grad) = grads.get(var) else { continue };
            // Matrices and kernels are decayed, scales and offsets are not.
            let weight_decay = if var.rank() > 1 { self.weight_decay } else { 0.0 };
            let formula = Formula::new(self.rule, weight_decay, update);
            match var.device().is_cpu() {
                true => formula.fused(var, slots, grad)?,
                false => formula.by_tensors(var, slots, grad)?,
            }
        }
        Ok(())
    }
}

/// The numbers of one variable's update.
#[derive(Clone, Copy)]
struct Formula {
    rule: Optimizer,
    weight_decay: f64,
    rate: f64,
    scale: f64,
    /// AdamW's `1 / (1 - β₁ᵗ)` and `1 / (1 - β₂ᵗ)`: what makes up for moments that began at zero.
    corrections: [f64; 2],
}

impl Formula {
    fn new(rule: Optimizer, weight_decay: f64, update: Update) -> Self {
        let step = i32::try_from(update.step).unwrap_or(i32::MAX);
        let corrections = match rule {
            Optimizer::AdamW { beta_1, beta_2 } => [beta_1, beta_2].map(|beta| 1.0 / (1.0 - beta.powi(step))),
            _ => [1.0, 1.0],
        };
        Self { rule, weight_decay, rate: update.learning_rate, scale: update.scale, corrections }
    }
}
