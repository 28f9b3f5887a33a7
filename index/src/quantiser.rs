//! Vectors as codes: half a byte for each number, what a walk reads instead of the vector.
//!
//! Sixteen levels, evenly around the mean of each dimension and as far apart as fits its spread: for numbers that are normally distributed the
//! error is then the least that sixteen even levels can have. Mean and spread cost nothing to search with, because the query is multiplied by
//! the spread, and what the mean adds is the same for all rows.
//!
//! The codes of 128 dimensions are 64 bytes, one line of the cache: dimension `i` in the low half of byte `i`, dimension `64 + i` in the high
//! half. Dimensions are filled up to a multiple of 128.

use crate::kernel::{Dots, best};

/// Levels that a number is rounded to.
const LEVELS: f32 = 16.0;
/// Distance of two levels, in standard deviations: Max 1960, "Quantizing for minimum distortion", table II, 16 levels.
const STEP_DEVIATIONS: f32 = 0.3352;
/// Dimensions of one block of codes.
const BLOCK: usize = 128;
/// What the largest number of a query becomes.
const QUERY_MAX: f32 = 127.0;

/// How numbers become codes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quantiser<'a> {
    /// The lowest level of each dimension.
    lowest: &'a [f32],
    /// From one level to the next.
    step: &'a [f32],
}

/// A quantiser's numbers as they stand in a file: the lowest level of each dimension, then the steps.
pub(crate) fn fit<'a>(dimensions: usize, vectors: impl Iterator<Item = &'a [f32]>) -> Vec<f32> {
    let mut sums = vec![[0.0f64; 2]; dimensions];
    let mut count = 0.0f64;
    for vector in vectors {
        count += 1.0;
        for (sum, x) in sums.iter_mut().zip(vector) {
            *sum = [sum[0] + f64::from(*x), sum[1] + f64::from(*x).powi(2)];
        }
    }
    let of = |[sum, squares]: &[f64; 2]| {
        let mean = sum / count.max(1.0);
        let deviation = (squares / count.max(1.0) - mean * mean).max(0.0).sqrt();
        // A dimension that does not vary has one level, give or take.
        let step = (STEP_DEVIATIONS * deviation as f32).max(f32::MIN_POSITIVE);
        [mean as f32 - step * (LEVELS - 1.0) / 2.0, step]
    };
    let levels: Vec<[f32; 2]> = sums.iter().map(of).collect();
    levels.iter().map(|level| level[0]).chain(levels.iter().map(|level| level[1])).collect()
}

impl<'a> Quantiser<'a> {
    /// - `numbers`: as [`fit`] returns them.
    pub(crate) fn view(numbers: &'a [f32]) -> Self {
        let (lowest, step) = numbers.split_at(numbers.len() / 2);
        Self { lowest, step }
    }

    /// Whether every code means a number.
    pub(crate) fn is_sound(&self) -> bool {
        self.lowest.iter().all(|x| x.is_finite()) && self.step.iter().all(|x| x.is_finite() && *x > 0.0)
    }

    /// Appends the codes of a vector, [`code_bytes`] of them.
    pub(crate) fn encode(&self, vector: &[f32], codes: &mut Vec<u8>) {
        let from = codes.len();
        codes.resize(from + code_bytes(vector.len()), 0);
        for (dimension, ((x, lowest), step)) in vector.iter().zip(self.lowest).zip(self.step).enumerate() {
            // `as` takes care of what is beyond the levels, and of what is no number.
            let code = (((x - lowest) / step).round() as u8).min(LEVELS as u8 - 1);
            let byte = &mut codes[from + dimension / BLOCK * (BLOCK / 2) + dimension % (BLOCK / 2)];
            *byte |= if dimension % BLOCK < BLOCK / 2 { code } else { code << 4 };
        }
    }

    /// What a query's product with codes is the greater for, the nearer a row is.
    pub(crate) fn query(&self, vector: &[f32]) -> Vec<i8> {
        let weights: Vec<f32> = vector.iter().zip(self.step).map(|(x, step)| x * step).collect();
        let largest = weights.iter().fold(f32::MIN_POSITIVE, |largest, x| largest.max(x.abs()));
        let mut bytes: Vec<i8> = weights.iter().map(|x| (x / largest * QUERY_MAX).round() as i8).collect();
        bytes.resize(vector.len().div_ceil(BLOCK) * BLOCK, 0);
        bytes
    }
}

/// Bytes of a row of codes.
pub(crate) fn code_bytes(dimensions: usize) -> usize {
    dimensions.div_ceil(BLOCK) * BLOCK / 2
}

/// A query and the codes that it is compared with.
#[derive(Clone, Copy)]
pub(crate) struct Scorer<'a> {
    pub(crate) query: &'a [i8],
    pub(crate) codes: &'a [u8],
    dots: Dots,
}

impl<'a> Scorer<'a> {
    /// Over rows of half bytes.
    pub(crate) fn nibbles(query: &'a [i8], codes: &'a [u8]) -> Self {
        Self { query, codes, dots: best().nibbles }
    }

    /// Over rows of bytes.
    pub(crate) fn bytes(query: &'a [i8], codes: &'a [u8]) -> Self {
        Self { query, codes, dots: best().bytes }
    }

    /// One number for each of the rows: the greater, the nearer. Panics where a row is outside of the codes.
    pub(crate) fn score(&self, rows: &[u32], scores: &mut Vec<i32>) {
        scores.resize(rows.len(), 0);
        (self.dots)(self.query, self.codes, rows, scores);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_nearest_levels_and_queries_rank_by_them() {
        let vectors: Vec<Vec<f32>> = (0..400)
            .map(|row| (0..131).map(|i| ((row * 131 + i) as f32 * 0.7).sin() / (1.0 + i as f32)).collect())
            .collect();
        let numbers = fit(131, vectors.iter().map(Vec::as_slice));
        let quantiser = Quantiser::view(&numbers);
        assert!(quantiser.is_sound());
        let mut codes = Vec::new();
        vectors.iter().for_each(|vector| quantiser.encode(vector, &mut codes));
        assert_eq!(codes.len(), 400 * code_bytes(131));
        let decoded = |row: usize, dimension: usize| {
            let byte = codes[row * 128 + dimension / 128 * 64 + dimension % 64];
            let code = if dimension % 128 < 64 { byte & 15 } else { byte >> 4 };
            numbers[dimension] + f32::from(code) * numbers[131 + dimension]
        };
        for (row, vector) in vectors.iter().enumerate() {
            for (dimension, x) in vector.iter().enumerate() {
                let step = numbers[131 + dimension];
                let is_between = (x - numbers[dimension]).abs() < 15.5 * step && *x > numbers[dimension] - step / 2.0;
                let apart = (decoded(row, dimension) - x).abs();
                assert!(!is_between || apart <= step * 0.5001, "{apart} of {step} apart");
            }
        }
        // Scores are products with the decoded vectors, but for the rounding of the query.
        let query = &vectors[7];
        let bytes = quantiser.query(query);
        let mut scores = Vec::new();
        Scorer::nibbles(&bytes, &codes).score(&[3, 7, 300], &mut scores);
        let exact = |row: usize| (0..131).map(|d| query[d] * (decoded(row, d) - numbers[d])).sum::<f32>();
        let largest = (0..131).map(|d| (query[d] * numbers[131 + d]).abs()).fold(0.0, f32::max);
        for (row, score) in [3, 7, 300].into_iter().zip(scores) {
            let found = score as f32 * largest / 127.0;
            // Each number of the query is off by half of a 127th, times a code.
            let bound = largest / 127.0 * 0.5 * 15.0 * 131.0;
            assert!((found - exact(row)).abs() < bound, "{found} instead of {}", exact(row));
        }
    }

    #[test]
    fn dimensions_that_do_not_vary_have_sound_levels() {
        let numbers = fit(3, [[0.5f32, 0.0, -1.0].as_slice(); 4].into_iter());
        assert!(Quantiser::view(&numbers).is_sound());
    }
}
