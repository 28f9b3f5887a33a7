//! Vectors as codes: half a byte for each number, what a walk reads instead of the vector.
//!
//! Sixteen even levels for each dimension, where they fit its numbers best. Where they begin and how far apart they are costs nothing to search
//! with, because the query is multiplied by the step, and what the lowest level adds is the same for all rows.
//!
//! The codes of 128 dimensions are 64 bytes, one line of the cache: dimension `i` in the low half of byte `i`, dimension `64 + i` in the high
//! half. Dimensions are filled up to a multiple of 128.

use rayon::prelude::*;

use crate::kernel::{Dots, best, dot, largest, prefetch_rows};

/// Levels that a number is rounded to.
pub(crate) const LEVELS: usize = 16;
const HIGHEST: f32 = (LEVELS - 1) as f32;
/// Vectors that levels are chosen for.
const SAMPLE: usize = 2048;
/// Shares of the numbers that may lie beyond the outermost levels, on each side.
const TAILS: [f64; 6] = [0.0, 0.001, 0.003, 0.006, 0.015, 0.04];
/// How much the square of an error along a vector counts, beside that of the whole error: about what a squared cosine between neighbours
/// is beside a squared sine, of which 128 dimensions share one. Not critical: a quarter and four times as much find the same neighbours but for some thousandths.
const ALONG: f32 = 256.0;
/// Numbers of a vector that are rounded the other way at most: each is the best of all, which takes its time where there are thousands.
const OTHERS_MAX: usize = 64;
/// Dimensions of one block of codes.
pub(crate) const BLOCK: usize = 128;
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
///
/// Of each dimension a sample is sorted, and levels from one of its low quantiles to one of its high ones are tried: those with the least squared
/// error of products of a number with its own code are taken, since codes are there to tell rows apart that are much like the query. So large
/// numbers count for more than in Max 1960 ("Quantizing for minimum distortion"), without which no width would find the nearest of vectors that are
/// far from normally distributed (`vultus bench ann --generate sift`).
pub(crate) fn fit(vectors: &[&[f32]]) -> Vec<f32> {
    let sample: Vec<&[f32]> = vectors.iter().step_by(vectors.len().div_ceil(SAMPLE).max(1)).copied().collect();
    let dimensions = vectors.first().map_or(0, |vector| vector.len());
    let levels: Vec<[f32; 2]> = (0..dimensions)
        .into_par_iter()
        .map(|dimension| {
            let mut numbers: Vec<f32> = sample.iter().map(|vector| vector[dimension]).collect();
            numbers.sort_unstable_by(f32::total_cmp);
            best_levels(&numbers)
        })
        .collect();
    levels.iter().map(|level| level[0]).chain(levels.iter().map(|level| level[1])).collect()
}

/// The lowest level and the step that suit sorted numbers best, at least one.
fn best_levels(sorted: &[f32]) -> [f32; 2] {
    let quantile = |share: f64| sorted[(share * (sorted.len() - 1) as f64).round() as usize];
    let tried = TAILS.iter().flat_map(|low| TAILS.map(|high| [quantile(*low), quantile(1.0 - high)]));
    // A dimension that does not vary has one level, give or take.
    let levels = tried.map(|[low, high]| [low, ((high - low) / HIGHEST).max(f32::MIN_POSITIVE)]);
    let error = |&[lowest, step]: &[f32; 2]| -> f64 {
        let error = |x: &f32| x - (lowest + step * ((x - lowest) / step).round().clamp(0.0, HIGHEST));
        sorted.iter().map(|x| f64::from(x * error(x)).powi(2)).sum()
    };
    let errors = levels.map(|levels| (error(&levels), levels));
    errors.min_by(|a, b| a.0.total_cmp(&b.0)).map_or([0.0, f32::MIN_POSITIVE], |(_, levels)| levels)
}

impl<'a> Quantiser<'a> {
    /// - `numbers`: as [`fit`] returns them.
    pub(crate) fn view(numbers: &'a [f32]) -> Self {
        let (lowest, step) = numbers.split_at(numbers.len() / 2);
        Self { lowest, step }
    }

    /// Whether every code means a number.
    pub(crate) fn is_sound(&self) -> bool {
        // All of them, without a branch for each: every search asks.
        let are_finite = |numbers: &[f32]| numbers.iter().fold(true, |all, x| all & x.is_finite());
        are_finite(self.lowest) & are_finite(self.step) & self.step.iter().fold(true, |all, x| all & (*x > 0.0))
    }

    /// How many steps a number is above the lowest level.
    pub(crate) fn place(&self, dimension: usize, x: f32) -> f32 {
        (x - self.lowest[dimension]) / self.step[dimension]
    }

    /// The number that is so many steps above the lowest level.
    pub(crate) fn number(&self, dimension: usize, place: f32) -> f32 {
        self.lowest[dimension] + self.step[dimension] * place
    }

    /// Sets the codes of a vector, [`code_bytes`] of them.
    ///
    /// - `codes`: zeros.
    pub(crate) fn encode(&self, vector: &[f32], codes: &mut [u8]) {
        for (dimension, ((x, lowest), step)) in vector.iter().zip(self.lowest).zip(self.step).enumerate() {
            // `as` takes care of what is beyond the levels, and of what is no number.
            put(codes, dimension, (rounded((x - lowest) / step) as u8).min(LEVELS as u8 - 1));
        }
    }

    /// Rounds some numbers of a vector the other way, so that what its code is wrong by is across the vector and not along it: what is near points
    /// where the vector does, and its product with the code is then wrong by less. Two or three numbers are enough, and these lie
    /// almost in the middle between two levels.
    ///
    /// How the two parts of an error are weighed follows Guo et al. 2020 (arXiv:1908.10396), section 3, "score-aware quantization loss".
    ///
    /// - `codes`: the vector's, as [`encode`](Self::encode) sets them.
    pub(crate) fn straighten(&self, vector: &[f32], codes: &mut [u8]) {
        let mut along = 0.0;
        let mut others: Vec<Rounding> = Vec::with_capacity(vector.len());
        for (dimension, x) in vector.iter().enumerate() {
            let (code, step) = (code(codes, dimension), self.step[dimension]);
            let apart = self.place(dimension, *x) - f32::from(code);
            along += x * step * apart;
            let other = if apart < 0.0 { code.wrapping_sub(1) } else { code + 1 };
            // What lies beyond the levels has no other.
            if usize::from(other) < LEVELS && apart.abs() <= 0.5 {
                let along = x * step * (f32::from(code) - f32::from(other));
                others.push(Rounding {
                    dimension,
                    code: other,
                    along,
                    squares: step * step * (1.0 - 2.0 * apart.abs()),
                });
            }
        }
        for _ in 0..OTHERS_MAX {
            let loss = |other: &Rounding| ALONG * ((along + other.along).powi(2) - along.powi(2)) + other.squares;
            let best = (0..others.len()).map(|at| (loss(&others[at]), at)).min_by(|a, b| a.0.total_cmp(&b.0));
            let Some((_, at)) = best.filter(|(loss, _)| *loss < 0.0) else { return };
            let other = others.swap_remove(at);
            along += other.along;
            put(codes, other.dimension, other.code);
        }
    }

    /// A vector as the query that rows of codes are compared with.
    ///
    /// - `old`: whose memory it takes.
    pub(crate) fn query(&self, vector: &[f32], old: Query) -> Query {
        let weights = || vector.iter().zip(self.step).map(|(x, step)| x * step);
        let scale = largest(weights()).max(f32::MIN_POSITIVE) / QUERY_MAX;
        let mut numbers = old.numbers;
        numbers.clear();
        let per_weight = 1.0 / scale;
        numbers.extend(weights().map(|weight| rounded(weight * per_weight) as i32 as i8));
        numbers.resize(vector.len().next_multiple_of(BLOCK), 0);
        let origin = dot(vector, self.lowest);
        // Within a step any place is as likely.
        let squares: i32 = numbers.iter().map(|number| i32::from(*number).pow(2)).sum();
        let error = scale * (squares as f32 / 12.0).sqrt();
        Query { numbers, scale, origin, error }
    }
}

/// A level that a number could be rounded to instead, and what that adds to the error: to its product with the vector, and to its square.
struct Rounding {
    dimension: usize,
    code: u8,
    along: f32,
    squares: f32,
}

/// The code of one dimension in a row of codes.
pub(crate) fn code(codes: &[u8], dimension: usize) -> u8 {
    let byte = codes[byte_of(dimension)];
    if dimension % BLOCK < BLOCK / 2 { byte & 15 } else { byte >> 4 }
}

fn put(codes: &mut [u8], dimension: usize, code: u8) {
    let byte = &mut codes[byte_of(dimension)];
    *byte = if dimension % BLOCK < BLOCK / 2 { *byte & 0xf0 | code } else { *byte & 15 | code << 4 };
}

fn byte_of(dimension: usize) -> usize {
    dimension / BLOCK * (BLOCK / 2) + dimension % (BLOCK / 2)
}

/// A row is the nearer to it, the greater its score is: the product of the row's code with `numbers`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    pub(crate) numbers: Vec<i8>,
    /// Times a score, and then `origin`, is the product of the query with what the code means.
    pub(crate) scale: f32,
    pub(crate) origin: f32,
    /// The standard deviation of that from the product with the vector.
    pub(crate) error: f32,
}

/// To the nearest integer, for small numbers: where the sum lies only integers are floats. Unlike `round` it is no call where a CPU need not have
/// an instruction for it.
pub(crate) fn rounded(x: f32) -> f32 {
    const SHIFT: f32 = 1.5 * (1 << 23) as f32;
    x + SHIFT - SHIFT
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
    /// Bytes of a row of codes.
    width: usize,
    dots: Dots,
}

impl<'a> Scorer<'a> {
    /// Over rows of half bytes.
    pub(crate) fn nibbles(query: &'a [i8], codes: &'a [u8]) -> Self {
        Self { query, codes, width: query.len() / 2, dots: best().nibbles }
    }

    /// Over rows of bytes.
    pub(crate) fn bytes(query: &'a [i8], codes: &'a [u8]) -> Self {
        Self { query, codes, width: query.len(), dots: best().bytes }
    }

    /// Asks for the codes of rows that are scored soon.
    pub(crate) fn prefetch(&self, rows: &[u32]) {
        prefetch_rows(self.codes, self.width, rows);
    }

    /// One number for each of the rows, the first of `scores`: the greater, the nearer. Panics where a row is outside of the codes.
    pub(crate) fn score(&self, rows: &[u32], scores: &mut Vec<i32>) {
        scores.resize(scores.len().max(rows.len()), 0);
        (self.dots)(self.query, self.codes, rows, &mut scores[..rows.len()]);
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
        let slices: Vec<&[f32]> = vectors.iter().map(Vec::as_slice).collect();
        let numbers = fit(&slices);
        let quantiser = Quantiser::view(&numbers);
        assert!(quantiser.is_sound());
        let mut codes = vec![0; 400 * code_bytes(131)];
        let each = vectors.iter().zip(codes.chunks_mut(code_bytes(131)));
        each.for_each(|(vector, codes)| quantiser.encode(vector, codes));
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
        let Query { numbers: bytes, scale, origin, error } = quantiser.query(query, Query::default());
        let mut scores = Vec::new();
        Scorer::nibbles(&bytes, &codes).score(&[3, 7, 300], &mut scores);
        let exact = |row: usize| (0..131).map(|d| query[d] * decoded(row, d)).sum::<f32>();
        let largest = (0..131).map(|d| (query[d] * numbers[131 + d]).abs()).fold(0.0, f32::max);
        for (row, score) in [3, 7, 300].into_iter().zip(scores) {
            let found = score as f32 * scale + origin;
            // Each number of the query is off by half of a 127th, times a code.
            let bound = largest / 127.0 * 0.5 * 15.0 * 131.0;
            assert!((found - exact(row)).abs() < bound, "{found} instead of {}", exact(row));
        }
        let product = |row: &Vec<f32>| row.iter().zip(query).map(|(a, b)| a * b).sum::<f32>();
        let squares = (0..400).map(|row| (product(&vectors[row]) - exact(row)).powi(2)).sum::<f32>();
        let measured = (squares / 400.0).sqrt();
        assert!((0.5..2.0).contains(&(error / measured)), "{error} expected, {measured} measured");
    }

    #[test]
    fn straightened_codes_are_wrong_across_the_vector() {
        let wave = |row: usize, i: usize| ((row * 131 + i) as f32 * 0.7).sin() / 11.0;
        let vectors: Vec<Vec<f32>> = (0..300).map(|row| (0..131).map(|i| wave(row, i)).collect()).collect();
        let slices: Vec<&[f32]> = vectors.iter().map(Vec::as_slice).collect();
        let numbers = fit(&slices);
        let quantiser = Quantiser::view(&numbers);
        // The product of the error with the vector, squared, and the square of the error, added up over all vectors.
        let mut errors = [[0.0f32; 2]; 2];
        for (row, vector) in vectors.iter().enumerate() {
            // Some numbers of every third are beyond the levels: they are not rounded the other way, and others make up for them.
            let is_beyond = row % 3 == 0;
            let vector: Vec<f32> = vector.iter().map(|x| if is_beyond { 1.1 * x } else { *x }).collect();
            let mut codes = vec![0; code_bytes(131)];
            quantiser.encode(&vector, &mut codes);
            let nearest = codes.clone();
            quantiser.straighten(&vector, &mut codes);
            for (codes, [along, squares]) in [&nearest, &codes].into_iter().zip(&mut errors) {
                let error = |i: usize| vector[i] - quantiser.number(i, f32::from(code(codes, i)));
                *along += (0..131).map(|i| vector[i] * error(i)).sum::<f32>().powi(2);
                *squares += (0..131).map(|i| error(i).powi(2)).sum::<f32>() * f32::from(u8::from(!is_beyond));
            }
            for (dimension, x) in vector.iter().enumerate() {
                let place = quantiser.place(dimension, *x);
                let [before, after] = [&nearest, &codes].map(|codes| f32::from(code(codes, dimension)));
                assert!(before == after || (place - after).abs() <= 1.0, "{place} is {after}");
            }
        }
        let [[along_before, before], [along, after]] = errors;
        assert!(along < 0.02 * along_before, "{along_before} along the vectors became {along}");
        assert!(after < 1.1 * before, "{before} in all became {after}");
    }

    /// The mean squared error of sixteen levels, of the numbers' variance.
    fn error(numbers: &[f32]) -> f64 {
        let mut sorted = numbers.to_vec();
        sorted.sort_unstable_by(f32::total_cmp);
        let [lowest, step] = best_levels(&sorted);
        let decoded = |x: f32| lowest + step * ((x - lowest) / step).round().clamp(0.0, 15.0);
        let mean = numbers.iter().map(|x| f64::from(*x)).sum::<f64>() / numbers.len() as f64;
        let sum = |of: &dyn Fn(f32) -> f64| numbers.iter().map(|x| of(*x).powi(2)).sum::<f64>();
        sum(&|x| f64::from(x - decoded(x))) / sum(&|x| f64::from(x) - mean)
    }

    #[test]
    fn levels_fit_numbers_of_several_kinds() {
        // Quantiles, evenly: of the normal distribution by a sum of twelve (Irwin & Hall), of the exponential one by its inverse.
        let uniform = |at: usize| (at as f32 * 0.754_877_7).fract();
        let normal: Vec<f32> =
            (0..2000).map(|at| (0..12).map(|part| uniform(at * 12 + part * 7 + 1)).sum::<f32>() - 6.0).collect();
        let exponential: Vec<f32> = (1..2000).map(|at| -(1.0 - at as f32 / 2000.0).ln()).collect();
        let mostly_zero: Vec<f32> = (0..2000).map(|at| if at % 10 == 0 { uniform(at) } else { 0.0 }).collect();
        // Max 1960, table II: .01154 for normal numbers and sixteen even levels, where large ones count no more than others.
        assert!(error(&normal) < 0.0175, "{}", error(&normal));
        assert!(error(&exponential) < 0.04, "{}", error(&exponential));
        assert!(error(&mostly_zero) < 0.004, "{}", error(&mostly_zero));
    }

    #[test]
    fn dimensions_that_do_not_vary_have_sound_levels() {
        let numbers = fit(&[[0.5f32, 0.0, -1.0].as_slice(); 4]);
        assert!(Quantiser::view(&numbers).is_sound());
    }
}
