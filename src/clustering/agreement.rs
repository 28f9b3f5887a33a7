//! How well groups agree with the truth, where it is known.

use std::collections::HashMap;

use crate::{Error, Result};

/// How well a partition agrees with the truth.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Agreement {
    /// BCubed precision, recall and F.
    pub bcubed: PrecisionRecall,
    /// The same over pairs of inputs.
    pub pairwise: PrecisionRecall,
}

/// Precision, recall and their harmonic mean, each 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct PrecisionRecall {
    /// Of what was put together, the share that belongs together.
    pub precision: f64,
    /// Of what belongs together, the share that was put together.
    pub recall: f64,
    /// Harmonic mean.
    pub f: f64,
}

impl PrecisionRecall {
    fn new(precision: f64, recall: f64) -> Self {
        let sum = precision + recall;
        Self { precision, recall, f: if sum > 0.0 { 2.0 * precision * recall / sum } else { 0.0 } }
    }
}

/// Compares `found` with `truth`, any labels, same length.
///
/// BCubed averages over inputs, so every person counts by the number of photos; pairwise counts pairs, so large groups
/// count by the square. Where no pair was put together pairwise precision is 1, as nothing was said that is false; recall
/// likewise where no pair belongs together.
///
/// # Errors
/// [`Error::Argument`] when the lengths differ or are zero.
///
/// Source: Bagga & Baldwin 1998; Amigó et al. 2009.
pub fn agreement(found: &[u32], truth: &[u32]) -> Result<Agreement> {
    if found.len() != truth.len() || found.is_empty() {
        let what =
            format!("{} found labels and {} true ones: as many are needed, at least one", found.len(), truth.len());
        return Err(Error::argument("labels", what));
    }
    let found_sizes = sizes(found.iter().copied());
    let truth_sizes = sizes(truth.iter().copied());
    let mut cells: Vec<_> = sizes(found.iter().copied().zip(truth.iter().copied())).into_iter().collect();
    // Floats are summed in one order, so that equal inputs give equal bits.
    cells.sort_unstable();

    let (mut precision, mut recall) = (0.0, 0.0);
    for ((found, truth), count) in &cells {
        let squared = (*count as f64).powi(2);
        precision += squared / found_sizes[found] as f64;
        recall += squared / truth_sizes[truth] as f64;
    }
    let count = found.len() as f64;
    let bcubed = PrecisionRecall::new(precision / count, recall / count);

    let both = pairs(cells.iter().map(|(_, count)| *count));
    let share = |of: u128| if of == 0 { 1.0 } else { both as f64 / of as f64 };
    let together = pairs(found_sizes.into_values());
    let belonging = pairs(truth_sizes.into_values());
    Ok(Agreement { bcubed, pairwise: PrecisionRecall::new(share(together), share(belonging)) })
}

fn sizes<L: std::hash::Hash + Eq>(labels: impl Iterator<Item = L>) -> HashMap<L, u64> {
    let mut sizes = HashMap::new();
    labels.for_each(|label| *sizes.entry(label).or_insert(0) += 1);
    sizes
}

fn pairs(sizes: impl Iterator<Item = u64>) -> u128 {
    sizes.map(|size| u128::from(size) * u128::from(size - 1) / 2).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(found: &[u32], truth: &[u32], bcubed: (f64, f64), pairwise: (f64, f64)) {
        let agreement = agreement(found, truth).unwrap();
        for (got, (precision, recall)) in [(agreement.bcubed, bcubed), (agreement.pairwise, pairwise)] {
            let f = if precision + recall == 0.0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) };
            let error = (got.precision - precision).abs() + (got.recall - recall).abs() + (got.f - f).abs();
            assert!(error < 1e-12, "{got:?}, expected {precision} and {recall}");
        }
    }

    #[test]
    fn figures_are_those_worked_out_by_hand() {
        check(&[7, 7, 9], &[1, 1, 2], (1.0, 1.0), (1.0, 1.0));
        // One group of all: of three pairs one is right; each of the two finds 2/3 of its group, the third 1/3.
        check(&[0, 0, 0], &[1, 1, 2], (5.0 / 9.0, 1.0), (1.0 / 3.0, 1.0));
        // Everybody alone: nothing false was said, and the one true pair was missed.
        check(&[0, 1, 2], &[1, 1, 2], (1.0, 2.0 / 3.0), (1.0, 0.0));
        // {a a b} {b b}: 3 + 1 pairs put together, 1 + 1 of them right, of 1 + 3 that belong together.
        check(&[0, 0, 0, 1, 1], &[5, 5, 6, 6, 6], (11.0 / 15.0, 11.0 / 15.0), (0.5, 0.5));
        check(&[3], &[4], (1.0, 1.0), (1.0, 1.0));
        check(&[0, 0], &[1, 2], (0.5, 1.0), (0.0, 1.0));
    }

    #[test]
    fn no_labels_and_lengths_that_differ_are_refused() {
        assert!(agreement(&[], &[]).is_err());
        assert!(agreement(&[1], &[1, 2]).is_err());
    }

    proptest! {
        #[test]
        fn figures_are_those_of_counting_input_by_input(labels in prop::collection::vec((0u32..6, 0u32..6), 1..40)) {
            let (found, truth): (Vec<u32>, Vec<u32>) = labels.iter().copied().unzip();
            let n = labels.len();
            let (mut precision, mut recall, mut both, mut together, mut belonging) = (0.0, 0.0, 0.0, 0.0, 0.0);
            for i in 0..n {
                let in_found = (0..n).filter(|j| found[*j] == found[i]).count() as f64;
                let in_truth = (0..n).filter(|j| truth[*j] == truth[i]).count() as f64;
                let in_both = (0..n).filter(|j| labels[*j] == labels[i]).count() as f64;
                precision += in_both / in_found / n as f64;
                recall += in_both / in_truth / n as f64;
                both += in_both - 1.0;
                together += in_found - 1.0;
                belonging += in_truth - 1.0;
            }
            let share = |of: f64| if of == 0.0 { 1.0 } else { both / of };
            check(&found, &truth, (precision, recall), (share(together), share(belonging)));
        }
    }
}
