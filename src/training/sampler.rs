//! Which crops make a batch: P people with K crops each, all from one source.
//!
//! People of two sources may be the same person under two names, so negatives are drawn from one source only.

use rand::Rng;
use rand::seq::{IndexedRandom, index};
use rand_chacha::ChaCha8Rng;

use super::data::Identity;
use crate::{Error, Result};

/// The shape of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchShape {
    /// P.
    pub people: usize,
    /// K: crops of each; people with fewer give all they have, at least two.
    pub crops: usize,
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
    /// For each source with at least two usable people: these people, and the crops of each.
    sources: Vec<Vec<(usize, Vec<usize>)>>,
    shape: BatchShape,
}

impl Sampler {
    /// People with a single crop are left out: they have no positive.
    ///
    /// # Errors
    /// `Argument` when no source has two people with two crops, or the shape asks for fewer than two of either.
    pub fn new(identities: &[Identity], shape: BatchShape) -> Result<Self> {
        if shape.people < 2 || shape.crops < 2 {
            let what = format!("{} people x {} crops: expected at least 2 x 2", shape.people, shape.crops);
            return Err(Error::argument("batch", what));
        }
        let mut sources = std::collections::BTreeMap::<&str, Vec<_>>::new();
        for (index, identity) in identities.iter().enumerate().filter(|(_, identity)| identity.crops.len() >= 2) {
            sources.entry(&identity.source).or_default().push((index, identity.crops.clone()));
        }
        let sources: Vec<_> = sources.into_values().filter(|people| people.len() >= 2).collect();
        if sources.is_empty() {
            return Err(Error::argument("data", "no source has two people with two crops each"));
        }
        Ok(Self { sources, shape })
    }

    /// One batch, crops of a person next to each other. A source is drawn as often as its share of the people.
    pub fn draw(&self, rng: &mut ChaCha8Rng) -> Vec<Draw> {
        let total: usize = self.sources.iter().map(Vec::len).sum();
        let mut place = rng.random_range(0..total);
        let mut people = &self.sources[0];
        for source in &self.sources {
            people = source;
            if place < source.len() {
                break;
            }
            place -= source.len();
        }
        let chosen = index::sample(rng, people.len(), self.shape.people.min(people.len()));
        let mut draws = Vec::with_capacity(self.shape.people * self.shape.crops);
        for at in chosen {
            let (identity, crops) = &people[at];
            let crops: Vec<usize> = crops.choose_multiple(rng, self.shape.crops).copied().collect();
            draws.extend(crops.into_iter().map(|crop| Draw { crop, identity: *identity }));
        }
        draws
    }
}
