//! Networks in bytes: near the floats, and the same bits at every level.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::quantise::ByteGraph;
use super::*;
use crate::model::graph::{ConvLayer, Graph, Op};
use crate::model::kernel::Rectifier;

fn conv(kernel: usize, sizes: [usize; 3], relu: bool, rng: &mut ChaCha8Rng) -> ConvLayer {
    let [channels, out, stride] = sizes;
    let inputs = kernel * kernel * channels;
    let spread = 2.0 / (inputs as f32).sqrt();
    let weight = (0..inputs * out).map(|_| spread * rng.random_range(-1.0..1.0f32)).collect();
    let bias = (0..out).map(|_| rng.random_range(-0.5..0.5)).collect();
    let rectifier = if relu { Rectifier::Relu } else { Rectifier::None };
    let padding = if kernel == 3 { 1 } else { 0 };
    let shape = Shape { kernel: [kernel; 2], channels, out, groups: 1, stride, padding };
    ConvLayer { shape, weight, bias, residual: None, rectifier }
}

/// A residual network with odd channels.
fn network(rng: &mut ChaCha8Rng) -> Graph {
    let mut graph = Graph::default();
    let stem = graph.push(0, Op::Conv(conv(3, [3, 13, 2], true, rng)));
    let shortcut = graph.push(stem, Op::Conv(conv(1, [13, 37, 2], false, rng)));
    let first = graph.push(stem, Op::Conv(conv(3, [13, 37, 2], true, rng)));
    let second = ConvLayer { residual: Some(shortcut), ..conv(3, [37, 37, 1], true, rng) };
    let block = graph.push(first, Op::Conv(second));
    let third = ConvLayer { residual: Some(block), ..conv(3, [37, 37, 1], true, rng) };
    let block = graph.push(block, Op::Conv(third));
    graph.push(block, Op::Conv(conv(5, [37, 20, 1], false, rng)));
    graph
}

fn quantised(graph: &Graph, x: &[f32], shape: [usize; 4]) -> Result<ByteGraph> {
    ByteGraph::new(graph, ByteGraph::measure(graph, x, shape)?)
}

#[test]
fn bytes_stay_near_the_floats_and_are_the_same_at_every_level() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let graph = network(&mut rng);
    let shape = [11, 20, 20, 3];
    let x: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
    let (expected, expected_shape) = Plan::new(&graph, [20; 2]).run(&x, shape, Threads::One).unwrap();
    let bytes = quantised(&graph, &x, shape).unwrap();
    let power = expected.iter().map(|v| v * v).sum::<f32>();
    let stem = Level::best();
    let (first, _) = Plan::in_bytes(&bytes, [20; 2]).run(&x, shape, Threads::All).unwrap();
    for level in Level::available() {
        // The floats of the first convolution are the only ones that depend on the level.
        let mut plan = Plan::in_bytes_at_level(&bytes, [20; 2], level);
        plan.steps[0] = Plan::in_bytes_at_level(&bytes, [20; 2], stem).steps.swap_remove(0);
        let (found, found_shape) = plan.run(&x, shape, Threads::One).unwrap();
        assert_eq!(found_shape, expected_shape);
        assert_eq!(found, first, "{}", level.name());
        let error = found.iter().zip(&expected).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
        assert!(error < 1e-3 * power, "{}: squared error {error} of {power}", level.name());
    }
}

#[test]
fn other_networks_and_pictures_are_an_error() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let mut graph = network(&mut rng);
    let x = vec![0.5; 20 * 20 * 3];
    let plan = Plan::in_bytes(&quantised(&graph, &x, [1, 20, 20, 3]).unwrap(), [20; 2]);
    for shape in [[1, 20, 20, 4], [1, 10, 10, 3], [2, 20, 20, 3]] {
        assert!(plan.run(&x, shape, Threads::One).is_err(), "{shape:?}");
    }
    let small = vec![0.5; 8 * 8 * 3];
    assert!(plan.run(&small, [1, 8, 8, 3], Threads::One).is_err());
    graph.push(6, Op::Flatten);
    assert!(quantised(&graph, &x, [1, 20, 20, 3]).is_err());
}
