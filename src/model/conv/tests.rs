//! The convolution against plain loops, and its gradients against finite differences in `f64`.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

use candle_core::{Device, Tensor, Var};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Activation, ConvParams, Threads, conv2d};

fn random(shape: &[usize], rng: &mut ChaCha8Rng) -> Tensor {
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// The definition, in plain loops.
fn reference(x: &Tensor, weight: &Tensor, bias: &Tensor, params: &ConvParams) -> Vec<f64> {
    let (batch, height, width, channels) = x.dims4().unwrap();
    let (kernel_height, kernel_width, _, out) = weight.dims4().unwrap();
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let (x, weight, bias) = (flat(x), flat(weight), flat(bias));
    let ConvParams { stride, padding, activation, .. } = *params;
    let mut y = Vec::new();
    for n in 0..batch {
        for top in (0..=height + 2 * padding - kernel_height).step_by(stride) {
            for left in (0..=width + 2 * padding - kernel_width).step_by(stride) {
                for o in 0..out {
                    let mut sum = bias[o];
                    for (p, q) in (0..kernel_height).flat_map(|p| (0..kernel_width).map(move |q| (p, q))) {
                        let (i, j) = (top + p, left + q);
                        if i < padding || j < padding || i >= height + padding || j >= width + padding {
                            continue;
                        }
                        for c in 0..channels {
                            let at = ((n * height + i - padding) * width + j - padding) * channels + c;
                            sum += x[at] * weight[((p * kernel_width + q) * channels + c) * out + o];
                        }
                    }
                    y.push(if activation == Activation::Relu { sum.max(0.0) } else { sum });
                }
            }
        }
    }
    y
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn it_is_the_sum_that_the_definition_says(
        (batch, height, width, channels) in (1usize..10, 1usize..9, 1usize..9, 1usize..6),
        (kernel, out, stride, padding) in (1usize..5, 1usize..6, 1usize..4, 0usize..3),
        (relu, one_thread, seed) in (any::<bool>(), any::<bool>(), any::<u64>()),
    ) {
        let params = ConvParams {
            stride,
            padding,
            activation: if relu { Activation::Relu } else { Activation::None },
            threads: if one_thread { Threads::One } else { Threads::All },
        };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let x = random(&[batch, height, width, channels], &mut rng);
        let weight = random(&[kernel, kernel, channels, out], &mut rng);
        let bias = random(&[out], &mut rng);
        let y = conv2d(&x, &weight, Some(&bias), &params);
        if height + 2 * padding < kernel || width + 2 * padding < kernel {
            prop_assert!(y.is_err());
            return Ok(());
        }
        let y = y.unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let expected = reference(&x, &weight, &bias, &params);
        prop_assert_eq!(y.len(), expected.len());
        // Terms are below 1, so any order of additions stays within count² · epsilon of any other.
        let terms = (kernel * kernel * channels + 1) as f64;
        let bound = terms * terms * f64::EPSILON;
        for (found, expected) in y.iter().zip(&expected) {
            prop_assert!((found - expected).abs() <= bound, "{} instead of {}", found, expected);
        }
    }
}

#[track_caller]
fn check_gradients(x: &[usize], weight: &[usize], params: ConvParams) {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let out = weight[3];
    let inputs: Vec<Var> =
        [x, weight, &[out]].iter().map(|shape| Var::from_tensor(&random(shape, &mut rng)).unwrap()).collect();
    let loss = |inputs: &[Var]| {
        let y = conv2d(&inputs[0], &inputs[1], Some(&inputs[2]), &params).unwrap();
        // Squares make the gradient depend on the output.
        y.sqr().unwrap().sum_all().unwrap()
    };
    let grads = loss(&inputs).backward().unwrap();
    for (which, input) in inputs.iter().enumerate() {
        let grad = grads.get(input).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let values = input.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for at in (0..values.len()).step_by(1 + values.len() / 40) {
            let step = 1e-6;
            let moved = |by: f64| {
                let mut values = values.clone();
                values[at] += by;
                let mut inputs = inputs.clone();
                inputs[which] = Var::from_vec(values, input.shape(), &Device::Cpu).unwrap();
                loss(&inputs).to_scalar::<f64>().unwrap()
            };
            let expected = (moved(step) - moved(-step)) / (2.0 * step);
            let error = (grad[at] - expected).abs() / expected.abs().max(1.0);
            assert!(error < 1e-6, "input {which}, value {at}: {} instead of {expected}", grad[at]);
        }
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    check_gradients(&[2, 6, 5, 3], &[3, 3, 3, 4], ConvParams { padding: 1, ..ConvParams::default() });
    check_gradients(&[9, 7, 8, 2], &[3, 3, 2, 5], ConvParams { stride: 2, padding: 1, ..ConvParams::default() });
    check_gradients(&[2, 4, 4, 3], &[1, 1, 3, 4], ConvParams::default());
    check_gradients(&[2, 5, 5, 2], &[1, 1, 2, 3], ConvParams { stride: 2, ..ConvParams::default() });
    let relu = ConvParams { activation: Activation::Relu, ..ConvParams::default() };
    check_gradients(&[2, 5, 6, 2], &[2, 3, 2, 4], relu);
}

#[test]
fn channels_that_disagree_are_an_error() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let x = random(&[1, 4, 4, 3], &mut rng);
    let weight = random(&[3, 3, 2, 4], &mut rng);
    let message = conv2d(&x, &weight, None, &ConvParams::default()).unwrap_err().to_string();
    assert!(message.contains("3 channels with weights for 2"), "{message}");
}
