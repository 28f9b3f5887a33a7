//! Vectors like the embeddings of faces: tens of thousands of people, most with few faces and some with many, near a space of few dimensions.
//!
//! A person is a point of 40 factors, mapped to the vector's dimensions; a face is its person moved along 24 factors that all people share (pose,
//! light) and by noise, by as much as the person varies. The numbers were chosen so that the local intrinsic dimension is about 13 and the
//! distances within and between people are as real embeddings have them.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

const PEOPLE: usize = 50_000;
/// What tells people apart, and what tells faces of one apart.
const FACTORS: [usize; 2] = [40, 24];
const SEED: u64 = 20_261_123;

/// Vectors one behind the other.
pub(crate) struct Made {
    pub(crate) vectors: Vec<f32>,
    pub(crate) queries: Vec<f32>,
}

/// The same for the same sizes; queries are other faces of the same people.
pub(crate) fn make(count: usize, queries: usize, dimensions: usize) -> Made {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let strength = |factor: usize| 1.0 - 0.65 * factor as f32 / (FACTORS[0] - 1) as f32;
    let of_people: Vec<f32> =
        (0..FACTORS[0] * dimensions).map(|at| strength(at / dimensions) * normal(&mut rng)).collect();
    let of_faces: Vec<f32> =
        (0..FACTORS[1] * dimensions).map(|_| normal(&mut rng) / ((FACTORS[1] * dimensions) as f32).sqrt()).collect();
    let squares: f32 = (0..FACTORS[0]).map(|factor| strength(factor).powi(2)).sum();
    let people: Vec<(Vec<f32>, f32)> = (0..PEOPLE)
        .map(|_| {
            let mut centre: Vec<f32> =
                (0..dimensions).map(|_| 0.35 * (squares / 10.0).sqrt() * normal(&mut rng)).collect();
            for factor in of_people.chunks_exact(dimensions) {
                add(&mut centre, factor, normal(&mut rng));
            }
            to_unit(&mut centre);
            (centre, rng.random_range(0.5..0.95))
        })
        .collect();
    // How often each is seen: log-normal.
    let weights: Vec<f32> = (0..PEOPLE).map(|_| (1.1 * normal(&mut rng)).exp()).collect();
    let sums: Vec<f32> = weights
        .iter()
        .scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        })
        .collect();
    let mut of: Vec<usize> = (0..count + queries)
        .map(|_| sums.partition_point(|sum| *sum < rng.random_range(0.0..sums[PEOPLE - 1])).min(PEOPLE - 1))
        .collect();
    of.shuffle(&mut rng);
    let face = |(at, person): (usize, &usize)| {
        let mut rng = ChaCha8Rng::seed_from_u64(SEED + 1 + at as u64);
        let (centre, varies) = &people[*person];
        let varies = varies * (0.15 * normal(&mut rng)).exp();
        let mut face = centre.clone();
        for factor in of_faces.chunks_exact(dimensions) {
            add(&mut face, factor, 0.85 * varies * normal(&mut rng));
        }
        face.iter_mut().for_each(|x| *x += 0.5 * varies * normal(&mut rng) / (dimensions as f32).sqrt());
        to_unit(&mut face);
        face
    };
    let mut vectors: Vec<f32> = of.par_iter().enumerate().flat_map_iter(face).collect();
    let queries = vectors.split_off(count * dimensions);
    Made { vectors, queries }
}

fn add(sum: &mut [f32], factor: &[f32], by: f32) {
    sum.iter_mut().zip(factor).for_each(|(sum, x)| *sum += by * x);
}

fn to_unit(vector: &mut [f32]) {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|x| *x /= length);
}

/// Box & Muller 1958.
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    let radius = (-2.0 * (1.0 - rng.random::<f32>()).ln()).sqrt();
    radius * (std::f32::consts::TAU * rng.random::<f32>()).cos()
}
