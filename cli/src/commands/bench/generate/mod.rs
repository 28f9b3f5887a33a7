//! Vectors without anything to fetch: seeded, the same for the same sizes.

mod faces;
mod sift;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::vectors::Vectors;

/// What both kinds have.
const DIMENSIONS: usize = 128;
const SEED: u64 = 20_261_123;

/// Which vectors are made
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Like embeddings of the faces of 50,000 people, some of whom are seen far more often than others
    Faces,
    /// Like SIFT descriptors of key points that are seen several times each: whole numbers, none below zero
    Sift,
}

/// So many vectors, and queries drawn as they were.
pub(super) fn make(kind: Kind, count: usize, queries: usize) -> [Vectors; 2] {
    let mut values = match kind {
        Kind::Faces => faces::make(count + queries),
        Kind::Sift => sift::make(count + queries),
    };
    let queries = values.split_off(count * DIMENSIONS);
    [values, queries].map(|values| Vectors::new(DIMENSIONS, values))
}

/// Draws `count` things out of as many as there are weights, each as often as its weight says.
fn draw(rng: &mut ChaCha8Rng, weights: &[f32], count: usize) -> Vec<usize> {
    // In f64, where a weight does not vanish beside the sum of millions.
    let mut sum = 0.0;
    let mut next = |weight: &f32| {
        sum += f64::from(*weight);
        sum
    };
    let sums: Vec<f64> = weights.iter().map(&mut next).collect();
    let last = weights.len() - 1;
    (0..count).map(|_| sums.partition_point(|below| *below < rng.random_range(0.0..sum)).min(last)).collect()
}

/// Normal, with a variance of 1: Box & Muller 1958.
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    let radius = (-2.0 * (1.0 - rng.random::<f32>()).ln()).sqrt();
    radius * (std::f32::consts::TAU * rng.random::<f32>()).cos()
}

fn to_length(vector: &mut [f32], wanted: f32) {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|x| *x *= wanted / length);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use super::*;

    /// Mean squared distance to the nearest other row, and to all.
    fn spread(vectors: &Vectors) -> (f32, f32) {
        let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
        let (mut nearest, mut all) = (0.0, 0.0);
        for (at, row) in vectors.rows().enumerate() {
            let others = vectors.rows().enumerate().filter(|(other, _)| *other != at);
            let distances: Vec<f32> = others.map(|(_, other)| distance(row, other)).collect();
            nearest += distances.iter().copied().fold(f32::INFINITY, f32::min);
            all += distances.iter().sum::<f32>() / distances.len() as f32;
        }
        (nearest / vectors.count() as f32, all / vectors.count() as f32)
    }

    #[test]
    fn what_is_made_is_the_same_each_time_and_has_neighbors() {
        for kind in [Kind::Faces, Kind::Sift] {
            let [mut vectors, queries] = make(kind, 600, 50);
            assert_eq!((vectors.count(), queries.count()), (600, 50));
            let again = make(kind, 600, 50);
            assert!(vectors.rows().eq(again[0].rows()) && queries.rows().eq(again[1].rows()), "{kind:?}");
            vectors.normalise().unwrap();
            let (nearest, all) = spread(&vectors);
            assert!(nearest > 0.0 && nearest < 0.8 * all, "{kind:?}: nearest {nearest}, all {all}");
        }
    }

    #[test]
    fn descriptors_are_whole_numbers_of_a_byte() {
        let [vectors, _] = make(Kind::Sift, 300, 1);
        let whole = |x: &f32| *x == x.round() && (0.0..=255.0).contains(x);
        assert!(vectors.rows().flatten().all(whole));
        assert!(vectors.rows().flatten().any(|x| *x == 0.0), "empty bins are what such descriptors have");
    }
}
