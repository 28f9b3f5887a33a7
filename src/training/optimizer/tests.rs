//! Each rule is PyTorch's, and the pass over memory is the tensor operations.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

use candle_core::Device;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::average::{Average, decay_at};
use super::schedule::{Schedule, Span};
use super::*;

/// What scripts/optimizer_reference.py printed with torch 2.15: matrix and offsets after its four steps.
const PYTORCH: [(Optimizer, [f64; 6]); 5] = [
    (
        Optimizer::Sgd { momentum: 0.0, nesterov: false },
        [0.4810044, -0.9990828, 1.8947039, -0.0734706, 0.2818725, -0.8484537],
    ),
    (
        Optimizer::Sgd { momentum: 0.9, nesterov: false },
        [0.5495703, -1.1371147, 1.7498316, -0.2686564, 0.3336833, -0.9243935],
    ),
    (
        Optimizer::Sgd { momentum: 0.9, nesterov: true },
        [0.5256197, -1.1224560, 1.6734450, -0.3113474, 0.3571875, -1.0054078],
    ),
    (
        Optimizer::AdamW { beta_1: 0.9, beta_2: 0.99 },
        [0.4968685, -0.9954959, 1.6919332, -0.3105436, 0.3891592, -0.9536600],
    ),
    (Optimizer::AdaGrad, [0.4065246, -0.9278455, 1.8106365, -0.1449717, 0.3195682, -0.9030776]),
];

const GRADIENTS: [[f32; 6]; 4] = [
    [0.1, -0.2, 0.3, 0.4, -0.5, 0.6],
    [-1.0, 2.0, 0.0, 1.0, 0.5, -0.5],
    [0.05, 0.0, -0.01, 0.02, 0.0, 0.3],
    [3.0, -1.0, 2.0, 0.5, 1.0, -2.0],
];

fn var(values: &[f32], shape: &[usize]) -> Var {
    Var::from_slice(values, shape, &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Gradients that are what they are told to be: those of the sum of products.
fn gradients(of: &[(&Var, &[f32])]) -> GradStore {
    let product = |(var, values): &(&Var, &[f32])| {
        let factors = Tensor::from_slice(values, var.shape(), &Device::Cpu).unwrap();
        (var.as_tensor() * factors).unwrap().sum_all().unwrap()
    };
    let products: Vec<Tensor> = of.iter().map(product).collect();
    Tensor::stack(&products, 0).unwrap().sum_all().unwrap().backward().unwrap()
}

#[test]
fn every_rule_takes_the_steps_that_pytorch_takes() {
    for (rule, expected) in PYTORCH {
        let (matrix, offsets) = (var(&[0.5, -1.0, 2.0, 0.0], &[2, 2]), var(&[0.25, -0.75], &[2]));
        let variables = [("matrix", &matrix), ("offsets", &offsets)].map(|(name, var)| (name.to_owned(), var.clone()));
        let mut state = State::new(rule, 0.1, variables.into()).unwrap();
        for (step, (gradient, learning_rate)) in (1..).zip(GRADIENTS.iter().zip([0.1, 0.05, 0.2, 0.01])) {
            let grads = gradients(&[(&matrix, &gradient[..4]), (&offsets, &gradient[4..])]);
            let scale = (1.5 / state.gradient_norm(&grads).unwrap()).min(1.0);
            state.update(&grads, Update { step, learning_rate, scale }).unwrap();
        }
        let found = [values(&matrix), values(&offsets)].concat();
        let apart = found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
        // A few roundings of numbers below 2, and seven digits of the table.
        assert!(apart < 1e-6, "{rule:?}: {found:?} instead of {expected:?}");
    }
}

#[test]
fn the_pass_over_memory_is_the_tensor_operations() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    // Longer than what one task changes, and no multiple of it.
    let (rows, columns) = (5, 1 << 13);
    let mut random = || (0..rows * columns).map(|_| rng.random_range(-1.0..1.0)).collect::<Vec<f32>>();
    let (start, grads) = (random(), [random(), random(), random()]);
    for (rule, _) in PYTORCH {
        let (fused, tensors) = (var(&start, &[rows, columns]), var(&start, &[rows, columns]));
        let slots = || rule.slots().iter().map(|_| fused.zeros_like().unwrap()).collect::<Vec<_>>();
        let (one, mut other) = (slots(), slots());
        for (step, grad) in (1..).zip(&grads) {
            let grad = Tensor::from_slice(grad, (rows, columns), &Device::Cpu).unwrap();
            let formula = Formula::new(rule, 0.05, Update { step, learning_rate: 0.1, scale: 0.7 });
            formula.fused(&fused, &one, &grad).unwrap();
            formula.by_tensors(&tensors, &mut other, &grad).unwrap();
        }
        let pairs = [(fused.as_tensor(), tensors.as_tensor())].into_iter().chain(one.iter().zip(&other));
        for (a, b) in pairs {
            let apart = values(a).iter().zip(values(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart < 2e-6, "{rule:?}: {apart} apart");
        }
    }
}

#[test]
fn the_norm_is_that_of_all_gradients_together() {
    let lengths = [3 * 20_000 + 7, 5, 1];
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let all = lengths.map(|n| (0..n).map(|_| rng.random_range(-1.0..1.0)).collect::<Vec<f32>>());
    let vars = all.each_ref().map(|values| var(values, &[values.len()]));
    let named = ["a", "b", "c"].iter().zip(&vars).map(|(name, var)| ((*name).to_owned(), var.clone()));
    let state = State::new(Optimizer::AdaGrad, 0.0, named.collect()).unwrap();
    let grads: Vec<_> = vars.iter().zip(&all).map(|(var, values)| (var, values.as_slice())).collect();
    let found = state.gradient_norm(&gradients(&grads)).unwrap();
    let expected = all.iter().flatten().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    assert!((found - expected).abs() < 1e-5 * expected, "{found} instead of {expected}");
}

#[test]
fn the_average_forgets_its_beginning_and_then_follows_slowly() {
    assert_eq!(decay_at(0.999, 1), 2.0 / 11.0);
    assert_eq!(decay_at(0.999, 1_000_000), 0.999);
    let weight = var(&[1.0, -2.0], &[2]);
    let all = BTreeMap::from([("weight".to_owned(), weight.clone())]);
    let mut average = Average::new(0.5, &all).unwrap();
    weight.set(&Tensor::new(&[3.0f32, 2.0], &Device::Cpu).unwrap()).unwrap();
    assert_eq!(values(&average.shadow["weight"]), [1.0, -2.0], "the shadow is a copy");
    // 2/11 of the past and 9/11 of now; then a half of each, since (1 + 100) / (10 + 100) is more.
    average.follow(&all, 1).unwrap();
    let first = [1.0 + 2.0 * 9.0 / 11.0, -2.0 + 4.0 * 9.0 / 11.0];
    average.follow(&all, 100).unwrap();
    let expected = [f32::midpoint(first[0], 3.0), f32::midpoint(first[1], 2.0)];
    let found = values(&average.shadow["weight"]);
    assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} instead of {expected:?}");
}

#[test]
fn a_schedule_rises_to_one_and_falls_as_it_says() {
    let check = |schedule: Schedule, warm_up: u64, expected: &[(u64, f64)]| {
        for (step, expected) in expected {
            let found = schedule.share(*step, Span { steps: 100, warm_up });
            assert!((found - expected).abs() < 1e-12, "{schedule:?}, step {step}: {found} instead of {expected}");
        }
    };
    check(Schedule::Constant, 0, &[(1, 1.0), (100, 1.0)]);
    check(Schedule::Constant, 10, &[(1, 0.1), (9, 0.9), (10, 1.0), (11, 1.0), (100, 1.0)]);
    check(Schedule::Constant, 100, &[(1, 0.01), (100, 1.0)]);
    let step = Schedule::Step { every: 30, factor: 0.1 };
    check(step, 0, &[(1, 1.0), (29, 1.0), (30, 0.1), (59, 0.1), (60, 0.01), (100, 0.001)]);
    check(step, 20, &[(10, 0.5), (20, 1.0), (49, 1.0), (50, 0.1)]);
    check(Schedule::Cosine, 20, &[(1, 0.05), (20, 1.0), (60, 0.5), (100, 1e-3), (101, 1e-3)]);
    check(Schedule::Cosine, 0, &[(50, 0.5), (100, 1e-3)]);
    check(Schedule::Cosine, 100, &[(50, 0.5), (100, 1.0)]);
}
