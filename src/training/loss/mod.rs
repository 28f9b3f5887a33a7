//! What a step makes smaller: triplet loss on embeddings, and cross entropy with a margin over people.
//!
//! Both are computed with plain numbers, together with how much each distance or cosine changes them. What candle differentiates is the sum of
//! these products: no gradient goes through a search or a logarithm, and a GPU never scatters.

mod memory;
mod mining;
mod softmax;

use candle_core::{DType, Result, Tensor, bail};

pub(super) use memory::Memory;
pub use mining::{Mining, Triplet, mine};
pub use softmax::{Entropy, margin_softmax};

/// The squared distances of a batch to faces.
///
/// - `embeddings`: `(batch, 128)`, `others`: `(faces, 128)`, rows of unit length.
/// - Returns `(batch, faces)`, 0 to 4.
///
/// # Errors
/// When these are not matrices of one width.
pub fn squared_distances(embeddings: &Tensor, others: &Tensor) -> Result<Tensor> {
    embeddings.matmul(&others.t()?.contiguous()?)?.affine(-2.0, 2.0)
}

/// Triplet loss with the margin of the FaceNet paper, or a soft one.
///
/// `mean(max(0, d(a, p) - d(a, n) + margin))` over the triplets, without a margin `mean(ln(1 + exp(d(a, p) - d(a, n))))`; zero when there is none.
///
/// - `distances`: `(batch, faces)`, as [`squared_distances`] returns.
/// - `margin`: a squared distance, so between 0 and 4; the paper uses 0.2.
/// - Returns a scalar, at most `4 + margin`.
///
/// # Errors
/// When a triplet lies outside the batch.
///
/// Source: Schroff et al., "FaceNet", CVPR 2015, section 3.1, equation 3; Hermans et al. 2017 (arXiv:1703.07737), section 2, for the soft margin.
pub fn triplet_loss(distances: &Tensor, triplets: &[Triplet], margin: Option<f64>) -> Result<Tensor> {
    let (anchors, count) = distances.dims2()?;
    let values = distances.detach().flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    let each = 1.0 / triplets.len().max(1) as f64;
    let mut shares = vec![0.0; values.len()];
    let mut loss = 0.0;
    for triplet in triplets {
        if triplet.anchor >= anchors || triplet.positive.max(triplet.negative) >= count {
            bail!("{triplet:?} lies outside a batch of {anchors} and its {count} faces");
        }
        let [positive, negative] = [triplet.positive, triplet.negative].map(|other| triplet.anchor * count + other);
        let violation = values[positive] - values[negative];
        let (part, slope) = match margin {
            Some(margin) if violation + margin > 0.0 => (violation + margin, 1.0),
            Some(_) => (0.0, 0.0),
            // Distances are at most 4, so nothing overflows.
            None => (violation.exp().ln_1p(), 1.0 / (1.0 + (-violation).exp())),
        };
        loss += each * part;
        shares[positive] += each * slope;
        shares[negative] -= each * slope;
    }
    by_shares(distances, &values, shares, loss)
}

/// A loss of this value whose gradient at `x` is `shares`.
fn by_shares(x: &Tensor, values: &[f64], shares: Vec<f64>, loss: f64) -> Result<Tensor> {
    let rest = loss - values.iter().zip(&shares).map(|(value, share)| value * share).sum::<f64>();
    let shares = Tensor::from_vec(shares, x.shape(), &candle_core::Device::Cpu)?.to_dtype(x.dtype())?;
    (x * shares.to_device(x.device())?)?.sum_all()? + rest
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use candle_core::{Device, Var};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn the_loss_and_its_gradient_are_those_of_the_formula_in_tensors() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let values: Vec<f64> = (0..81).map(|_| rng.random_range(0.0..4.0)).collect();
        let distances = Var::from_vec(values, (9, 9), &Device::Cpu).unwrap();
        let mut place = || rng.random_range(0..9);
        let triplets: Vec<Triplet> =
            (0..40).map(|_| Triplet { anchor: place(), positive: place(), negative: place() }).collect();
        let run = |loss: Tensor| {
            let grads = loss.backward().unwrap();
            let grad = grads.get(&distances).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            [vec![loss.to_scalar::<f64>().unwrap()], grad].concat()
        };
        let pick = |other: fn(&Triplet) -> usize| {
            let places: Vec<u32> = triplets.iter().map(|t| (t.anchor * 9 + other(t)) as u32).collect();
            let flat = distances.flatten_all().unwrap();
            flat.index_select(&Tensor::new(places, &Device::Cpu).unwrap(), 0).unwrap()
        };
        let violation = (pick(|t| t.positive) - pick(|t| t.negative)).unwrap();
        for margin in [Some(0.5), None] {
            let expected = match margin {
                Some(margin) => (&violation + margin).unwrap().relu().unwrap(),
                None => (violation.exp().unwrap() + 1.0).unwrap().log().unwrap(),
            };
            let expected = run(expected.mean_all().unwrap());
            let found = run(triplet_loss(&distances, &triplets, margin).unwrap());
            let close = found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-12);
            assert!(close, "{margin:?}: {found:?} instead of {expected:?}");
        }
        assert!(triplet_loss(&distances, &[Triplet { anchor: 9, positive: 0, negative: 1 }], None).is_err());
    }
}
