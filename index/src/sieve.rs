//! Exact search through codes: most rows are ruled out by a byte for each of their numbers, and what is left is measured.
//!
//! A row differs from its decoded codes by a vector whose length is known, and a query from its bytes; so by the Cauchy-Schwarz inequality a
//! product of codes and bytes bounds the product of row and query, and so their distance. Nothing that belongs to the answers is ruled out.

use std::sync::OnceLock;

use crate::kernel::{self, COLUMN, Kernel};
use crate::nearest::{Found, Nearest};
use crate::quantiser::rounded;

/// Rows whose codes are looked at before any of them is measured.
const BLOCK: usize = 64;
/// Numbers that kernels take at a time.
const WIDTH: usize = 128;
/// Steps between the lowest and the highest level.
const STEPS: f32 = 255.0;
/// What the largest number of a query becomes.
const QUERY_MAX: f32 = 127.0;
/// More than rounding changes a product of unit vectors of up to [`WIDTH`] numbers by.
const ROUNDING: f32 = 1e-5;

/// The codes of some rows, in columns, without the rows. A number is `lowest` and its code times `step`, and what is left of it.
#[derive(Clone)]
pub(crate) struct Sieve {
    codes: Vec<u8>,
    lowest: f32,
    step: f32,
    /// The length of the longest of what is left of rows.
    rest_max: f32,
    /// The lengths of the longest and the shortest row.
    length_max: f32,
    length_min: f32,
}

impl Sieve {
    /// - `vectors`: rows, one behind the other.
    pub(crate) fn new(vectors: &[f32], dimensions: usize) -> Self {
        let [lowest, highest] = vectors.iter().fold([0f32; 2], |[low, high], x| [low.min(*x), high.max(*x)]);
        let step = ((highest - lowest) / STEPS).max(f32::MIN_POSITIVE);
        let width = width(dimensions);
        let mut codes = vec![0; kernel::columns_bytes(vectors.len() / dimensions, width)];
        let mut numbers = vec![0; width];
        let mut rest = vec![0.0; dimensions];
        let (mut rest_max, mut length_max, mut length_min) = (0f32, 0f32, f32::INFINITY);
        for (row, vector) in vectors.chunks_exact(dimensions).enumerate() {
            for ((x, code), rest) in vector.iter().zip(&mut numbers).zip(&mut rest) {
                *code = ((x - lowest) / step + 0.5) as i32 as u8;
                *rest = x - (lowest + step * f32::from(*code));
            }
            kernel::put_in_column(&mut codes, row, &numbers);
            let length = length(vector);
            (length_max, length_min) = (length_max.max(length), length_min.min(length));
            rest_max = rest_max.max(self::length(&rest));
        }
        Self { codes, lowest, step, rest_max, length_max, length_min }
    }

    /// Offers every row that counts and is near enough.
    ///
    /// - `vectors`: the rows that it was made of; `key`: gives the row's key in the answers, or `None` where it does not count.
    pub(crate) fn search(
        &self,
        query: &Query<'_>,
        vectors: &[f32],
        nearest: &mut Nearest,
        mut key: impl FnMut(usize) -> Option<u64>,
    ) {
        let (vector, query) = (query.vector, query.coded());
        let dimensions = vector.len();
        let least = |nearest: &Nearest| self.score_min(query, nearest.bound());
        let mut scores = [0; BLOCK];
        let mut wanted = least(nearest);
        let count = vectors.len() / dimensions;
        for (block, codes) in (0..count).step_by(BLOCK).zip(self.codes.chunks(BLOCK * query.bytes.len())) {
            (query.kernel.columns)(&query.bytes, codes, &mut scores[..codes.len() / query.bytes.len()]);
            // What fills up the last of the rows was no row.
            let scores = &scores[..BLOCK.min(count - block)];
            for (first, scores) in (block..).step_by(COLUMN).zip(scores.chunks(COLUMN)) {
                // Without a branch for each, so that they are compared at once.
                if !scores.iter().fold(false, |any, score| any | (*score >= wanted)) {
                    continue;
                }
                for (row, score) in (first..).zip(scores) {
                    if *score < wanted {
                        continue;
                    }
                    let mut distance = [0.0];
                    (query.kernel.scan)(vector, &vectors[row * dimensions..][..dimensions], &mut distance);
                    if distance[0] <= nearest.bound()
                        && let Some(key) = key(row)
                    {
                        nearest.offer(Found { distance: distance[0], key });
                        wanted = least(nearest);
                    }
                }
            }
        }
    }

    /// What a row's score is at least if its squared distance is at most `bound`.
    fn score_min(&self, query: &Coded, bound: f32) -> i32 {
        // Of the row and the query, then of the row's levels and the query's bytes.
        let product = (query.length.powi(2) + self.length_min.powi(2) - bound) / 2.0;
        let rounding = ROUNDING * (query.bytes.len() / WIDTH) as f32;
        let slack = query.length * self.rest_max + query.rest * (self.length_max + self.rest_max) + rounding;
        (((product - slack) / query.step - self.lowest * query.bytes_sum) / self.step).floor() as i32
    }
}

/// What rows are looked for by.
pub(crate) struct Query<'a> {
    pub(crate) vector: &'a [f32],
    /// Once a sieve asked for it: where everything has a graph, none does.
    coded: OnceLock<Coded>,
}

/// A number of the query is its byte times `step`, and what is left of it.
struct Coded {
    bytes: Vec<i8>,
    bytes_sum: f32,
    step: f32,
    /// The length of what is left.
    rest: f32,
    length: f32,
    kernel: Kernel,
}

impl<'a> Query<'a> {
    pub(crate) fn new(vector: &'a [f32]) -> Self {
        Self { vector, coded: OnceLock::new() }
    }

    fn coded(&self) -> &Coded {
        self.coded.get_or_init(|| Coded::new(self.vector))
    }
}

impl Coded {
    fn new(vector: &[f32]) -> Self {
        let step = kernel::largest(vector.iter().copied()).max(f32::MIN_POSITIVE) / QUERY_MAX;
        let mut bytes: Vec<i8> = vector.iter().map(|x| rounded(x / step) as i8).collect();
        let rest: Vec<f32> = vector.iter().zip(&bytes).map(|(x, byte)| x - step * f32::from(*byte)).collect();
        let bytes_sum = bytes.iter().map(|byte| i32::from(*byte)).sum::<i32>() as f32;
        bytes.resize(width(vector.len()), 0);
        Self { bytes, bytes_sum, step, rest: length(&rest), length: length(vector), kernel: kernel::best() }
    }
}

/// Bytes of a row of codes.
fn width(dimensions: usize) -> usize {
    dimensions.next_multiple_of(WIDTH)
}

fn length(vector: &[f32]) -> f32 {
    kernel::dot(vector, vector).sqrt()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scan;

    /// Numbers that are made to unit vectors; some of them far from all others, and some alike.
    fn vectors(dimensions: usize, count: usize) -> impl Strategy<Value = Vec<f32>> {
        let number = prop_oneof![6 => -1f32..1.0, 1 => -30f32..30.0, 1 => Just(0.0)];
        prop::collection::vec(number, dimensions * count).prop_map(move |mut numbers| {
            for vector in numbers.chunks_exact_mut(dimensions) {
                vector[0] += 0.1;
                let length = length(vector);
                vector.iter_mut().for_each(|x| *x /= length.max(1e-3));
            }
            numbers
        })
    }

    proptest! {
        #[test]
        fn a_sieve_finds_what_a_scan_finds(
            (dimensions, vectors) in prop_oneof![Just(3usize), Just(64), Just(150)]
                .prop_flat_map(|dimensions| (Just(dimensions), (2usize..400).prop_flat_map(move |count| vectors(dimensions, count)))),
            k in 1usize..12,
            within in prop_oneof![Just(f32::INFINITY), 0f32..3.0],
        ) {
            let (query, rows) = vectors.split_at(dimensions);
            let sieve = Sieve::new(rows, dimensions);
            let key = |row: usize| (row % 5 != 1).then_some(row as u64);
            let [mut found, mut expected] = [(); 2].map(|()| Nearest::new(k, within));
            sieve.search(&Query::new(query), rows, &mut found, key);
            scan::every_row(query, rows, &mut expected, key);
            prop_assert_eq!(found.into_sorted(), expected.into_sorted());
        }
    }

    #[test]
    fn most_rows_are_ruled_out() {
        let rows: Vec<f32> = (0..256u32)
            .flat_map(|row| {
                let numbers: Vec<f32> = (0..128).map(|at| ((row * 128 + at) as f32 * 0.613).sin()).collect();
                let length = length(&numbers);
                numbers.into_iter().map(move |x| x / length)
            })
            .collect();
        let sieve = Sieve::new(&rows, 128);
        let mut measured = 0;
        let mut nearest = Nearest::new(5, 0.5);
        sieve.search(&Query::new(&rows[..128]), &rows, &mut nearest, |row| {
            measured += 1;
            Some(row as u64)
        });
        assert!((1..64).contains(&measured), "{measured} measured");
    }
}
