//! Every face with every other: how many people are told apart at which false-accept rate.
//!
//! Distances are counted in 65,536 steps of 0 to 4, so millions of pairs take no memory; a threshold is right to half a step, 3e-5.

use rayon::prelude::*;

use crate::{Embedding, Error, OperatingPoint, Result};

/// Steps of distance.
const STEPS: usize = 1 << 16;

/// Pairs of different people that must lie behind a rate: with fewer, it is chance.
const PAIRS_BEHIND_MIN: u64 = 10;

/// Pairs by distance.
#[derive(Clone, Debug)]
pub struct AllPairs {
    same: Vec<u64>,
    different: Vec<u64>,
    /// Pairs of one person.
    pub same_pairs: u64,
    /// Pairs of two people.
    pub different_pairs: u64,
}

/// Compares all faces; `people` says whose each is.
///
/// # Errors
/// [`Error::Argument`] unless there are pairs of both kinds.
pub fn all_pairs(embeddings: &[Embedding], people: &[u32]) -> Result<AllPairs> {
    if embeddings.len() != people.len() {
        let what = format!("{} people for {} faces", people.len(), embeddings.len());
        return Err(Error::argument("people", what));
    }
    let none = || [vec![0u64; STEPS], vec![0u64; STEPS]];
    let [same, different] = (0..embeddings.len())
        .into_par_iter()
        .fold(none, |mut counts, a| {
            for b in a + 1..embeddings.len() {
                let distance = embeddings[a].distance(&embeddings[b]);
                let step = (distance / 4.0 * STEPS as f32) as usize;
                counts[usize::from(people[a] != people[b])][step.min(STEPS - 1)] += 1;
            }
            counts
        })
        .reduce(none, |mut sum, counts| {
            for (sum, counts) in sum.iter_mut().zip(counts) {
                sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            }
            sum
        });
    let [same_pairs, different_pairs] = [&same, &different].map(|counts| counts.iter().sum());
    if same_pairs == 0 || different_pairs == 0 {
        let what = format!("{same_pairs} pairs of one person and {different_pairs} of two: expected some of both");
        return Err(Error::argument("photos", what));
    }
    Ok(AllPairs { same, different, same_pairs, different_pairs })
}

impl AllPairs {
    /// The largest distance at which at most `far` of the pairs of two people are accepted, and what it accepts; none where fewer than ten such pairs
    /// would be behind the rate.
    pub fn at(&self, far: f64) -> Option<OperatingPoint> {
        let most = (far * self.different_pairs as f64).floor() as u64;
        if most < PAIRS_BEHIND_MIN {
            return None;
        }
        let mut accepted = 0;
        let steps = self.different.iter().take_while(|count| {
            accepted += **count;
            accepted <= most
        });
        Some(self.point(steps.count()))
    }

    /// What is accepted below a number of steps.
    fn point(&self, steps: usize) -> OperatingPoint {
        let share = |counts: &[u64], all: u64| counts[..steps].iter().sum::<u64>() as f64 / all as f64;
        OperatingPoint {
            far: share(&self.different, self.different_pairs),
            distance: 4.0 * steps as f32 / STEPS as f32,
            val: share(&self.same, self.same_pairs),
        }
    }

    /// The receiver operating characteristic: ten points for each factor of ten in the false-accept rate, from the lowest that can be told.
    pub fn curve(&self) -> Vec<OperatingPoint> {
        let lowest = PAIRS_BEHIND_MIN as f64 / self.different_pairs as f64;
        let steps = (-lowest.log10() * 10.0).floor().max(0.0) as i32;
        (0..=steps).rev().filter_map(|step| self.at(10f64.powf(-f64::from(step) / 10.0))).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::Calibration;

    #[test]
    fn rates_are_those_of_the_pairs_one_by_one() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let people: Vec<u32> = (0..120).map(|face| face / 3).collect();
        let mut centre = vec![0.0f32; 128];
        let mut embeddings = Vec::new();
        for face in 0..120 {
            if face % 3 == 0 {
                centre.iter_mut().for_each(|value| *value = rng.random_range(-1.0..1.0));
            }
            let near: Vec<f32> = centre.iter().map(|value| value + rng.random_range(-1.2..1.2)).collect();
            embeddings.push(Embedding::normalized(&near).unwrap());
        }
        let found = all_pairs(&embeddings, &people).unwrap();
        let (mut same, mut different) = (Vec::new(), Vec::new());
        for (a, b) in (0..120).flat_map(|a| (a + 1..120).map(move |b| (a, b))) {
            let pairs = if people[a] == people[b] { &mut same } else { &mut different };
            pairs.push(embeddings[a].distance(&embeddings[b]));
        }
        assert_eq!((found.same_pairs, found.different_pairs), (same.len() as u64, different.len() as u64));
        let calibration = Calibration::measure("t", &same, &different).unwrap();
        for point in &calibration.points {
            let near = found.at(point.far * 1.0001).unwrap();
            // The largest distance that lets no more pass, not that of the last which passes.
            let step = 4.0 / STEPS as f32;
            assert!(near.distance + step >= point.distance, "{near:?} instead of {point:?}");
            let passing = |pairs: &[f32]| pairs.iter().filter(|distance| **distance < near.distance).count();
            assert!(
                passing(&different).abs_diff((point.far * different.len() as f64).round() as usize) <= 4,
                "{near:?}"
            );
            assert!(different.iter().any(|d| (near.distance..near.distance + step).contains(d)) || near.far == 1.0);
            assert!(
                (near.val - passing(&same) as f64 / same.len() as f64).abs() <= 1.0 / same.len() as f64,
                "{near:?}"
            );
        }
        assert!(found.at(9.0 / different.len() as f64).is_none(), "nine pairs are chance");
        let curve = found.curve();
        assert!(curve.windows(2).all(|pair| pair[0].far <= pair[1].far && pair[0].val <= pair[1].val));
        assert_eq!((curve.last().unwrap().far, curve.last().unwrap().val), (1.0, 1.0));
        assert!(all_pairs(&embeddings[..3], &people[..3]).is_err(), "one person");
        assert!(all_pairs(&embeddings, &people[..3]).is_err());
    }
}
