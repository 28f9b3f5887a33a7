//! Spherical k-means: for those who know how many people there are.
//!
//! Centres are unit vectors, so the nearest centre is the one with the largest dot product, and the best centre of a group is
//! its sum, scaled to length one (Dhillon & Modha 2001). The first centres are drawn by k-means++ (Arthur & Vassilvitskii
//! 2007) with a seeded generator. Sums are exact, so threads change nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::linkage::Sum;
use super::nearest::{Near, Point, Points, Row, dot};
use crate::Embedding;

/// Passes over the data at most; on faces it settles in ten to thirty.
const PASSES_MAX: usize = 100;

/// Which centre each embedding ends at. `k` is 1 to the number of embeddings.
pub(super) fn k_means(embeddings: &[Embedding], k: usize, seed: u64) -> Vec<u32> {
    let rows: Vec<Row> = embeddings
        .iter()
        .map(|embedding| Row { point: std::array::from_fn(|at| embedding.as_slice()[at]), own: Row::ANY })
        .collect();
    let sums: Vec<Sum> = embeddings.par_iter().map(Sum::of).collect();
    let mut centres: Vec<Point> = first_centres(&rows, k, seed);
    let mut labels = Vec::new();
    for _ in 0..PASSES_MAX {
        let nearest = Points::new(centres.iter().copied()).nearest(&rows);
        let moved: Vec<u32> = nearest.iter().map(|near| near.slot).collect();
        if moved == labels {
            break;
        }
        labels = moved;
        update(&mut centres, &rows, &sums, &nearest);
    }
    labels
}

/// Draws each centre among the points, with odds proportional to the squared distance from the centres before it.
fn first_centres(rows: &[Row], k: usize, seed: u64) -> Vec<Point> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut centres = vec![rows[rng.random_range(0..rows.len())].point];
    let mut distances = vec![f32::INFINITY; rows.len()];
    while centres.len() < k {
        let centre = &centres[centres.len() - 1];
        distances.par_iter_mut().zip(rows).for_each(|(distance, row)| {
            *distance = distance.min((2.0 - 2.0 * dot(&row.point, centre)).max(0.0));
        });
        let total: f64 = distances.iter().copied().map(f64::from).sum();
        let mut left = rng.random::<f64>() * total;
        // Rounding may leave a little after the last; where all distances are zero any point is as good.
        let drawn = distances.iter().position(|distance| {
            left -= f64::from(*distance);
            left < 0.0
        });
        centres.push(rows[drawn.unwrap_or(rows.len() - 1)].point);
    }
    centres
}

/// Moves each centre to the middle of its points, and a centre that has none to a point that is far from its own.
fn update(centres: &mut [Point], rows: &[Row], sums: &[Sum], nearest: &[Near]) {
    let mut totals = vec![(Sum::ZERO, 0u64); centres.len()];
    for (near, sum) in nearest.iter().zip(sums) {
        let (total, size) = &mut totals[near.slot as usize];
        total.add(sum);
        *size += 1;
    }
    // Ordered by the bits of the distance, which for positive floats is the order of the floats.
    let apart = nearest.iter().map(|near| near.distance()).zip(0usize..).filter(|(distance, _)| *distance > 1e-6);
    let mut farthest: BinaryHeap<_> = apart.map(|(distance, row)| (distance.to_bits(), Reverse(row))).collect();
    for (centre, (total, size)) in centres.iter_mut().zip(&totals) {
        let length = total.length();
        if *size == 0 {
            if let Some((_, Reverse(row))) = farthest.pop() {
                *centre = rows[row].point;
            }
        } else if length > 1e-9 {
            *centre = total.over(length);
        }
    }
}
