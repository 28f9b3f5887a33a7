//! Vectors like SIFT descriptors: 4 x 4 cells of histograms of the directions of edges, as whole numbers.
//!
//! A key point is a few edges; a descriptor is one view of it, in which the edges have moved, turned and become stronger or weaker. Some
//! key points are seen far more often than others. The edges are laid into the bins as Lowe 2004 ("Distinctive Image Features from
//! Scale-Invariant Keypoints", section 6) has it: shared between neighbouring bins, weighted by a Gaussian around the middle, scaled to
//! unit length, clipped at 0.2, scaled again, times 512.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{DIMENSIONS, SEED, draw, normal, to_length};

/// Cells along a side, and directions in each.
const CELLS: usize = 4;
const DIRECTIONS: usize = 8;
/// Views of a key point, on average.
const VIEWS: usize = 6;
/// Points that an edge is laid out as.
const SAMPLES: i16 = 10;
/// Where the random numbers of key points begin; those of views count from 1.
const POINTS_SEED: u64 = SEED + (1 << 41);

/// One straight edge, in units of cells and of directions.
#[derive(Clone, Copy)]
struct Edge {
    middle: [f32; 2],
    direction: f32,
    length: f32,
    strength: f32,
}

/// Descriptors, one behind the other.
pub(super) fn make(count: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let weights: Vec<f32> = (0..count.div_ceil(VIEWS)).map(|_| normal(&mut rng).exp()).collect();
    let of = if weights.is_empty() { Vec::new() } else { draw(&mut rng, &weights, count) };
    of.par_iter().enumerate().flat_map_iter(|(at, point)| view(at, &edges(*point))).collect()
}

/// The edges of a key point.
fn edges(point: usize) -> Vec<Edge> {
    let mut rng = ChaCha8Rng::seed_from_u64(POINTS_SEED + point as u64);
    let edge = |rng: &mut ChaCha8Rng| Edge {
        middle: [(); 2].map(|()| rng.random_range(0.0..(CELLS - 1) as f32)),
        direction: rng.random_range(0.0..DIRECTIONS as f32),
        length: rng.random_range(0.5..3.5),
        strength: (0.7 * normal(rng)).exp(),
    };
    (0..rng.random_range(3..=9)).map(|_| edge(&mut rng)).collect()
}

/// One view of a key point.
fn view(at: usize, edges: &[Edge]) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED + 1 + at as u64);
    let mut bins = vec![0.0; DIMENSIONS];
    // All edges move together, where the key point was found a little beside its place, and each by itself.
    let moved = [(); 2].map(|()| 0.15 * normal(&mut rng));
    let turned = 0.15 * normal(&mut rng);
    for edge in edges {
        let middle = [0, 1].map(|axis| edge.middle[axis] + moved[axis] + 0.15 * normal(&mut rng));
        let direction = edge.direction + turned + 0.15 * normal(&mut rng);
        let strength = edge.strength * (0.25 * normal(&mut rng)).exp();
        lay(&mut bins, &Edge { middle, direction, strength, ..*edge });
    }
    // What is no edge: a little in about half of the bins.
    bins.iter_mut().for_each(|bin| *bin += 0.04 * normal(&mut rng).max(0.0));
    to_length(&mut bins, 1.0);
    bins.iter_mut().for_each(|bin| *bin = bin.min(0.2));
    to_length(&mut bins, 512.0);
    bins.iter_mut().for_each(|bin| *bin = bin.round().min(255.0));
    bins
}

/// Adds an edge to the bins that it passes.
fn lay(bins: &mut [f32], edge: &Edge) {
    // The gradient is across the edge.
    let along = (edge.direction / DIRECTIONS as f32 + 0.25) * std::f32::consts::TAU;
    let centre = (CELLS - 1) as f32 / 2.0;
    for sample in 0..SAMPLES {
        let by = edge.length * (f32::from(sample) / f32::from(SAMPLES - 1) - 0.5);
        let place = [edge.middle[0] + by * along.cos(), edge.middle[1] + by * along.sin()];
        let from_centre = place.map(|x| (x - centre) * (x - centre)).iter().sum::<f32>();
        let weight = edge.strength * (-from_centre / (CELLS * CELLS / 2) as f32).exp() / f32::from(SAMPLES);
        for [x, y, direction] in corners() {
            let (column, row) = (place[0].floor() + x, place[1].floor() + y);
            let bin = edge.direction.floor() + direction;
            let share = |at: f32, bin: f32| 1.0 - (at - bin).abs();
            let inside = |cell: f32| (0.0..CELLS as f32).contains(&cell);
            if inside(column) && inside(row) {
                let cell = row as usize * CELLS + column as usize;
                let at = cell * DIRECTIONS + bin.rem_euclid(DIRECTIONS as f32) as usize;
                bins[at] += weight * share(place[0], column) * share(place[1], row) * share(edge.direction, bin);
            }
        }
    }
}

/// The bin below and the one above, along each axis.
fn corners() -> impl Iterator<Item = [f32; 3]> {
    (0..8u8).map(|bits| [0, 1, 2].map(|axis| f32::from(bits >> axis & 1)))
}
