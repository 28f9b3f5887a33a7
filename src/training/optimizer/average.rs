//! Averaged weights: a shadow of every tensor that follows it slowly, and embeds better than where the last step happened to end.
//!
//! Polyak & Juditsky 1992, as an exponential moving average. The decay grows with the steps, so that the first weights, which
//! are noise, are soon forgotten.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor, Var};

use super::fused::approach;

/// The shadow of every tensor of a network, running statistics too.
pub(in crate::training) struct Average {
    decay: f64,
    pub(in crate::training) shadow: BTreeMap<String, Tensor>,
}

impl Average {
    /// Begins with the weights as they are.
    pub(in crate::training) fn new(decay: f64, all: &BTreeMap<String, Var>) -> Result<Self> {
        let copies = all.iter().map(|(name, var)| Ok((name.clone(), var.as_tensor().detach().copy()?)));
        Ok(Self { decay, shadow: copies.collect::<Result<_>>()? })
    }

    /// Moves the shadow towards the weights after `step`, counted from 1.
    pub(in crate::training) fn follow(&mut self, all: &BTreeMap<String, Var>, step: u64) -> Result<()> {
        let share = 1.0 - decay_at(self.decay, step);
        for (shadow, var) in self.shadow.values_mut().zip(all.values()) {
            if var.device().is_cpu() {
                approach(shadow, var, share as f32)?;
            } else {
                let away = (var.as_tensor().detach() - &*shadow)?;
                *shadow = (&*shadow + (away * share)?)?;
            }
        }
        Ok(())
    }
}

/// `min(decay, (1 + step) / (10 + step))`.
pub(super) fn decay_at(decay: f64, step: u64) -> f64 {
    decay.min((1.0 + step as f64) / (10.0 + step as f64))
}
