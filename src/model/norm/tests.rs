//! Batch normalisation against its definition, finite differences in `f64`, and itself on other numbers of threads.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

use candle_core::{Device, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

fn random(shape: &[usize], seed: u64) -> Var {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
    Var::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// The values of a tensor of any type.
fn flat(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn normalized(x: &Tensor, affine: &Tensor, residual: Option<&Tensor>, activation: Activation) -> Tensor {
    BatchNorm { moments: Moments::of(x).unwrap(), activation }.apply(x, affine, residual).unwrap()
}

#[test]
fn each_channel_gets_the_mean_and_deviation_that_were_asked_for() {
    // A mean a thousand times the deviation must not swallow it, in 32 bits either.
    for (dtype, tolerance) in [(DType::F64, 1e-4), (DType::F32, 1e-3)] {
        let x = random(&[50, 40, 3, 2], 1).affine(0.1, 100.0).unwrap().to_dtype(dtype).unwrap();
        let affine = Tensor::new(&[[2.0, 0.5], [-1.0, 4.0]], &Device::Cpu).unwrap();
        let moments = Moments::of(&normalized(&x, &affine, None, Activation::None)).unwrap();
        let (mean, variance) = (flat(&moments.mean().unwrap()), flat(&moments.variance().unwrap()));
        for c in 0..2 {
            assert!((mean[c] - [-1.0, 4.0][c]).abs() < tolerance, "{dtype:?}: {mean:?}");
            // ε is 0.3 % of this variance.
            assert!((variance[c].sqrt() - [2.0, 0.5][c]).abs() < 0.002 * 2.0, "{dtype:?}: {variance:?}");
        }
    }
}

#[test]
fn gradients_agree_with_finite_differences_through_the_moments() {
    for (activation, with_residual) in
        [Activation::None, Activation::Relu].iter().flat_map(|a| [false, true].map(|r| (*a, r)))
    {
        let inputs = [random(&[3, 2, 2, 3], 2), random(&[2, 3], 3), random(&[3, 2, 2, 3], 4)];
        let weights = random(&[3, 2, 2, 3], 5);
        let loss = |inputs: &[Var]| {
            let residual = with_residual.then_some(inputs[2].as_tensor());
            let y = normalized(&inputs[0], &inputs[1], residual, activation);
            (y * weights.as_tensor()).unwrap().sqr().unwrap().sum_all().unwrap()
        };
        let grads = loss(&inputs).backward().unwrap();
        for (which, input) in inputs.iter().enumerate().take(if with_residual { 3 } else { 2 }) {
            let grad = flat(grads.get(input).unwrap());
            let values = flat(input);
            for at in 0..values.len() {
                let moved = |by: f64| {
                    let mut values = values.clone();
                    values[at] += by;
                    let mut inputs = inputs.clone();
                    inputs[which] = Var::from_vec(values, input.shape(), &Device::Cpu).unwrap();
                    loss(&inputs).to_scalar::<f64>().unwrap()
                };
                let expected = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                let error = (grad[at] - expected).abs() / expected.abs().max(1.0);
                assert!(
                    error < 1e-6,
                    "{activation:?}, residual {with_residual}, input {which}, value {at}: {} instead of {expected}",
                    grad[at]
                );
            }
        }
    }
}

/// Output and gradients, in one list.
fn everything(dtype: DType) -> Vec<f64> {
    // Several groups, and a last one that is not full.
    let shape = [7, 13, 11, 48];
    let [x, affine, residual] = [(&shape[..], 6), (&[2, 48][..], 7), (&shape[..], 8)]
        .map(|(shape, seed)| Var::from_tensor(&random(shape, seed).to_dtype(dtype).unwrap()).unwrap());
    let y = normalized(&x, &affine, Some(&residual), Activation::Relu);
    let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    let gradients = [&x, &affine, &residual].map(|var| flat(grads.get(var).unwrap()));
    [flat(&y)].into_iter().chain(gradients).flatten().collect()
}

#[test]
fn nothing_depends_on_the_number_of_threads() {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| everything(DType::F32))
    };
    assert!(run(1) == run(3));
}

#[test]
fn sixteen_bits_give_the_same_numbers_rounded() {
    let (exact, rounded) = (everything(DType::F64), everything(DType::BF16));
    // Inputs, outputs and gradients lose all but 8 bits each; a sum of 1001 rows adds to that.
    let largest = exact.iter().fold(0f64, |most, value| most.max(value.abs()));
    for (exact, rounded) in exact.iter().zip(&rounded) {
        assert!(
            (exact - rounded).abs() < 0.02 * exact.abs() + 0.01 * largest.min(100.0),
            "{rounded} instead of {exact}"
        );
    }
}

#[test]
fn shapes_that_disagree_are_an_error() {
    let x = random(&[2, 3, 4], 1);
    let norm = BatchNorm { moments: Moments::of(&x).unwrap(), activation: Activation::None };
    let affine = random(&[2, 4], 2);
    assert!(norm.apply(&x, &random(&[2, 3], 2), None).is_err());
    assert!(norm.apply(&x, &affine, Some(&random(&[2, 2, 4], 3))).is_err());
    assert!(Moments::of(&Tensor::zeros((0, 4), DType::F32, &Device::Cpu).unwrap()).is_err());
}

#[test]
fn candle_s_own_operations_give_the_same_numbers() {
    for (activation, with_residual) in [(Activation::None, true), (Activation::Relu, true), (Activation::Relu, false)] {
        let inputs = [random(&[3, 5, 2, 4], 2), random(&[2, 4], 3), random(&[3, 5, 2, 4], 4)];
        let residual = with_residual.then_some(inputs[2].as_tensor());
        let fused = normalized(&inputs[0], &inputs[1], residual, activation);
        let composed = composed::batch_norm(&inputs[0], &inputs[1], residual, activation).unwrap();
        let gradients = |y: &Tensor| {
            let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            let mut all = flat(y);
            all.extend(inputs.iter().filter_map(|input| grads.get(input)).flat_map(flat));
            all
        };
        let (fused, composed) = (gradients(&fused), gradients(&composed));
        assert_eq!(fused.len(), composed.len());
        for (fused, composed) in fused.iter().zip(&composed) {
            assert!((fused - composed).abs() < 1e-9 * composed.abs().max(1.0), "{fused} instead of {composed}");
        }
    }
    let x = random(&[30, 3], 9);
    let (own, composed) = (flat(&Moments::of(&x).unwrap().both), flat(&composed::moments(&x).unwrap()));
    assert!(own.iter().zip(&composed).all(|(a, b)| (a - b).abs() < 1e-12), "{own:?} instead of {composed:?}");
}
