//! Verification over labelled pairs in folds: accuracy, VAL at a false-accept rate, AUC and EER.
//!
//! Every threshold is chosen on the other folds and applied to its own. Pairs are ordered by cosine in `f64`, which for unit
//! vectors is `1 - distance / 2`; ties keep the order of the pairs file. `scripts/lfw_eval.py` does the same and
//! agrees to 1e-6.
//!
//! A face that was not found is a vector of zeros, as in that script: at distance 2 from everybody. Its same pairs then fail
//! (any useful threshold is below 2), and its different pairs count as told apart. The number of pairs with such a
//! face is always reported beside the figures.

use std::collections::HashMap;

use super::PairList;
use crate::{Embedding, Error, Result};

/// A mean over folds and its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// The mean.
    pub mean: f64,
    /// Sample standard deviation over the root of the number of folds; 0 for a single fold.
    pub standard_error: f64,
}

impl Mean {
    fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let standard_error = if values.len() > 1 { (squares / (count - 1.0) / count).sqrt() } else { 0.0 };
        Self { mean, standard_error }
    }
}

/// A point of the ROC over all pairs at once, its threshold chosen on the same pairs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrueAccept {
    /// False-accept rate.
    pub far: f64,
    /// The share of same pairs that is accepted.
    pub rate: f64,
}

/// What the protocol says.
#[derive(Clone, Debug, PartialEq)]
pub struct Verification {
    /// Pairs behind the figures.
    pub pairs: usize,
    /// Pairs left out because one of their photos was not among the faces given.
    pub pairs_without_photo: usize,
    /// Pairs with a photo in which no face was found; they count.
    pub pairs_without_face: usize,
    /// Share of pairs told right, with the threshold that is best on the other folds.
    pub accuracy: Mean,
    /// Mean of those thresholds, as a squared distance.
    pub distance: f64,
    /// The false-accept rate asked for.
    pub far: f64,
    /// The paper's VAL: share of same pairs accepted, with the threshold that gives `far` on the other folds.
    pub val: Mean,
    /// The false-accept rate that those thresholds really have, on their own folds.
    pub far_found: f64,
    /// Area under the ROC over all pairs.
    pub auc: f64,
    /// Where as many same pairs are refused as different ones accepted, over all pairs.
    pub eer: f64,
    /// Points of the ROC over all pairs.
    pub roc: Vec<TrueAccept>,
    /// All of it: the most that is accepted at each false-accept rate that occurs.
    pub curve: Vec<TrueAccept>,
}

/// False-accept rates of the ROC that is reported.
const ROC_RATES: [f64; 4] = [1e-3, 1e-2, 5e-2, 1e-1];

/// One pair with its cosine.
#[derive(Clone, Copy)]
struct Scored {
    cosine: f64,
    same: bool,
    fold: usize,
}

/// Runs the protocol; `faces` holds an embedding for each photo, or `None` where no face was found.
///
/// # Errors
/// [`Error::Argument`] when `far` is not between 0 and 1 or when a fold is left without pairs of both kinds.
pub fn verification(faces: &HashMap<String, Option<Embedding>>, list: &PairList, far: f64) -> Result<Verification> {
    if !(0.0..1.0).contains(&far) {
        return Err(Error::argument("far", format!("a rate is at least 0 and below 1, found {far}")));
    }
    let mut pairs_without_face = 0;
    let mut scored = Vec::with_capacity(list.pairs.len());
    for pair in &list.pairs {
        let [Some(a), Some(b)] = [0, 1].map(|at| faces.get(&pair.photos[at])) else { continue };
        let cosine = match (a, b) {
            (Some(a), Some(b)) => cosine(a, b),
            _ => {
                pairs_without_face += 1;
                0.0
            }
        };
        scored.push(Scored { cosine, same: pair.same, fold: pair.fold });
    }
    for fold in 0..list.folds {
        for same in [true, false] {
            if !scored.iter().any(|pair| pair.fold == fold && pair.same == same) {
                let kind = if same { "same" } else { "different" };
                let what = format!("fold {} has no {kind} pair whose photos are both there", fold + 1);
                return Err(Error::argument("pairs", what));
            }
        }
    }

    let (mut accuracies, mut vals, mut fars, mut distances) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for fold in 0..list.folds {
        let (test, mut train): (Vec<Scored>, Vec<Scored>) = scored.iter().partition(|pair| pair.fold == fold);
        if train.is_empty() {
            train.clone_from(&test);
        }
        let best = best_threshold(&train);
        accuracies.push(share(&test, |_| true, |pair| (pair.cosine > best) == pair.same));
        distances.push(2.0 - 2.0 * best);
        let strict = threshold_at(&train, far);
        vals.push(share(&test, |pair| pair.same, |pair| pair.cosine > strict));
        fars.push(share(&test, |pair| !pair.same, |pair| pair.cosine > strict));
    }
    let Roc { auc, eer, curve } = Roc::of(&scored);
    let point = |far| {
        let threshold = threshold_at(&scored, far);
        TrueAccept { far, rate: share(&scored, |pair| pair.same, |pair| pair.cosine > threshold) }
    };
    Ok(Verification {
        pairs: scored.len(),
        pairs_without_photo: list.pairs.len() - scored.len(),
        pairs_without_face,
        accuracy: Mean::of(&accuracies),
        distance: Mean::of(&distances).mean,
        far,
        val: Mean::of(&vals),
        far_found: Mean::of(&fars).mean,
        auc,
        eer,
        roc: ROC_RATES.into_iter().map(point).collect(),
        curve,
    })
}

fn cosine(a: &Embedding, b: &Embedding) -> f64 {
    let dot = |a: &Embedding, b: &Embedding| -> f64 {
        a.as_slice().iter().zip(b.as_slice()).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    // Rounded to `f32` an embedding is not exactly of unit length.
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Of the pairs in question, the share for which something holds.
fn share(pairs: &[Scored], of: impl Fn(&Scored) -> bool, holds: impl Fn(&Scored) -> bool) -> f64 {
    let (mut all, mut some) = (0u32, 0u32);
    for pair in pairs.iter().filter(|pair| of(pair)) {
        all += 1;
        some += u32::from(holds(pair));
    }
    f64::from(some) / f64::from(all)
}

/// Nearest first; ties stay in order.
fn nearest_first(pairs: &[Scored]) -> Vec<Scored> {
    let mut sorted = pairs.to_vec();
    sorted.sort_by(|a, b| b.cosine.total_cmp(&a.cosine));
    sorted
}

/// The cosine above which accepting tells most pairs right: halfway between the last accepted and the first refused.
fn best_threshold(pairs: &[Scored]) -> f64 {
    let sorted = nearest_first(pairs);
    let different = sorted.iter().filter(|pair| !pair.same).count() as i64;
    let (mut right, mut best, mut at) = (different, i64::MIN, 0);
    for (rank, pair) in sorted.iter().enumerate() {
        right += if pair.same { 1 } else { -1 };
        if right > best {
            (best, at) = (right, rank);
        }
    }
    let next = sorted.get(at + 1).unwrap_or(&sorted[at]);
    (sorted[at].cosine + next.cosine) / 2.0
}

/// The cosine above which at most the share `far` of different pairs lies.
fn threshold_at(pairs: &[Scored], far: f64) -> f64 {
    let mut different: Vec<f64> = pairs.iter().filter(|pair| !pair.same).map(|pair| pair.cosine).collect();
    different.sort_by(|a, b| b.total_cmp(a));
    // `far` is below 1, so this is an index.
    different[(far * different.len() as f64).floor() as usize]
}

/// The receiver operating characteristic of all pairs.
struct Roc {
    auc: f64,
    eer: f64,
    curve: Vec<TrueAccept>,
}

impl Roc {
    fn of(pairs: &[Scored]) -> Self {
        let same = pairs.iter().filter(|pair| pair.same).count() as f64;
        let different = pairs.len() as f64 - same;
        let (mut accepted, mut falsely) = (0.0, 0.0);
        let (mut tpr, mut fpr, mut auc) = (0.0, 0.0, 0.0);
        let (mut closest, mut eer) = (1.0, 0.5);
        let mut curve = Vec::new();
        for pair in nearest_first(pairs) {
            if pair.same {
                accepted += 1.0;
            } else {
                falsely += 1.0;
            }
            let (next_tpr, next_fpr) = (accepted / same, falsely / different);
            auc += (next_fpr - fpr) * (next_tpr + tpr) / 2.0;
            if next_fpr > fpr {
                curve.push(TrueAccept { far: fpr, rate: tpr });
            }
            (tpr, fpr) = (next_tpr, next_fpr);
            let (refused, gap) = (1.0 - tpr, (fpr - (1.0 - tpr)).abs());
            if gap < closest {
                (closest, eer) = (gap, (fpr + refused) / 2.0);
            }
        }
        curve.push(TrueAccept { far: fpr, rate: tpr });
        Self { auc, eer, curve }
    }
}
