//! The definition of a distance and of a product of codes, in plain Rust.

use super::{COLUMN, Kernel, rank, row};

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
        let row_bytes = query.len();
        dots.fill(0);
        for (block, query) in query.as_chunks::<128>().0.iter().enumerate() {
            // Once for all rows: nothing here multiplies bytes.
            let query = query.map(i16::from);
            for (&picked, dot) in picked.iter().zip(&mut *dots) {
                *dot += product(&row(codes, row_bytes, picked).as_chunks::<128>().0[block].map(i16::from), &query);
            }
        }
    },
    nibbles: |query, codes, picked, dots| {
        let row_bytes = query.len() / 2;
        dots.fill(0);
        for (block, query) in query.as_chunks::<128>().0.iter().enumerate() {
            let query = query.map(i16::from);
            for (&picked, dot) in picked.iter().zip(&mut *dots) {
                *dot += product(&halves(&row(codes, row_bytes, picked).as_chunks::<64>().0[block]), &query);
            }
        }
    },
    columns,
    nibble_columns,
    select,
    insert,
};

pub(super) fn select(rows: &[u32], scores: &[i32], least: u64, selected: &mut [u64]) -> usize {
    // What ranks before it has no lower score.
    let least_score = ((least >> 32) as u32 ^ 1 << 31).cast_signed();
    let mut count = 0;
    for (rows, scores) in rows.chunks(LANES).zip(scores.chunks(LANES)) {
        // Few are good enough, and which cannot be foreseen.
        let good = scores.iter().zip(0..).fold(0u32, |good, (score, at)| good | u32::from(*score >= least_score) << at);
        let mut left = good;
        while left != 0 {
            let at = left.trailing_zeros() as usize;
            left &= left - 1;
            selected[count] = rank(scores[at], rows[at]);
            count += usize::from((rows[at] < 1 << 31) & (selected[count] > least));
        }
    }
    count
}

/// So many ranks are put in their places one by one.
const FEW: usize = 8;

pub(super) fn insert(sorted: &mut [u64], more: &mut [u64]) -> usize {
    let best = more.iter().fold(0, |best, rank| best.max(*rank));
    let first = sorted.partition_point(|rank| *rank > best);
    if more.len() <= FEW {
        for rank in more {
            let at = sorted.partition_point(|other| *other > *rank);
            if let Some(last) = sorted.len().checked_sub(1).filter(|last| at <= *last) {
                sorted.copy_within(at..last, at + 1);
                sorted[at] = *rank;
            }
        }
        return first;
    }
    let count = sorted.partition_point(|rank| *rank > 0);
    more.sort_unstable_by(|a, b| b.cmp(a));
    let (mut old, mut left) = (count, more.len());
    while old + left > sorted.len() {
        let is_old = left == 0 || old > 0 && sorted[old - 1] < more[left - 1];
        (old, left) = if is_old { (old - 1, left) } else { (old, left - 1) };
    }
    // From the last to the first, so that each moves once; without a branch for which is next.
    while old > 0 && left > 0 {
        let (a, b) = (sorted[old - 1], more[left - 1]);
        let is_old = a < b;
        sorted[old + left - 1] = if is_old { a } else { b };
        old -= usize::from(is_old);
        left -= usize::from(!is_old);
    }
    sorted[..left].copy_from_slice(&more[..left]);
    first
}

pub(super) fn columns(query: &[i8], blocks: &[u8], dots: &mut [i32]) {
    for (block, dots) in blocks.chunks_exact(COLUMN * query.len()).zip(dots.as_chunks_mut::<COLUMN>().0) {
        *dots = [0; COLUMN];
        for (rows, query) in block.as_chunks::<{ 4 * COLUMN }>().0.iter().zip(query.as_chunks::<4>().0) {
            let words: [u32; COLUMN] = std::array::from_fn(|row| u32::from_le_bytes(rows.as_chunks().0[row]));
            for (at, q) in query.iter().enumerate() {
                for (dot, word) in dots.iter_mut().zip(words) {
                    *dot += (word >> (8 * at) & 255).cast_signed() * i32::from(*q);
                }
            }
        }
    }
}

pub(super) fn nibble_columns(query: &[i8], blocks: &[u8], dots: &mut [i32]) {
    for (block, dots) in blocks.chunks_exact(COLUMN * query.len() / 2).zip(dots.as_chunks_mut::<COLUMN>().0) {
        *dots = [0; COLUMN];
        for (rows, query) in block.as_chunks::<{ 4 * COLUMN }>().0.iter().zip(fours(query)) {
            let words: [u32; COLUMN] = std::array::from_fn(|row| u32::from_le_bytes(rows.as_chunks().0[row]));
            for (at, q) in query.as_flattened().iter().enumerate() {
                // The low halves of the four bytes, then the high ones.
                let shift = 8 * (at % 4) + at / 4 * 4;
                for (dot, word) in dots.iter_mut().zip(words) {
                    *dot += (word >> shift & 15).cast_signed() * i32::from(*q);
                }
            }
        }
    }
}

/// What each four bytes of a row of half bytes meet of the query: four numbers for the low halves, and four for the high ones.
pub(super) fn fours(query: &[i8]) -> impl Iterator<Item = [[i8; 4]; 2]> {
    query.as_chunks::<128>().0.iter().flat_map(|block| {
        let (low, high) = block.split_at(64);
        low.as_chunks().0.iter().zip(high.as_chunks().0).map(|(low, high)| [*low, *high])
    })
}

/// Sums that are added up side by side.
const LANES: usize = 16;

/// `|a - b|²`, for slices of one length.
pub(super) fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    sum_of(a, b, |a, b| (a - b) * (a - b))
}

/// The product of two vectors of one length.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum_of(a, b, |a, b| a * b)
}

#[inline(always)]
fn sum_of(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += term(a[lane], b[lane]);
        }
    }
    let rest = a_rest.iter().zip(b_rest).map(|(a, b)| term(*a, *b));
    sums.into_iter().chain(rest).sum()
}

/// The greatest distance of a number from zero. Compares bits, in which there is no number that is none: many are compared at once.
pub(crate) fn largest(numbers: impl Iterator<Item = f32>) -> f32 {
    f32::from_bits(numbers.fold(0, |largest, x| largest.max(x.abs().to_bits())))
}

/// The numbers of one block of half bytes.
fn halves(codes: &[u8; 64]) -> [i16; 128] {
    let mut numbers = [0; 128];
    let (low, high) = numbers.split_at_mut(64);
    for ((code, low), high) in codes.iter().zip(low).zip(high) {
        (*low, *high) = (i16::from(code & 15), i16::from(code >> 4));
    }
    numbers
}

/// In 16 bits, since also the oldest CPUs multiply eight of these at a time and add the products up in pairs.
fn product(a: &[i16; 128], b: &[i16; 128]) -> i32 {
    a.iter().zip(b).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum()
}
