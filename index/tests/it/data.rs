//! Vectors to test with, and the plainest search there is.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use vultus_index::{Index, Neighbor, Options, Search};

/// Unit vectors around centres, as embeddings of people are, from a seed.
pub(crate) fn clustered(seed: u64, count: usize, dimensions: usize) -> Vec<Vec<f32>> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut floats = |spread: f32| (0..dimensions).map(|_| random.random_range(-spread..spread)).collect::<Vec<f32>>();
    let centres: Vec<Vec<f32>> = (0..count.div_ceil(20)).map(|_| unit(&floats(1.0))).collect();
    (0..count)
        .map(|i| {
            let noise = floats(1.5 / (dimensions as f32).sqrt());
            let sum: Vec<f32> = centres[i % centres.len()].iter().zip(noise).map(|(a, b)| a + b).collect();
            unit(&sum)
        })
        .collect()
}

/// A vector that depends on its number alone.
pub(crate) fn numbered(number: u64, dimensions: usize) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(number);
    unit(&(0..dimensions).map(|_| random.random_range(-1.0..1.0)).collect::<Vec<f32>>())
}

pub(crate) fn unit(vector: &[f32]) -> Vec<f32> {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter().map(|x| x / length).collect()
}

pub(crate) const fn options(dimensions: usize, graph_vectors_min: usize) -> Options {
    Options { dimensions, graph_vectors_min }
}

pub(crate) fn exactly(k: usize) -> Search<'static> {
    Search { k, exact: true, ..Search::default() }
}

/// Everything an index answers, to tell two of them apart bit for bit.
#[derive(Debug, PartialEq)]
pub(crate) struct Answers {
    sequence: u64,
    vectors: Vec<(u64, Vec<u32>)>,
    found: Vec<Vec<Neighbor>>,
}

pub(crate) fn answers(index: &Index) -> Answers {
    let ids = index.scroll(0, usize::MAX);
    let bits = |id| {
        let vector: &[f32] = index.vector(id).expect("a scrolled id has a vector");
        vector.iter().map(|x| x.to_bits()).collect::<Vec<u32>>()
    };
    let vectors: Vec<(u64, Vec<u32>)> = ids.into_iter().map(|id| (id, bits(id))).collect();
    let dimensions = vectors.first().map_or(0, |(_, vector)| vector.len());
    let searches = [exactly(5), Search { k: 5, ef: 16, ..Search::default() }];
    let found = (9_000..9_008).flat_map(|query| {
        let query = numbered(query, dimensions);
        searches.map(|search| index.search(&query, &search).expect("the query is a unit vector of the right length"))
    });
    Answers { sequence: index.sequence(), found: found.collect(), vectors }
}

/// The `k` nearest, in `f64`, of what a map holds.
pub(crate) fn brute_force(held: &BTreeMap<u64, Vec<f32>>, query: &[f32], k: usize) -> Vec<(u64, f64)> {
    let distance =
        |vector: &[f32]| vector.iter().zip(query).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    let mut all: Vec<(u64, f64)> = held.iter().map(|(id, vector)| (*id, distance(vector))).collect();
    all.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    all.truncate(k);
    all
}
