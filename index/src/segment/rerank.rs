//! The nearest of what a walk found, by their vectors.
//!
//! A walk puts rows in the order of their codes, and the nearest are most likely the first of these. How likely depends on the vectors: for
//! embeddings of faces the first two dozen hold the nearest ten, for others it takes hundreds. So rows are compared a few at a time, for
//! as long as the last few changed the answer.

use crate::nearest::{Found, Nearest};

/// Rows that are compared in any case, besides as many as are wanted; and at a time from then on.
const FIRST: usize = 14;
const MORE: usize = 12;

/// At most `k` of the rows, or all that are compared on the way where that is no limit, in no order.
///
/// - `rows`: the most promising first; `compare`: gives rows their distances.
pub(super) fn rerank<E>(
    k: usize,
    rows: impl Iterator<Item = u32>,
    mut compare: impl FnMut(&[u32]) -> Result<Vec<Found>, E>,
) -> Result<Vec<Found>, E> {
    let mut nearest = Nearest::new(k, f32::INFINITY);
    let mut rows = rows.peekable();
    let mut batch = Vec::new();
    let mut wanted = k.saturating_add(FIRST);
    while rows.peek().is_some() {
        batch.clear();
        batch.extend(rows.by_ref().take(wanted));
        let taken = compare(&batch)?.into_iter().filter(|found| nearest.offer(*found)).count();
        if taken == 0 {
            break;
        }
        wanted = MORE;
    }
    Ok(nearest.into_sorted())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// What is found among rows whose distances are given, and how many were compared.
    fn run(k: usize, distances: &[f32]) -> (Vec<u64>, usize) {
        let mut compared = 0;
        let Ok(found) = rerank(k, 0..distances.len() as u32, |rows| {
            compared += rows.len();
            let found = |row: &u32| Found { distance: distances[*row as usize], key: u64::from(*row) };
            Ok::<_, Infallible>(rows.iter().map(found).collect())
        });
        (found.iter().map(|found| found.key).collect(), compared)
    }

    #[test]
    fn it_goes_on_while_the_answer_gets_better_and_no_longer() {
        let ascending: Vec<f32> = (0..200).map(|row| row as f32).collect();
        assert_eq!(run(2, &ascending), (vec![0, 1], 2 + FIRST + MORE));
        let descending: Vec<f32> = ascending.iter().rev().copied().collect();
        assert_eq!(run(2, &descending), (vec![199, 198], 200));
        assert_eq!(run(5, &[0.3, 0.1]), (vec![1, 0], 2));
        assert_eq!(run(5, &[]), (vec![], 0));
        assert_eq!(run(usize::MAX, &ascending).1, 200);
    }
}
