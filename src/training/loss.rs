//! Triplet loss with semi-hard online mining.
//!
//! Schroff et al. 2015 (arXiv:1503.03832), sections 3.1 and 3.2: all anchor-positive pairs of a batch, each with a negative that is farther
//! from the anchor than the positive, but by less than the margin. Among those the nearest is taken.

use candle_core::{DType, Result, Tensor, bail};
use rayon::prelude::*;

/// Anchor, positive and negative, as places in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Triplet {
    /// The face that both others are compared with.
    pub anchor: usize,
    /// Another face of the same person.
    pub positive: usize,
    /// A face of somebody else.
    pub negative: usize,
}

/// All squared distances of a batch.
///
/// - `embeddings`: `(batch, 128)`, rows of unit length.
/// - Returns `(batch, batch)`, 0 to 4.
///
/// # Errors
/// When it is not a matrix.
pub fn squared_distances(embeddings: &Tensor) -> Result<Tensor> {
    embeddings.matmul(&embeddings.t()?.contiguous()?)?.affine(-2.0, 2.0)
}

/// For every anchor-positive pair the nearest negative with `d(a, p) < d(a, n) < d(a, p) + margin`, where there is one.
///
/// - `distances`: `batch * batch` squared distances, row after row; `labels`: whose face each is.
/// - Of negatives that are equally near, the first. Takes time in proportion to the pairs times the batch.
pub fn semi_hard(distances: &[f32], labels: &[usize], margin: f32) -> Vec<Triplet> {
    let count = labels.len();
    assert_eq!(distances.len(), count * count, "one distance for each pair of the batch");
    let of_anchor = |anchor: usize| {
        let row = &distances[anchor * count..][..count];
        // Faces of the anchor's own person lie beyond every margin.
        let other =
            |(distance, label): (&f32, &usize)| if *label == labels[anchor] { f32::INFINITY } else { *distance };
        let negatives: Vec<f32> = row.iter().zip(labels).map(other).collect();
        let positives = (0..count).filter(|p| *p != anchor && labels[*p] == labels[anchor]);
        let mined = positives.filter_map(|positive| {
            let nearest = lowest_between(&negatives, row[positive], row[positive] + margin)?;
            let negative = negatives.iter().position(|distance| *distance == nearest)?;
            Some(Triplet { anchor, positive, negative })
        });
        mined.collect::<Vec<_>>()
    };
    (0..count).into_par_iter().with_min_len(ANCHORS).flat_map_iter(of_anchor).collect()
}

/// Anchors that one task mines for at least.
const ANCHORS: usize = 32;

/// Distances that are compared side by side.
const LANES: usize = 16;

/// The lowest value above `low` and below `high`, both excluded.
fn lowest_between(values: &[f32], low: f32, high: f32) -> Option<f32> {
    let within = |value: f32| if value > low && value < high { value } else { f32::INFINITY };
    let (blocks, rest) = values.as_chunks::<LANES>();
    let mut lowest = [f32::INFINITY; LANES];
    for block in blocks {
        lowest.iter_mut().zip(block).for_each(|(lowest, value)| *lowest = lowest.min(within(*value)));
    }
    let lowest = lowest.into_iter().chain(rest.iter().map(|value| within(*value))).fold(f32::INFINITY, f32::min);
    (lowest < f32::INFINITY).then_some(lowest)
}

/// Triplet loss with the margin of the FaceNet paper.
///
/// `mean(max(0, d(a, p) - d(a, n) + margin))` over the triplets; zero when there is none.
///
/// - `distances`: `(batch, batch)`, as [`squared_distances`] returns.
/// - `margin`: a squared distance, so between 0 and 4; the paper uses 0.2.
/// - Returns a scalar, at most `4 + margin`.
///
/// # Errors
/// When a triplet lies outside the batch.
///
/// Source: Schroff et al., "FaceNet", CVPR 2015, section 3.1, equation 3.
pub fn triplet_loss(distances: &Tensor, triplets: &[Triplet], margin: f64) -> Result<Tensor> {
    let (count, _) = distances.dims2()?;
    if triplets.is_empty() {
        return Tensor::zeros((), DType::F32, distances.device())?.to_dtype(distances.dtype());
    }
    if !distances.device().is_cpu() {
        return by_shares(distances, triplets, margin);
    }
    let flat = distances.flatten_all()?;
    let pick = |other: fn(&Triplet) -> usize| {
        let places: Vec<u32> = triplets.iter().map(|t| (t.anchor * count + other(t)) as u32).collect();
        flat.index_select(&Tensor::new(places, distances.device())?, 0)
    };
    let violation = (pick(|t| t.positive)? - pick(|t| t.negative)?)?;
    (violation + margin)?.relu()?.mean_all()
}

/// The same loss as all distances times their shares in it: the gradients of picked values are added by one thread of a GPU.
fn by_shares(distances: &Tensor, triplets: &[Triplet], margin: f64) -> Result<Tensor> {
    let (count, _) = distances.dims2()?;
    let values = distances.detach().flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
    let each = 1.0 / triplets.len() as f32;
    let mut shares = vec![0.0f32; values.len()];
    let mut offset = 0.0;
    for triplet in triplets {
        if [triplet.anchor, triplet.positive, triplet.negative].iter().any(|place| *place >= count) {
            bail!("{triplet:?} lies outside a batch of {count}");
        }
        let [positive, negative] = [triplet.positive, triplet.negative].map(|other| triplet.anchor * count + other);
        if f64::from(values[positive] - values[negative]) + margin > 0.0 {
            shares[positive] += each;
            shares[negative] -= each;
            offset += margin * f64::from(each);
        }
    }
    let shares = Tensor::from_vec(shares, (count, count), distances.device())?.to_dtype(distances.dtype())?;
    (distances * shares)?.sum_all()? + offset
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use candle_core::{Device, Var};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn picked_distances_and_shares_give_the_same_loss_and_gradient() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let values: Vec<f32> = (0..81).map(|_| rng.random_range(0.0..4.0)).collect();
        let distances = Var::from_vec(values, (9, 9), &Device::Cpu).unwrap();
        let mut place = || rng.random_range(0..9);
        let triplets: Vec<Triplet> =
            (0..40).map(|_| Triplet { anchor: place(), positive: place(), negative: place() }).collect();
        let run = |loss: Tensor| {
            let grads = loss.backward().unwrap();
            let grad = grads.get(&distances).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            [vec![loss.to_scalar::<f32>().unwrap()], grad].concat()
        };
        let picked = run(triplet_loss(&distances, &triplets, 0.5).unwrap());
        let shares = run(by_shares(&distances, &triplets, 0.5).unwrap());
        assert!(picked.iter().zip(&shares).all(|(a, b)| (a - b).abs() < 1e-5), "{shares:?} instead of {picked:?}");
        assert!(by_shares(&distances, &[Triplet { anchor: 9, positive: 0, negative: 1 }], 0.5).is_err());
    }
}
