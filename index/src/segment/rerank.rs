//! The nearest of what a walk found, by their vectors.
//!
//! A walk puts rows in the order of their codes, and the nearest are most likely the first of these. How far down the last of them is depends on
//! the vectors, and by how much their codes are wrong. So the error of the codes is
//! measured on the rows that were compared, and more are for as long as that error could make one of them an answer.

use crate::graph::Entry;
use crate::nearest::{Found, Nearest};

/// Rows that are compared in any case: so many besides those that are wanted, and enough to know the error by; at a time from then on; and at
/// a time at most.
const FIRST: usize = 4;
const LEAST: usize = 14;
const MORE: usize = 16;
const MOST: usize = 32;
/// How many standard deviations a row's code may be wrong by.
const DEVIATIONS: f32 = 5.0;

/// Offers the nearest of the rows, and returns how many it compared.
///
/// - `rows`: the most promising first; `scale`: what a score must be multiplied by to differ from a product of the vectors by a constant and the
///   error of the codes; `compare`: gives rows and their distances to what it is given, in their order.
pub(super) fn rerank<E>(
    nearest: &mut Nearest,
    rows: impl Iterator<Item = Entry>,
    scale: f32,
    mut compare: impl FnMut(&[u32], &mut dyn FnMut(Found)) -> Result<(), E>,
) -> Result<usize, E> {
    let mut compared = 0;
    let mut errors = Errors::default();
    let mut rows = rows.peekable();
    let first = nearest.limit().saturating_add(FIRST).max(LEAST);
    let (mut batch, mut scores) = ([0; MOST], [0.0; MOST]);
    loop {
        let (wanted, least) = match first.checked_sub(compared).filter(|left| *left > 0) {
            Some(left) => (left.min(MOST), f32::NEG_INFINITY),
            // Between unit vectors a product of p is a squared distance of 2 - 2 p.
            None => (MORE, 1.0 - nearest.bound() / 2.0 - errors.most()),
        };
        let mut count = 0;
        while count < wanted
            && let Some(entry) = rows.next_if(|entry| scale * entry.score() as f32 >= least)
        {
            (batch[count], scores[count]) = (entry.row(), scale * entry.score() as f32);
            count += 1;
        }
        if count == 0 {
            return Ok(compared);
        }
        let mut scores = scores[..count].iter();
        compare(&batch[..count], &mut |found| {
            // One for each row.
            let score = scores.next().copied().unwrap_or_default();
            errors.add(1.0 - found.distance / 2.0 - score);
            nearest.offer(found);
        })?;
        compared += count;
    }
}

/// By how much products are greater than scores say.
#[derive(Default)]
struct Errors {
    count: f32,
    sum: f32,
    squares: f32,
    /// The first of them, which sums are kept relative to: what all have in common is large beside what they differ by.
    origin: f32,
}

impl Errors {
    fn add(&mut self, error: f32) {
        if self.count == 0.0 {
            self.origin = error;
        }
        let error = error - self.origin;
        self.count += 1.0;
        self.sum += error;
        self.squares += error * error;
    }

    /// What hardly any is greater than, once there are some.
    fn most(&self) -> f32 {
        let mean = self.sum / self.count;
        let variance = (self.squares / self.count - mean * mean).max(0.0);
        self.origin + mean + DEVIATIONS * variance.sqrt()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// What is found among rows of these products and scores, the best scores first, and how many were compared.
    fn run(k: usize, products: &[f32], error: impl Fn(usize) -> f32) -> (Vec<u64>, usize) {
        let score = |row: usize| ((products[row] - error(row)) * 1000.0) as i32;
        let mut rows: Vec<Entry> = (0..products.len()).map(|row| Entry::new(score(row), row as u32)).collect();
        rows.sort_unstable_by(|a, b| b.cmp(a));
        let mut nearest = Nearest::new(k, f32::INFINITY);
        let Ok(compared) = rerank(&mut nearest, rows.into_iter(), 0.001, |rows, each| {
            let found = |row: &u32| Found { distance: 2.0 - 2.0 * products[*row as usize], key: u64::from(*row) };
            rows.iter().map(found).for_each(each);
            Ok::<_, Infallible>(())
        });
        (nearest.into_sorted().iter().map(|found| found.key).collect(), compared)
    }

    #[test]
    fn the_worse_the_codes_the_more_rows_are_compared() {
        let products: Vec<f32> = (0..400).map(|row| 0.9 - row as f32 / 1000.0).collect();
        // Whatever is added to every score is no error.
        assert_eq!(run(3, &products, |_| 0.3), (vec![0, 1, 2], LEAST));
        assert_eq!(run(30, &products, |_| 0.3).1, 30 + FIRST);
        let noise = |row: usize| 0.05 * ((row * 37 % 101) as f32 / 50.0 - 1.0);
        let (found, compared) = run(3, &products, noise);
        assert_eq!(found, [0, 1, 2]);
        assert!((60..300).contains(&compared), "{compared}");
    }

    #[test]
    fn few_rows_are_all_compared() {
        assert_eq!(run(5, &[0.1, 0.3], |_| 0.0), (vec![1, 0], 2));
        assert_eq!(run(5, &[], |_| 0.0), (vec![], 0));
        let products: Vec<f32> = (0..200).map(|row| 0.9 - row as f32 / 1000.0).collect();
        assert_eq!(run(usize::MAX, &products, |_| 0.0).1, 200);
    }
}
