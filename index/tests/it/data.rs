//! Vectors to test with, and the plainest search there is.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use vultus_index::{Effort, Neighbor, Options, Result, Search, Snapshot};

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

pub(crate) fn options(dimensions: usize, graph_vectors_min: usize) -> Options {
    Options { dimensions, graph_vectors_min, ..Options::default() }
}

pub(crate) fn exactly(k: usize) -> Search<'static> {
    Search { k, effort: Effort::Exact, ..Search::default() }
}

/// Everything an index answers, to tell two of them apart bit for bit.
#[derive(Debug, PartialEq)]
pub(crate) struct Answers {
    sequence: u64,
    /// Of each id, the bits.
    pub(crate) vectors: Vec<(u64, Vec<u32>)>,
    found: Vec<Vec<Neighbor>>,
}

/// # Errors
/// The first that an answer meets.
pub(crate) fn answers(index: &Snapshot, efforts: [Effort; 2]) -> Result<Answers> {
    let mut vectors = Vec::new();
    for id in index.scroll(0, usize::MAX)? {
        let vector = index.vector(id)?.expect("a scrolled id has a vector");
        vectors.push((id, vector.iter().map(|x| x.to_bits()).collect::<Vec<u32>>()));
    }
    let dimensions = vectors.first().map_or(1, |(_, vector)| vector.len());
    let searches = efforts.map(|effort| Search { k: 5, effort, ..Search::default() });
    let queries = (9_000..9_008).flat_map(|query| searches.map(|search| (query, search)));
    let found = queries.map(|(query, search)| index.search(&numbered(query, dimensions), &search));
    Ok(Answers { sequence: index.sequence(), found: found.collect::<Result<_>>()?, vectors })
}
