//! The definition of a distance, in plain Rust.

use super::{Kernel, row};

pub(super) const KERNEL: Kernel = Kernel {
    scan: |query, rows, distances| {
        for (row, distance) in rows.chunks_exact(query.len()).zip(distances) {
            *distance = squared_distance(query, row);
        }
    },
    gather: |query, vectors, picked, distances| {
        for (&picked, distance) in picked.iter().zip(distances) {
            *distance = squared_distance(query, row(vectors, query.len(), picked));
        }
    },
};

/// `|a - b|²`, for slices of one length.
pub(super) fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}
