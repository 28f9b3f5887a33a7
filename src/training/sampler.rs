//! Which crops make a batch: P people with K crops each.
//!
//! People of two sources may be the same person under two names. So the negatives of a triplet come from one source, and where triplets are
//! mined a batch is best drawn from one.

use rand::Rng;
use rand::seq::{IndexedRandom, index};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::data::Identity;
use crate::{Error, Result};

/// How crops are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batches {
    /// P: people in a batch, fewer where there are not as many.
    pub people: usize,
    /// K: crops of each. People with fewer give all they have; those with a single one are drawn only where one is asked for.
    pub crops: usize,
    /// Where the people of a batch come from.
    #[serde(default)]
    pub from: People,
    /// A person with n crops is drawn in proportion to n to this power: 0 draws everybody alike, 1 every crop.
    #[serde(default)]
    pub balance: f32,
}

/// Where the people of a batch come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum People {
    /// One source, drawn as often as its share of the people's weights.
    #[default]
    OneSource,
    /// All sources.
    AllSources,
}

impl Default for Batches {
    fn default() -> Self {
        Self { people: 32, crops: 4, from: People::default(), balance: 0.0 }
    }
}

impl Batches {
    pub(super) fn check(&self) -> Result<()> {
        if self.people < 2 || self.crops < 1 {
            let what = format!("{} people x {} crops: expected at least 2 x 1", self.people, self.crops);
            return Err(Error::argument("batch", what));
        }
        if !(0.0..=1.0).contains(&self.balance) {
            return Err(Error::argument("balance", format!("{}: expected a power, 0 to 1", self.balance)));
        }
        Ok(())
    }
}

/// One crop of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Index of the crop in the data.
    pub crop: usize,
    /// Index of the person in the data.
    pub identity: usize,
}

/// Draws batches.
#[derive(Clone, Debug)]
pub struct Sampler {
    pools: Vec<Pool>,
    batches: Batches,
}

/// People who may meet in a batch.
#[derive(Clone, Debug, Default)]
struct Pool {
    people: Vec<Candidate>,
    weight: f64,
}

#[derive(Clone, Debug)]
struct Candidate {
    identity: usize,
    crops: Vec<usize>,
    weight: f64,
}

impl Sampler {
    /// # Errors
    /// `Argument` when no source has two people with as many crops as are needed, or the sizes make no sense.
    pub fn new(identities: &[Identity], batches: Batches) -> Result<Self> {
        batches.check()?;
        let fewest = batches.crops.min(2);
        let mut pools = std::collections::BTreeMap::<&str, Pool>::new();
        for (index, identity) in identities.iter().enumerate().filter(|(_, one)| one.crops.len() >= fewest) {
            let source = if batches.from == People::OneSource { identity.source.as_str() } else { "" };
            let weight = (identity.crops.len() as f64).powf(f64::from(batches.balance));
            let pool = pools.entry(source).or_default();
            pool.people.push(Candidate { identity: index, crops: identity.crops.clone(), weight });
            pool.weight += weight;
        }
        let pools: Vec<_> = pools.into_values().filter(|pool| pool.people.len() >= 2).collect();
        if pools.is_empty() {
            let what = format!("no source has two people with at least {fewest} crops each");
            return Err(Error::argument("data", what));
        }
        Ok(Self { pools, batches })
    }

    /// One batch, crops of a person next to each other, nobody twice.
    pub fn draw(&self, rng: &mut ChaCha8Rng) -> Vec<Draw> {
        let total: f64 = self.pools.iter().map(|pool| pool.weight).sum();
        let mut place = rng.random_range(0.0..total);
        let mut pool = &self.pools[0];
        for next in &self.pools {
            pool = next;
            if place < next.weight {
                break;
            }
            place -= next.weight;
        }
        let mut draws = Vec::with_capacity(self.batches.people * self.batches.crops);
        for at in pool.some(self.batches.people, rng) {
            let Candidate { identity, crops, .. } = &pool.people[at];
            let crops: Vec<usize> = crops.choose_multiple(rng, self.batches.crops).copied().collect();
            draws.extend(crops.into_iter().map(|crop| Draw { crop, identity: *identity }));
        }
        draws
    }
}

impl Pool {
    /// That many people, each in proportion to the weight.
    fn some(&self, count: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
        let count = count.min(self.people.len());
        let weighted = index::sample_weighted(rng, self.people.len(), |at| self.people[at].weight, count);
        // Weights are powers of counts above zero, so they can't be refused.
        weighted.map(index::IndexVec::into_vec).unwrap_or_default()
    }
}
