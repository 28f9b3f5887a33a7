//! Vectors like the embeddings of faces: tens of thousands of people, most with few faces and some with many, near a space of few dimensions.
//!
//! A person is a point of 40 factors, mapped to the vector's dimensions; a face is its person moved along 24 factors that all people share (pose,
//! light) and by noise, by as much as the person varies. The numbers were chosen so that the local intrinsic dimension is about 13 and the
//! distances within and between people are as real embeddings have them.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{DIMENSIONS, SEED, draw, normal, to_length};

const PEOPLE: usize = 50_000;
/// What tells people apart, and what tells faces of one apart.
const FACTORS: [usize; 2] = [40, 24];
/// Where the random numbers of people begin; those of faces count from 1.
const PEOPLE_SEED: u64 = SEED + (1 << 40);

/// Unit vectors, one behind the other.
pub(super) fn make(count: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let of_people: Vec<f32> =
        (0..FACTORS[0] * DIMENSIONS).map(|at| strength(at / DIMENSIONS) * normal(&mut rng)).collect();
    let of_faces: Vec<f32> =
        (0..FACTORS[1] * DIMENSIONS).map(|_| normal(&mut rng) / ((FACTORS[1] * DIMENSIONS) as f32).sqrt()).collect();
    // How often each is seen: log-normal.
    let weights: Vec<f32> = (0..PEOPLE).map(|_| (1.1 * normal(&mut rng)).exp()).collect();
    let of = draw(&mut rng, &weights, count);
    // A few vectors show few of the people, and the rest are made of nothing.
    let mut seen = vec![false; PEOPLE];
    of.iter().for_each(|person| seen[*person] = true);
    let made = |(at, seen): (usize, &bool)| if *seen { person(at, &of_people) } else { Default::default() };
    let people: Vec<(Vec<f32>, f32)> = seen.par_iter().enumerate().map(made).collect();
    let face = |(at, of): (usize, &usize)| {
        let mut rng = ChaCha8Rng::seed_from_u64(SEED + 1 + at as u64);
        let (centre, varies) = &people[*of];
        let varies = varies * (0.15 * normal(&mut rng)).exp();
        let mut face = centre.clone();
        for factor in of_faces.chunks_exact(DIMENSIONS) {
            add(&mut face, factor, 0.85 * varies * normal(&mut rng));
        }
        face.iter_mut().for_each(|x| *x += 0.5 * varies * normal(&mut rng) / (DIMENSIONS as f32).sqrt());
        to_length(&mut face, 1.0);
        face
    };
    of.par_iter().enumerate().flat_map_iter(face).collect()
}

/// Where a person is, and how much their faces vary.
fn person(at: usize, factors: &[f32]) -> (Vec<f32>, f32) {
    let mut rng = ChaCha8Rng::seed_from_u64(PEOPLE_SEED + at as u64);
    let squares: f32 = (0..FACTORS[0]).map(|factor| strength(factor).powi(2)).sum();
    let mut centre: Vec<f32> = (0..DIMENSIONS).map(|_| 0.35 * (squares / 10.0).sqrt() * normal(&mut rng)).collect();
    for factor in factors.chunks_exact(DIMENSIONS) {
        add(&mut centre, factor, normal(&mut rng));
    }
    to_length(&mut centre, 1.0);
    (centre, rng.random_range(0.5..0.95))
}

/// How much a factor says about a person, less from one to the next.
fn strength(factor: usize) -> f32 {
    1.0 - 0.65 * factor as f32 / (FACTORS[0] - 1) as f32
}

fn add(sum: &mut [f32], factor: &[f32], by: f32) {
    sum.iter_mut().zip(factor).for_each(|(sum, x)| *sum += by * x);
}
