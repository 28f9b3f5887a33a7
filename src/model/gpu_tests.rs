//! What an NVIDIA GPU computes, held to the CPU in `f64`, within what its arithmetic can lose; skipped, and said so, where there is none.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

use candle_core::{DType, Device, Tensor, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Compute;
use super::conv::{Activation, ConvParams, conv2d};
use super::norm::{BatchNorm, Moments};

const TYPES: [DType; 2] = [DType::F32, DType::BF16];

fn gpu() -> Option<Device> {
    Compute::Cuda.device().inspect_err(|error| eprintln!("skipped: no GPU ({error})")).ok()
}

/// Values that `dtype` holds exactly, as `f64` on the CPU.
fn random(shape: &[usize], dtype: DType, seed: u64) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
    let exact = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
    exact.to_dtype(dtype).unwrap().to_dtype(DType::F64).unwrap()
}

fn var(tensor: &Tensor, dtype: DType, device: &Device) -> Var {
    Var::from_tensor(&tensor.to_dtype(dtype).unwrap().to_device(device).unwrap()).unwrap()
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    let tensor = tensor.to_device(&Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Output, and gradients of input and weight where `grad` is that of the output.
fn convolve(tensors: [&Tensor; 3], params: &ConvParams, dtype: DType, device: &Device) -> [Vec<f64>; 3] {
    let [x, weight, grad] = tensors.map(|tensor| var(tensor, dtype, device));
    let y = conv2d(&x, &weight, None, params).unwrap();
    let grads = (&y * grad.as_tensor().detach()).unwrap().sum_all().unwrap().backward().unwrap();
    [flat(&y), flat(grads.get(&x).unwrap()), flat(grads.get(&weight).unwrap())]
}

#[test]
fn a_gpu_convolves_and_differentiates_as_the_cpu() {
    let Some(device) = gpu() else { return };
    let params = |stride, padding, groups| ConvParams { stride, padding, groups, activation: Activation::None };
    for (x, weight, params) in [
        ([4, 28, 28, 3], [3, 3, 3, 32], params(2, 1, 1)),
        ([3, 14, 14, 64], [3, 3, 64, 64], params(1, 1, 1)),
        ([3, 14, 14, 32], [1, 1, 32, 64], params(2, 0, 1)),
        ([2, 7, 7, 64], [7, 7, 64, 128], params(1, 0, 1)),
        ([2, 9, 11, 5], [3, 2, 5, 7], params(1, 2, 1)),
        ([2, 12, 12, 16], [3, 3, 8, 24], params(1, 1, 2)),
        ([2, 12, 12, 32], [3, 3, 1, 32], params(2, 1, 32)),
    ] {
        for dtype in TYPES {
            let (input, kernel) = (random(&x, dtype, 1), random(&weight, dtype, 2));
            let shape = conv2d(&input, &kernel, None, &params).unwrap();
            let grad = random(shape.dims(), dtype, 3);
            let exact = [&input, &kernel, &grad];
            let expected = convolve(exact, &params, DType::F64, &Device::Cpu);
            let sizes = exact.map(|tensor| tensor.abs().unwrap());
            let products = convolve(sizes.each_ref(), &params, DType::F64, &Device::Cpu);
            let found = convolve(exact, &params, dtype, &device);
            // TF32 keeps 10 bits of each of two factors; a partial sum may pass through the 8 bits of `bf16`. Sums are `f32`.
            let share = if dtype == DType::F32 { 2f64.powi(-9) } else { 2f64.powi(-8) } + 1e-4;
            for (which, ((found, expected), products)) in found.iter().zip(&expected).zip(&products).enumerate() {
                assert_eq!(found.len(), expected.len());
                for ((found, expected), products) in found.iter().zip(expected).zip(products) {
                    assert!(
                        (found - expected).abs() <= share * products + 1e-30,
                        "{x:?} by {weight:?}, {params:?}, {dtype:?}, {}: {found} instead of {expected}",
                        ["output", "dX", "dW"][which]
                    );
                }
            }
        }
    }
}

#[test]
fn bias_and_activation_follow_on_a_gpu_too() {
    let Some(device) = gpu() else { return };
    let params = ConvParams { padding: 1, activation: Activation::Relu, ..ConvParams::default() };
    let shapes = [&[2, 8, 8, 16][..], &[3, 3, 16, 24], &[24]];
    let [x, weight, bias] = [0, 1, 2].map(|at| random(shapes[at], DType::F32, at as u64));
    let run = |dtype, device: &Device| {
        let [x, weight, bias] = [&x, &weight, &bias].map(|tensor| var(tensor, dtype, device));
        let y = conv2d(&x, &weight, Some(&bias), &params).unwrap();
        let grads = y.sum_all().unwrap().backward().unwrap();
        (flat(&y), flat(grads.get(&bias).unwrap()))
    };
    let (expected, found) = (run(DType::F64, &Device::Cpu), run(DType::F32, &device));
    // 144 products below 1 each, and 128 outputs, of which one may fall on the other side of zero.
    assert!(expected.0.iter().zip(&found.0).all(|(a, b)| (a - b).abs() <= 144.0 * 2f64.powi(-9)));
    assert!(expected.1.iter().zip(&found.1).all(|(a, b)| (a - b).abs() <= 1.0 + 1e-3));
}

/// Rows of the tensors that are normalised.
const ROWS: usize = 7 * 13 * 11;

/// Output, and gradients of input, affine and residual.
fn normalize(tensors: [&Tensor; 4], activation: Activation, dtype: DType, device: &Device) -> [Vec<f64>; 4] {
    let wide = if dtype == DType::F64 { dtype } else { DType::F32 };
    let [x, affine, residual, grad] =
        [(0, dtype), (1, wide), (2, dtype), (3, dtype)].map(|(at, dtype)| var(tensors[at], dtype, device));
    let moments = Moments::of(&x).unwrap();
    let y = BatchNorm { moments, activation }.apply(&x, &affine, Some(&residual)).unwrap();
    let grads = (&y * grad.as_tensor().detach()).unwrap().sum_all().unwrap().backward().unwrap();
    let [x, affine, residual] = [&x, &affine, &residual].map(|var| flat(grads.get(var).unwrap()));
    [flat(&y), x, affine, residual]
}

#[test]
fn a_gpu_normalises_and_differentiates_as_the_cpu_and_twice_the_same() {
    let Some(device) = gpu() else { return };
    let shape = [7, 13, 11, 48];
    for (activation, dtype) in [Activation::None, Activation::Relu].iter().flat_map(|a| TYPES.map(|t| (*a, t))) {
        let (x, affine, grad) = (random(&shape, dtype, 1), random(&[2, 48], DType::F32, 2), random(&shape, dtype, 3));
        // So far from zero that rounding does not decide what is cut off: the rest is below 2 √3.
        let signs = random(&shape, dtype, 4).sign().unwrap();
        let tensors = [&x, &affine, &(signs * 4.0).unwrap(), &grad];
        let expected = normalize(tensors, activation, DType::F64, &Device::Cpu);
        let found = normalize(tensors, activation, dtype, &device);
        // Sums of so many rows in `f32`; results of 8 bits, the residual added to one of them.
        let share = if dtype == DType::F32 { 4.0 * ROWS as f64 * 2f64.powi(-24) } else { 2f64.powi(-7) };
        for (which, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let largest = expected.iter().fold(0f64, |most, value| most.max(value.abs()));
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                assert!(
                    (found - expected).abs() <= share * largest,
                    "{activation:?}, {dtype:?}, {}: {found} instead of {expected}",
                    ["output", "dX", "affine", "residual"][which]
                );
            }
        }
        assert_eq!(found, normalize(tensors, activation, dtype, &device), "another run gives other numbers");
    }
}

#[test]
fn a_mean_far_from_zero_does_not_swallow_the_variance_on_a_gpu() {
    let Some(device) = gpu() else { return };
    let x = random(&[ROWS, 16], DType::F32, 5).affine(0.1, 100.0).unwrap();
    let exact = Moments::of(&x).unwrap();
    let found = Moments::of(&var(&x, DType::F32, &device)).unwrap();
    let [expected, found] = [exact, found].map(|moments| flat(&moments.variance().unwrap()));
    // Inputs near 100 are rounded by 4e-6, which is 1e-4 of a deviation of 0.06.
    assert!(expected.iter().zip(&found).all(|(a, b)| (a - b).abs() <= 1e-3 * a), "{found:?} instead of {expected:?}");
}
