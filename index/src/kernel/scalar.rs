//! The definition of a distance and of a product of codes, in plain Rust.

use super::{Kernel, prefetch, row};

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
    bytes: |query, codes, picked, dots| {
        picked.iter().for_each(|&picked| prefetch(row(codes, query.len(), picked)));
        for (&picked, dot) in picked.iter().zip(dots) {
            let row = row(codes, query.len(), picked);
            *dot = row.iter().zip(query).map(|(code, q)| i32::from(*code) * i32::from(*q)).sum();
        }
    },
    nibbles: |query, codes, picked, dots| {
        picked.iter().for_each(|&picked| prefetch(row(codes, query.len() / 2, picked)));
        for (&picked, dot) in picked.iter().zip(dots) {
            let blocks = row(codes, query.len() / 2, picked).as_chunks::<64>().0;
            *dot = blocks.iter().zip(query.as_chunks::<128>().0).map(|(codes, query)| nibbles(codes, query)).sum();
        }
    },
};

/// `|a - b|²`, for slices of one length.
pub(super) fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// One block of half bytes. A sum of eight products fits in 16 bits, and is added up in these.
fn nibbles(codes: &[u8; 64], query: &[i8; 128]) -> i32 {
    let (low, high) = query.split_at(64);
    let mut sums = [0i16; 16];
    for ((codes, low), high) in
        codes.as_chunks::<16>().0.iter().zip(low.as_chunks::<16>().0).zip(high.as_chunks::<16>().0)
    {
        for lane in 0..16 {
            let [l, h] = [codes[lane] & 15, codes[lane] >> 4].map(i16::from);
            sums[lane] += l * i16::from(low[lane]) + h * i16::from(high[lane]);
        }
    }
    sums.iter().map(|sum| i32::from(*sum)).sum()
}
