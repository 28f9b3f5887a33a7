//! The convolution against plain loops, and its gradients against finite differences in `f64`.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

use std::sync::Once;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Shape, Tensor, Var};
use half::bf16;
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::tiled::Tiled;
use super::{Activation, Conv, ConvParams, all_narrowed, all_widened, conv2d, cpu, reference};
use crate::model::kernel::Level;
use crate::model::kernel::amx::Amx;

fn random(shape: &[usize], rng: &mut ChaCha8Rng) -> Tensor {
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn every_level_convolves_and_differentiates_as_the_definition_says(
        (batch, height, width) in (1usize..7, 1usize..12, 1usize..17),
        (kernel, stride, padding) in ((1usize..8, 1usize..8), 1usize..4, 0usize..4),
        (groups, group_in, group_out, depthwise) in (1usize..4, 1usize..7, 1usize..36, any::<bool>()),
        (relu, seed) in (any::<bool>(), any::<u64>()),
    ) {
        let (channels, out, groups) = match depthwise {
            true => (group_out, group_out, group_out),
            false => (groups * group_in, groups * group_out, groups),
        };
        let conv = Conv { params: ConvParams { stride, padding, groups, activation: Activation::None } };
        let (x_shape, w_shape) = ([batch, height, width, channels], [kernel.0, kernel.1, channels / groups, out]);
        let sizes = conv.sizes(&Shape::from(&x_shape[..]), &Shape::from(&w_shape[..]));
        if height + 2 * padding < kernel.0 || width + 2 * padding < kernel.1 {
            prop_assert!(sizes.is_err());
            return Ok(());
        }
        let s = sizes.unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut draw = |count: usize| (0..count).map(|_| rng.random_range(-1.0..1.0f32)).collect::<Vec<f32>>();
        let (x, weight, bias, grad) = (draw(batch * s.photo()), draw(s.weights()), draw(out), draw(batch * s.photo_out()));
        let wide = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
        let (x64, weight64, grad64) = (wide(&x), wide(&weight), wide(&grad));
        // Terms are below 1 and each of them and of the additions rounds once.
        let close = |found: &[f32], expected: &[f64], terms: usize| {
            let bound = (terms + 3) as f64 * (terms + 1) as f64 * f64::from(f32::EPSILON);
            found.len() == expected.len() && found.iter().zip(expected).all(|(f, e)| (f64::from(*f) - e).abs() <= bound)
        };
        let area = kernel.0 * kernel.1;
        let mut y = reference::forward(&s, &x64, &weight64, &wide(&bias));
        if relu {
            y.iter_mut().for_each(|y| *y = y.max(0.0));
        }
        let (dx, dw) = (reference::input_gradient(&s, &grad64, &weight64), reference::weight_gradient(&s, &x64, &grad64));
        for level in Level::available() {
            let name = level.name();
            prop_assert!(close(&cpu::forward(level, &s, &x, &weight, &bias, relu), &y, area * channels / groups), "forward, {}", name);
            prop_assert!(close(&cpu::input_gradient(level, &s, &grad, &weight), &dx, area * out / groups), "dX, {}", name);
            prop_assert!(close(&cpu::weight_gradient(level, &s, &x, &grad), &dw, batch * s.pixels_out()), "dW, {}", name);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn tiles_of_four_outputs_stay_within_what_their_sums_may_round(
        (batch, height, width, padding) in (1usize..4, 1usize..17, 1usize..17, 0usize..4),
        (channels, out, relu, seed) in (2usize..5, 2usize..5, any::<bool>(), any::<u64>()),
    ) {
        let (channels, out) = (16 * channels, 16 * out);
        let conv = Conv { params: ConvParams { stride: 1, padding, groups: 1, activation: Activation::None } };
        let (x_shape, w_shape) = ([batch, height, width, channels], [3, 3, channels, out]);
        let Ok(s) = conv.sizes(&Shape::from(&x_shape[..]), &Shape::from(&w_shape[..])) else { return Ok(()) };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut draw = |count: usize| (0..count).map(|_| rng.random_range(-1.0..1.0f32)).collect::<Vec<f32>>();
        let (x, weight, bias, grad) = (draw(batch * s.photo()), draw(s.weights()), draw(out), draw(batch * s.photo_out()));
        let wide = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
        // What is multiplied is at most 4 (four inputs below 1) and 2.25 (nine weights, of which halves and quarters are added), and nine of
        // the 16 sums of so many products make an output. Each product and addition rounds once, and so do eight on the way in and out.
        let close = |found: &[f32], expected: &[f64], terms: usize| {
            let bound = (9 * terms) as f64 * 9.0 * (terms + 8) as f64 * f64::from(f32::EPSILON);
            found.len() == expected.len() && found.iter().zip(expected).all(|(f, e)| (f64::from(*f) - e).abs() <= bound)
        };
        let mut y = reference::forward(&s, &wide(&x), &wide(&weight), &wide(&bias));
        if relu {
            y.iter_mut().for_each(|y| *y = y.max(0.0));
        }
        let dx = reference::input_gradient(&s, &wide(&grad), &wide(&weight));
        let dw = reference::weight_gradient(&s, &wide(&x), &wide(&grad));
        for level in Level::available() {
            let name = level.name();
            prop_assert!(close(&cpu::forward(level, &s, &x, &weight, &bias, relu), &y, channels), "forward, {}", name);
            prop_assert!(close(&cpu::input_gradient(level, &s, &grad, &weight), &dx, out), "dX, {}", name);
            // Each tile adds at most four inputs times four gradients; the sums are weighted by four in all, and there are no more tiles than pixels.
            prop_assert!(close(&cpu::weight_gradient(level, &s, &x, &grad), &dw, 2 * batch * s.pixels_out()), "dW, {}", name);
        }
    }
}

static SKIPPED: Once = Once::new();

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn tiles_of_sixteen_bits_sum_as_the_definition_says(
        (batch, height, width) in (1usize..9, 1usize..24, 1usize..24),
        (kernel, stride, padding) in ((1usize..5, 1usize..5), 1usize..4, 0usize..4),
        (channels, out, few, relu, seed) in (2usize..5, 2usize..5, any::<bool>(), any::<bool>(), any::<u64>()),
    ) {
        if Amx::get().is_none() {
            SKIPPED.call_once(|| eprintln!("skipped: this CPU has no tiles of bf16"));
            return Ok(());
        }
        let (channels, out) = (if few { channels } else { 16 * channels }, 16 * out);
        let conv = Conv { params: ConvParams { stride, padding, groups: 1, activation: Activation::None } };
        let (x_shape, w_shape) = ([batch, height, width, channels], [kernel.0, kernel.1, channels, out]);
        let Ok(s) = conv.sizes(&Shape::from(&x_shape[..]), &Shape::from(&w_shape[..])) else { return Ok(()) };
        let Some(tiled) = Tiled::new(&s) else { return Ok(()) };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut draw = |count: usize| all_narrowed(&(0..count).map(|_| rng.random_range(-1.0..1.0f32)).collect::<Vec<f32>>());
        let (x, weight, bias, grad) = (draw(batch * s.photo()), draw(s.weights()), draw(out), draw(batch * s.photo_out()));
        let wide = |values: &[bf16]| values.iter().map(|v| v.to_f64()).collect::<Vec<f64>>();
        // Products are exact in 24 bits, and each addition rounds once.
        let bound = |terms: usize| (terms + 3) as f64 * (terms + 1) as f64 * f64::from(f32::EPSILON);
        let close = |found: &[bf16], expected: &[f64], terms: usize| {
            let near = |(f, e): (&bf16, &f64)| (f.to_f64() - e).abs() <= bound(terms) + e.abs() / 256.0;
            found.len() == expected.len() && found.iter().zip(expected).all(near)
        };
        let area = kernel.0 * kernel.1;
        let mut y = reference::forward(&s, &wide(&x), &wide(&weight), &wide(&bias));
        if relu {
            y.iter_mut().for_each(|y| *y = y.max(0.0));
        }
        prop_assert!(close(&tiled.forward(&x, &weight, &all_widened(&bias), relu), &y, area * channels), "forward");
        if let Some(dx) = tiled.input_gradient(&grad, &weight) {
            let expected = reference::input_gradient(&s, &wide(&grad), &wide(&weight));
            prop_assert!(close(&dx, &expected, area * out), "dX");
        }
        let (dw, expected) = (tiled.weight_gradient(&x, &grad), reference::weight_gradient(&s, &wide(&x), &wide(&grad)));
        let terms = batch * s.pixels_out();
        let near = |(f, e): (&f32, &f64)| (f64::from(*f) - e).abs() <= bound(terms);
        prop_assert!(dw.len() == expected.len() && dw.iter().zip(&expected).all(near), "dW");
    }
}

#[test]
fn weight_gradients_do_not_depend_on_the_number_of_threads() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let x = random(&[11, 9, 9, 5], &mut rng).to_dtype(DType::F32).unwrap();
    let weight = Var::from_tensor(&random(&[3, 3, 5, 40], &mut rng).to_dtype(DType::F32).unwrap()).unwrap();
    let gradient = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let params = ConvParams { padding: 1, ..ConvParams::default() };
        let grads = pool.install(|| conv2d(&x, &weight, None, &params).unwrap().sqr().unwrap().backward()).unwrap();
        grads.get(&weight).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    assert_eq!(gradient(1), gradient(3));
}

#[test]
fn sixteen_bits_are_convolved_with_sums_of_thirty_two() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let (x, weight) = (random(&[2, 5, 5, 40], &mut rng), random(&[3, 3, 40, 8], &mut rng));
    let to = |t: &Tensor, dtype| t.to_dtype(DType::BF16).unwrap().to_dtype(dtype).unwrap();
    let convolve = |dtype| conv2d(&to(&x, dtype), &to(&weight, dtype), None, &ConvParams::default()).unwrap();
    let flat = |t: Tensor| t.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
    for (narrow, wide) in flat(convolve(DType::BF16)).into_iter().zip(flat(convolve(DType::F64))) {
        // Eight bits of the result, and the sums of 360 terms.
        assert!((narrow - wide).abs() <= wide.abs() / 256.0 + 1e-4, "{narrow} instead of {wide}");
    }
}

#[test]
fn gradients_agree_with_candles_own() {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    for (stride, padding, groups) in [(1, 1, 1), (2, 1, 1), (2, 0, 1), (1, 1, 2)] {
        let var = |shape: &[usize], rng: &mut ChaCha8Rng| {
            Var::from_tensor(&random(shape, rng).to_dtype(DType::F32).unwrap()).unwrap()
        };
        let (x, weight) = (var(&[3, 9, 9, 4], &mut rng), var(&[3, 3, 4 / groups, 6], &mut rng));
        let params = ConvParams { stride, padding, groups, ..ConvParams::default() };
        let ours = conv2d(&x, &weight, None, &params).unwrap();
        let nchw = x.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap();
        let oihw = weight.permute((3, 2, 0, 1)).unwrap().contiguous().unwrap();
        let theirs = nchw.conv2d(&oihw, padding, stride, 1, groups).unwrap();
        let (ours, theirs) = (ours.sqr().unwrap().backward().unwrap(), theirs.sqr().unwrap().backward().unwrap());
        for var in [&x, &weight] {
            let flat = |grads: &GradStore| grads.get(var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for (ours, theirs) in flat(&ours).into_iter().zip(flat(&theirs)) {
                assert!((ours - theirs).abs() <= 1e-3 * theirs.abs().max(1.0), "{ours} instead of {theirs}");
            }
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
    check_gradients(&[2, 5, 5, 4], &[3, 3, 2, 6], ConvParams { groups: 2, padding: 1, ..ConvParams::default() });
    check_gradients(&[2, 5, 5, 3], &[3, 3, 1, 3], ConvParams { groups: 3, stride: 2, ..ConvParams::default() });
    let relu = ConvParams { activation: Activation::Relu, ..ConvParams::default() };
    check_gradients(&[2, 5, 6, 2], &[2, 3, 2, 4], relu);
}

#[test]
fn channels_that_disagree_are_an_error() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let x = random(&[1, 4, 4, 3], &mut rng);
    let weight = random(&[3, 3, 2, 4], &mut rng);
    let message = conv2d(&x, &weight, None, &ConvParams::default()).unwrap_err().to_string();
    assert!(message.contains("3 channels in 1 groups with weights for 2"), "{message}");
}
