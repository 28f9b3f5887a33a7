//! Plans against plain loops over the same graph.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::model::graph::{ConvLayer, Graph, Op};
use crate::model::kernel::Rectifier;

/// A picture, `(height, width, channels)`, in plain order.
type Picture = (Vec<f64>, [usize; 3]);

/// The definition of a graph.
fn reference(graph: &Graph, input: Picture) -> Picture {
    let mut values = vec![input];
    for layer in &graph.layers {
        let (x, [height, width, channels]) = &values[layer.input];
        let at = |y: usize, x: usize, c: usize| (y * width + x) * channels + c;
        let value = match &layer.op {
            Op::Flatten => (x.clone(), [1, 1, x.len()]),
            Op::MaxPool { window, stride } => {
                let side = |side: &usize| (side - window).div_ceil(*stride) + 1;
                let mut out = Vec::new();
                for (i, j, c) in places(side(height), side(width), *channels) {
                    let window = (i * stride..(i * stride + window).min(*height))
                        .flat_map(|y| (j * stride..(j * stride + window).min(*width)).map(move |x| (y, x)));
                    out.push(window.map(|(p, q)| x[at(p, q, c)]).fold(f64::NEG_INFINITY, f64::max));
                }
                (out, [side(height), side(width), *channels])
            }
            Op::Conv(conv) => {
                let side = |side: &usize, k: usize| (side + 2 * conv.shape.padding - k) / conv.shape.stride + 1;
                let (out_height, out_width) = (side(height, conv.shape.kernel[0]), side(width, conv.shape.kernel[1]));
                let (group_in, group_out) =
                    (conv.shape.channels / conv.shape.groups, conv.shape.out / conv.shape.groups);
                let mut out = Vec::new();
                for (i, j, o) in places(out_height, out_width, conv.shape.out) {
                    let mut sum = f64::from(conv.bias[o]);
                    for (p, q, c) in places(conv.shape.kernel[0], conv.shape.kernel[1], group_in) {
                        let (y, z) = (i * conv.shape.stride + p, j * conv.shape.stride + q);
                        if y >= conv.shape.padding
                            && z >= conv.shape.padding
                            && y < height + conv.shape.padding
                            && z < width + conv.shape.padding
                        {
                            let weight =
                                conv.weight[((p * conv.shape.kernel[1] + q) * group_in + c) * conv.shape.out + o];
                            sum += x[at(y - conv.shape.padding, z - conv.shape.padding, o / group_out * group_in + c)]
                                * f64::from(weight);
                        }
                    }
                    sum += conv.residual.map_or(0.0, |r| values[r].0[out.len()]);
                    out.push(match &conv.rectifier {
                        Rectifier::None => sum,
                        Rectifier::Relu => sum.max(0.0),
                        Rectifier::Prelu(slope) => sum.max(0.0) + f64::from(slope[o]) * sum.min(0.0),
                    });
                }
                (out, [out_height, out_width, conv.shape.out])
            }
        };
        values.push(value);
    }
    values.pop().unwrap()
}

fn places(height: usize, width: usize, channels: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..height).flat_map(move |y| (0..width).flat_map(move |x| (0..channels).map(move |c| (y, x, c))))
}

fn conv(
    kernel: [usize; 2],
    channels: usize,
    out: usize,
    groups: usize,
    stride: usize,
    padding: usize,
    rng: &mut ChaCha8Rng,
) -> ConvLayer {
    let inputs = kernel[0] * kernel[1] * channels / groups;
    // So small that sums stay near one, layer after layer.
    let scale = 1.0 / (inputs as f32).sqrt();
    let mut draw =
        |count: usize, scale: f32| (0..count).map(|_| scale * rng.random_range(-1.0..1.0f32)).collect::<Vec<_>>();
    let (weight, bias, slope) = (draw(inputs * out, scale), draw(out, 1.0), draw(out, 1.0));
    let rectifier = match out % 3 {
        0 => Rectifier::None,
        1 => Rectifier::Relu,
        _ => Rectifier::Prelu(slope),
    };
    let shape = Shape { kernel, channels, out, groups, stride, padding };
    ConvLayer { shape, weight, bias, residual: None, rectifier }
}

#[track_caller]
fn check(graph: &Graph, shape: [usize; 4], seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let [count, height, width, channels] = shape;
    let x: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
    let pictures = x.chunks(height * width * channels).map(|x| x.iter().map(|v| f64::from(*v)).collect());
    let expected: Vec<_> = pictures.map(|x: Vec<f64>| reference(graph, (x, [height, width, channels]))).collect();
    for level in Level::available() {
        let plan = Plan::at_level(graph, [height, width], level);
        for threads in [Threads::One, Threads::All, Threads::One] {
            let (found, found_shape) = plan.run(&x, shape, threads).unwrap();
            assert_eq!(found_shape[0], count);
            assert_eq!(found_shape[1..], expected[0].1);
            for (found, (expected, _)) in found.chunks(expected[0].0.len()).zip(&expected) {
                for (found, expected) in found.iter().zip(expected) {
                    // Sums of some hundred terms below one, through at most five layers.
                    let error = (f64::from(*found) - expected).abs();
                    assert!(error < 1e-4, "{}: {found} instead of {expected}", level.name());
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_convolution_is_the_sum_of_its_definition(
        (count, height, width) in (1usize..5, 1usize..20, 1usize..20),
        (kernel, stride, padding) in ([1usize..8, 1usize..8], 1usize..4, 0usize..4),
        (groups, group_in, group_out, depthwise) in (1usize..4, 1usize..9, 1usize..40, any::<bool>()),
        seed in any::<u64>(),
    ) {
        let (channels, out, groups) = match depthwise {
            true => (group_out, group_out, group_out),
            false => (groups * group_in, groups * group_out, groups),
        };
        let mut graph = Graph::default();
        let layer = conv(kernel, channels, out, groups, stride, padding, &mut ChaCha8Rng::seed_from_u64(seed));
        graph.push(0, Op::Conv(layer));
        let fits = height + 2 * padding >= kernel[0] && width + 2 * padding >= kernel[1];
        if fits {
            check(&graph, [count, height, width, channels], seed);
        } else {
            let x = vec![0.0; count * height * width * channels];
            prop_assert!(Plan::new(&graph, [height, width]).run(&x, [count, height, width, channels], Threads::All).is_err());
        }
    }
}

#[test]
fn shortcuts_pools_and_flattening_follow_the_definition() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut graph = Graph::default();
    let stem = graph.push(0, Op::Conv(conv([3, 3], 3, 10, 1, 1, 0, &mut rng)));
    let pooled = graph.push(stem, Op::MaxPool { window: 3, stride: 2 });
    let first = graph.push(pooled, Op::Conv(conv([3, 3], 10, 37, 1, 2, 1, &mut rng)));
    let shortcut = graph.push(pooled, Op::Conv(conv([1, 1], 10, 64, 1, 2, 0, &mut rng)));
    let second = ConvLayer { residual: Some(shortcut), ..conv([3, 3], 37, 64, 1, 1, 1, &mut rng) };
    let block = graph.push(first, Op::Conv(second));
    let again = ConvLayer { residual: Some(block), ..conv([3, 3], 64, 64, 1, 1, 1, &mut rng) };
    let block = graph.push(block, Op::Conv(again));
    let flat = graph.push(block, Op::Flatten);
    // 30 x 26 -> 28 x 24 -> 14 x 12 -> 7 x 6.
    graph.push(flat, Op::Conv(conv([1, 1], 7 * 6 * 64, 17, 1, 1, 0, &mut rng)));
    for count in [1, 2, 11] {
        check(&graph, [count, 30, 26, 3], count as u64);
    }
}

#[test]
fn pictures_of_another_shape_are_an_error() {
    let mut graph = Graph::default();
    graph.push(0, Op::Conv(conv([3, 3], 3, 4, 1, 1, 0, &mut ChaCha8Rng::seed_from_u64(1))));
    let plan = Plan::new(&graph, [4, 4]);
    for (values, shape) in [(3 * 16, [1, 4, 4, 4]), (3 * 15, [1, 4, 4, 3]), (3 * 4, [1, 2, 2, 3])] {
        assert!(plan.run(&vec![0.0; values], shape, Threads::One).is_err(), "{shape:?}");
    }
    assert!(plan.run(&[], [0, 4, 4, 3], Threads::All).unwrap().0.is_empty());
}
