//! Cross entropy over the people of a source, with a margin between the right one and the others.
//!
//! Wang et al. 2018 (CosFace, arXiv:1801.09414), equation 4. A person is a direction; the people of other sources are no classes of a crop, since
//! one of them may be the same person under another name.

use std::ops::Range;

use candle_core::{Device, Result, Tensor, bail};
use rayon::prelude::*;

use crate::training::recipe::Softmax;

/// What a batch's cross entropy is.
pub struct Entropy {
    /// A scalar: the mean over the crops.
    pub loss: Tensor,
    /// Share of the crops whose own person is the nearest one.
    pub accuracy: f32,
}

/// `mean(-ln(exp(s·(cos_y - m)) / (exp(s·(cos_y - m)) + Σ exp(s·cos_j))))` over the crops, `j` the other people of the crop's source.
///
/// - `embeddings`: `(batch, 128)`, rows of unit length; `labels`: whose crop each is.
/// - `people`: `(people, 128)`, a direction each, of any length but zero.
/// - `sources`: which people are from one collection; every label is in one of them.
/// - `how`: `s`, the scale, `m`, the margin of this step, and which share of the crops is left out.
///
/// # Errors
/// When a label is in no source, or shapes disagree.
pub fn margin_softmax(
    embeddings: &Tensor,
    people: &Tensor,
    labels: &[usize],
    sources: &[Range<usize>],
    how: Softmax,
) -> Result<Entropy> {
    let (batch, device) = (embeddings.dim(0)?, embeddings.device());
    let length = (people.sqr()?.sum_keepdim(1)? + 1e-12)?.sqrt()?;
    let directions = people.broadcast_div(&length)?;
    let mut parts = Vec::new();
    let mut seen = Vec::new();
    for source in sources {
        let places: Vec<u32> =
            (0..labels.len()).filter(|at| source.contains(&labels[*at])).map(|at| at as u32).collect();
        if places.is_empty() {
            continue;
        }
        let own: Vec<usize> = places.iter().map(|at| labels[*at as usize] - source.start).collect();
        let rows = match places.len() == batch {
            true => embeddings.clone(),
            false => embeddings.index_select(&Tensor::new(places, device)?, 0)?,
        };
        let cosines = rows.matmul(&directions.narrow(0, source.start, source.len())?.t()?)?;
        let values = cosines.detach().to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
        let mut shares = vec![0.0f32; values.len()];
        let each = 1.0 / batch as f32;
        let rows = shares
            .par_chunks_exact_mut(source.len())
            .zip(values.par_chunks_exact(source.len()))
            .zip(&own)
            .map(|((shares, cosines), own)| row(cosines, *own, how, each, shares));
        seen.extend(rows.collect::<Vec<_>>());
        parts.push(Part { cosines, shares, people: source.len() });
    }
    if seen.len() != labels.len() {
        bail!("{} of {} crops are of people in no source", labels.len() - seen.len(), labels.len());
    }
    let accuracy = seen.iter().filter(|row| row.right).count() as f32 / batch.max(1) as f32;
    // Those that are trimmed give nothing, to the loss or its gradient.
    let mut order: Vec<usize> = (0..seen.len()).collect();
    order.sort_by(|a, b| seen[*b].loss.total_cmp(&seen[*a].loss));
    order.truncate((how.trim * batch as f32) as usize);
    let mut at = 0;
    let mut sums = Vec::new();
    let mut rest = 0.0;
    for Part { cosines, mut shares, people } in parts {
        for shares in shares.chunks_exact_mut(people) {
            match order.contains(&at) {
                true => shares.fill(0.0),
                // The loss, less what the products below already are.
                false => rest += seen[at].loss - seen[at].product,
            }
            at += 1;
        }
        let shares = Tensor::from_vec(shares, cosines.shape(), &Device::Cpu)?.to_device(device)?;
        sums.push((cosines * shares)?.sum_all()?);
    }
    let loss = (Tensor::stack(&sums, 0)?.sum_all()? + rest)?;
    Ok(Entropy { loss, accuracy })
}

/// The crops of one source.
struct Part {
    /// `(crops, people)`.
    cosines: Tensor,
    /// How much each of them changes the loss.
    shares: Vec<f32>,
    people: usize,
}

/// One crop.
struct Row {
    right: bool,
    /// Its part of the loss.
    loss: f64,
    /// Cosines times shares.
    product: f64,
}

/// Writes how much each cosine of a crop changes the loss.
fn row(cosines: &[f32], own: usize, how: Softmax, each: f32, shares: &mut [f32]) -> Row {
    let Softmax { scale, margin, .. } = how;
    let logit = |at: usize| scale * (cosines[at] - if at == own { margin } else { 0.0 });
    let highest = (0..cosines.len()).map(logit).fold(f32::NEG_INFINITY, f32::max);
    for (at, share) in shares.iter_mut().enumerate() {
        *share = (logit(at) - highest).exp();
    }
    let sum = shares.iter().map(|share| f64::from(*share)).sum::<f64>();
    let loss = f64::from(each) * (sum.ln() - f64::from(logit(own) - highest));
    let factor = (f64::from(scale) * f64::from(each) / sum) as f32;
    shares.iter_mut().for_each(|share| *share *= factor);
    shares[own] -= scale * each;
    let product = cosines.iter().zip(&*shares).map(|(cosine, share)| f64::from(cosine * share)).sum();
    let right = cosines.iter().enumerate().all(|(at, cosine)| at == own || *cosine < cosines[own]);
    Row { right, loss, product }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use candle_core::{D, Var};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn the_loss_and_its_gradients_are_those_of_the_formula_in_tensors() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut random = |rows: usize| {
            let values: Vec<f32> = (0..rows * 5).map(|_| rng.random_range(-1.0..1.0)).collect();
            Var::from_vec(values, (rows, 5), &Device::Cpu).unwrap()
        };
        let (x, people) = (random(6), random(7));
        let sources = [0..3, 3..7];
        let labels = [0, 4, 2, 6, 6, 1];
        let unit = |x: &Tensor| x.broadcast_div(&x.sqr().unwrap().sum_keepdim(1).unwrap().sqrt().unwrap()).unwrap();
        let gradients = |loss: &Tensor| {
            let grads = loss.backward().unwrap();
            let of = |var: &Var| grads.get(var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            [vec![loss.to_scalar::<f32>().unwrap()], of(&x), of(&people)].concat()
        };
        let (scale, margin) = (8.0, 0.3);
        let how = Softmax { scale, margin, ramp: 0, trim: 0.0, weight: 1.0 };
        // People of the other source and the margin, as what is added to cosines.
        let mut offsets = vec![0.0f32; labels.len() * 7];
        for (row, label) in labels.iter().enumerate() {
            let source = sources.iter().find(|source| source.contains(label)).unwrap();
            (0..7).filter(|p| !source.contains(p)).for_each(|p| offsets[row * 7 + p] = -1e3);
            offsets[row * 7 + label] = -margin;
        }
        let offsets = Tensor::from_vec(offsets, (labels.len(), 7), &Device::Cpu).unwrap();
        let cosines = unit(&x).matmul(&unit(&people).t().unwrap()).unwrap();
        let logits = ((&cosines + offsets).unwrap() * f64::from(scale)).unwrap();
        let places = Tensor::new(labels.map(|l| l as u32).as_slice(), &Device::Cpu).unwrap();
        let logs = candle_nn::ops::log_softmax(&logits, D::Minus1).unwrap();
        let expected = candle_nn::loss::nll(&logs, &places).unwrap();
        let found = margin_softmax(&unit(&x), &people, &labels, &sources, how).unwrap();
        let pairs = gradients(&found.loss).into_iter().zip(gradients(&expected));
        let apart = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 2e-6, "{apart} apart");
        let cosines = cosines.to_vec2::<f32>().unwrap();
        let nearest = |row: usize, source: &Range<usize>| {
            source.clone().max_by(|a, b| cosines[row][*a].total_cmp(&cosines[row][*b])).unwrap()
        };
        let of = |label: usize| sources.iter().find(|source| source.contains(&label)).unwrap();
        let right = labels.iter().enumerate().filter(|(row, label)| nearest(*row, of(**label)) == **label).count();
        assert_eq!(found.accuracy, right as f32 / 6.0);
        assert!(margin_softmax(&unit(&x), &people, &labels, &sources[..1], how).is_err());

        // Two of six are trimmed: the two that lose the most, and the others lose what they lost.
        let losses: Vec<f32> =
            logs.gather(&places.unsqueeze(1).unwrap(), 1).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let mut sorted = losses.clone();
        sorted.sort_by(|a, b| a.total_cmp(b));
        let kept: Vec<f32> = losses.iter().map(|log| f32::from(u8::from(*log > sorted[1]))).collect();
        let kept = Tensor::from_vec(kept, (6, 1), &Device::Cpu).unwrap();
        let expected = (logs.gather(&places.unsqueeze(1).unwrap(), 1).unwrap() * kept).unwrap().sum_all().unwrap();
        let trimmed = margin_softmax(&unit(&x), &people, &labels, &sources, Softmax { trim: 0.34, ..how }).unwrap();
        let pairs = gradients(&trimmed.loss).into_iter().zip(gradients(&(expected / -6.0).unwrap()));
        let apart = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 2e-6, "{apart} apart");
    }

    #[test]
    fn one_crop_is_what_a_hand_computes() {
        // Cosines 1 and 0, scale 2, margin 0.5: ln(1 + e^(0 - 1)).
        let [x, people] = [vec![1.0f32, 0.0], vec![3.0, 0.0, 0.0, 2.0]].map(|values| {
            let rows = values.len() / 2;
            Tensor::from_vec(values, (rows, 2), &Device::Cpu).unwrap()
        });
        let source = 0..2;
        let how = Softmax { scale: 2.0, margin: 0.5, ramp: 0, trim: 0.0, weight: 1.0 };
        let found = margin_softmax(&x, &people, &[0], std::slice::from_ref(&source), how).unwrap();
        assert!((found.loss.to_scalar::<f32>().unwrap() - (-1f32).exp().ln_1p()).abs() < 1e-6);
        assert_eq!(found.accuracy, 1.0);
    }
}
