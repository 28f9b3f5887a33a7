//! A network in bytes made ready to run on the CPU: the same layout of values as in `Plan`, a quarter of the memory.
//!
//! Gives the same bits on every CPU behind the first convolution, which computes with floats.

use rayon::prelude::*;

use super::quantise::{ByteGraph, ByteLayer};
use super::{TOGETHER, Threads};
use crate::model::kernel::{ByteProduct, Convolution, Level, Map, Outputs, PackedBytes, Residual, Run, Shape};
use crate::{Error, Result};

/// Bytes behind the last picture of a value, which quads of its last tap may read.
const SLACK: usize = 3;

/// A network in bytes, ready to run.
#[derive(Debug)]
pub(crate) struct BytePlan {
    level: Level,
    stem: Convolution,
    layers: Vec<Layer>,
    steps: Vec<f32>,
    /// The border of each value; value 0 is the input, in floats.
    borders: Vec<usize>,
}

#[derive(Debug)]
struct Layer {
    input: usize,
    residual: Option<usize>,
    shape: Shape,
    weights: PackedBytes,
    /// What one step of a sum is worth.
    scale: Vec<f32>,
    bias: Vec<f32>,
    relu: bool,
}

/// One value of some pictures.
enum Value {
    Floats(Vec<f32>),
    Bytes(Vec<u8>),
}

impl BytePlan {
    /// Packs the weights of `graph` for this CPU.
    pub(crate) fn new(graph: &ByteGraph) -> Self {
        Self::at_level(graph, Level::best())
    }

    pub(super) fn at_level(graph: &ByteGraph, level: Level) -> Self {
        let conv = &graph.stem;
        let shape = Shape {
            kernel: conv.kernel,
            channels: conv.channels,
            out: conv.out,
            groups: conv.groups,
            stride: conv.stride,
            padding: conv.padding,
        };
        let zeros = vec![0.0; conv.out];
        let stem = Convolution::new(level, shape, &conv.weight, &conv.bias, Some(&zeros));
        let mut borders = vec![0; graph.layers.len() + 2];
        borders[0] = conv.padding;
        let layer = |layer: &ByteLayer| {
            borders[layer.input] = borders[layer.input].max(layer.shape.padding);
            let Shape { kernel: [height, width], channels, out, .. } = layer.shape;
            let row = |row: usize, to: &mut [i8]| to.copy_from_slice(&layer.weights[row * out..][..out]);
            let step = graph.steps[layer.input];
            Layer {
                input: layer.input,
                residual: layer.residual,
                shape: layer.shape,
                weights: PackedBytes::new(level, height, width * channels, out, row),
                scale: layer.scale.iter().map(|scale| scale * step).collect(),
                bias: layer.bias.clone(),
                relu: layer.relu,
            }
        };
        let layers = graph.layers.iter().map(layer).collect();
        Self { level, stem, layers, steps: graph.steps.clone(), borders }
    }

    /// Runs the network: as `Plan::run`, but pictures alone are shared out among threads.
    ///
    /// # Errors
    /// `Argument` when the shape is not that of `x`, or too small for the network.
    pub(crate) fn run(&self, x: &[f32], shape: [usize; 4], threads: Threads) -> Result<(Vec<f32>, [usize; 4])> {
        let [count, height, width, channels] = shape;
        if shape.iter().product::<usize>() != x.len() || channels != self.stem.shape.channels {
            let what = format!("{} values for {shape:?}, expected {} channels", x.len(), self.stem.shape.channels);
            return Err(Error::argument("pictures", what));
        }
        let maps = self.maps(height, width)?;
        let last = maps[maps.len() - 1];
        let (each, out_each) = ((height * width * channels).max(1), last.height * last.width * last.channels);
        let mut out = vec![0.0; count * out_each];
        let workers = if threads == Threads::All { rayon::current_num_threads() } else { 1 };
        let together = count.div_ceil(workers).clamp(1, TOGETHER);
        let part = |(x, out): (&[f32], &mut [f32])| self.run_part(&maps, x, out, x.len() / each);
        match threads {
            Threads::One => x.chunks(together * each).zip(out.chunks_mut(together * out_each)).for_each(part),
            Threads::All => x.par_chunks(together * each).zip(out.par_chunks_mut(together * out_each)).for_each(part),
        }
        Ok((out, [count, last.height, last.width, last.channels]))
    }

    /// The layout of every value for an input of this size.
    fn maps(&self, height: usize, width: usize) -> Result<Vec<Map>> {
        let mut maps = vec![Map { height, width, channels: self.stem.shape.channels, border: self.borders[0] }];
        let layers = self.layers.iter().map(|layer| (layer.input, layer.residual, layer.shape));
        for (index, (input, residual, shape)) in [(0, None, self.stem.shape)].into_iter().chain(layers).enumerate() {
            let wrong = || Error::argument("pictures", format!("{height} x {width} pixels don't fit this network"));
            let from = maps[input];
            let [height, width] = shape.output(from.height, from.width).ok_or_else(wrong)?;
            let map = Map { height, width, channels: shape.out, border: self.borders[index + 1] };
            let like = |r: &usize| (maps[*r].height, maps[*r].width, maps[*r].channels) == (height, width, shape.out);
            if from.channels != shape.channels || !residual.as_ref().is_none_or(like) {
                return Err(wrong());
            }
            maps.push(map);
        }
        Ok(maps)
    }

    /// Some of the pictures, through all layers.
    fn run_part(&self, maps: &[Map], x: &[f32], out: &mut [f32], count: usize) {
        let mut values = vec![Value::Floats(Vec::new()), self.stem(maps, x, count)];
        for (index, layer) in self.layers.iter().enumerate() {
            let map = &maps[index + 2];
            let step = self.steps[index + 2];
            let mut value = match layer.relu {
                true => Value::Bytes(vec![0; count * map.len() + SLACK]),
                false => Value::Floats(vec![0.0; count * map.len()]),
            };
            let outputs = match &mut value {
                Value::Bytes(values) => Outputs::Bytes { values, inverse_scale: 1.0 / step },
                Value::Floats(values) => Outputs::Floats(values),
            };
            layer.write(maps, &values, &self.steps, count, outputs, map);
            values.push(value);
        }
        let map = maps[maps.len() - 1];
        let each = map.height * map.width * map.channels;
        for (picture, out) in out.chunks_exact_mut(each).enumerate() {
            match &values[maps.len() - 1] {
                Value::Floats(values) => super::gather(&values[picture * map.len()..], &map, out),
                Value::Bytes(values) => {
                    // A border is never read of a value that no layer reads.
                    let bytes = &values[picture * map.len()..][..each];
                    out.iter_mut().zip(bytes).for_each(|(y, byte)| *y = f32::from(*byte) * self.steps[maps.len() - 1]);
                }
            }
        }
    }

    /// The first convolution, rounded to bytes.
    fn stem(&self, maps: &[Map], x: &[f32], count: usize) -> Value {
        let each = x.len() / count.max(1);
        let flat = Map { border: 0, ..maps[1] };
        let (mut input, mut floats) = (vec![0.0; maps[0].len()], vec![0.0; flat.len()]);
        let mut bytes = vec![0; count * maps[1].len() + SLACK];
        let inverse = 1.0 / self.steps[1];
        let row = flat.row();
        for (x, bytes) in x.chunks_exact(each).zip(bytes.chunks_exact_mut(maps[1].len())) {
            maps[0].fill(x, &mut input);
            self.stem.write(&input, &maps[0], 1, 0..flat.height, &mut floats, 0, &flat, None);
            for (y, floats) in floats.chunks_exact(row).enumerate() {
                let to = &mut bytes[maps[1].at(y, 0)..][..row];
                self.level.run(
                    #[inline(always)]
                    || {
                        for (to, y) in to.iter_mut().zip(floats) {
                            *to = (y * inverse).round_ties_even().clamp(0.0, 255.0) as u8;
                        }
                    },
                );
            }
        }
        Value::Bytes(bytes)
    }
}

impl Layer {
    /// Computes `count` outputs, laid out as `to`.
    fn write(&self, maps: &[Map], values: &[Value], steps: &[f32], count: usize, out: Outputs<'_>, to: &Map) {
        let Shape { stride, padding, .. } = self.shape;
        let from = &maps[self.input];
        let Value::Bytes(a) = &values[self.input] else { return };
        let (taps, _) = self.shape.taps(from);
        let corner = from.border - padding;
        let single = to.height * to.width == 1;
        let added = self.residual.map(|r| (&values[r], &maps[r], steps[r]));
        let mut runs = Vec::with_capacity(count * to.height);
        for picture in 0..if single { 1 } else { count } {
            for y in 0..to.height {
                runs.push(Run {
                    a: picture * from.len() + (y * stride + corner) * from.row() + corner * from.channels,
                    out: picture * to.len() + to.at(y, 0),
                    residual: added.map_or(0, |(_, map, _)| picture * map.len() + map.at(y, 0)),
                    count: if single { count } else { to.width },
                });
            }
        }
        // Pictures of one pixel are pixels of one picture: weights are read once.
        let pixel = |map: &Map| if single { map.len() } else { map.channels };
        let residual = added.map(|(value, map, step)| match value {
            Value::Floats(values) => Residual::Floats { values, pixel: pixel(map) },
            Value::Bytes(values) => Residual::Bytes { values, pixel: pixel(map), scale: step },
        });
        let product = ByteProduct {
            a,
            pixel: if single { from.len() } else { stride * from.channels },
            taps: &taps,
            weights: &self.weights,
            scale: &self.scale,
            bias: &self.bias,
            residual,
            relu: self.relu,
            out_pixel: pixel(to),
        };
        product.write(&runs, out);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::model::graph::{ConvLayer, Graph, Op, Rectifier};
    use crate::model::plan::Plan;

    fn conv(kernel: usize, sizes: [usize; 3], relu: bool, rng: &mut ChaCha8Rng) -> ConvLayer {
        let [channels, out, stride] = sizes;
        let inputs = kernel * kernel * channels;
        let spread = 2.0 / (inputs as f32).sqrt();
        let weight = (0..inputs * out).map(|_| spread * rng.random_range(-1.0..1.0f32)).collect();
        let bias = (0..out).map(|_| rng.random_range(-0.5..0.5)).collect();
        let rectifier = if relu { Rectifier::Relu } else { Rectifier::None };
        let padding = if kernel == 3 { 1 } else { 0 };
        let kernel = [kernel; 2];
        ConvLayer { kernel, channels, out, groups: 1, stride, padding, weight, bias, residual: None, rectifier }
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
        let (expected, expected_shape) = Plan::new(&graph).run(&x, shape, Threads::One).unwrap();
        let bytes = quantised(&graph, &x, shape).unwrap();
        let power = expected.iter().map(|v| v * v).sum::<f32>();
        let stem = Level::best();
        let (first, _) = BytePlan::new(&bytes).run(&x, shape, Threads::All).unwrap();
        for level in Level::available() {
            // The floats of the first convolution are the only ones that depend on the level.
            let mut plan = BytePlan::at_level(&bytes, level);
            plan.stem = BytePlan::at_level(&bytes, stem).stem;
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
        let plan = BytePlan::new(&quantised(&graph, &x, [1, 20, 20, 3]).unwrap());
        for shape in [[1, 20, 20, 4], [1, 10, 10, 3], [2, 20, 20, 3]] {
            assert!(plan.run(&x, shape, Threads::One).is_err(), "{shape:?}");
        }
        let small = vec![0.5; 8 * 8 * 3];
        assert!(plan.run(&small, [1, 8, 8, 3], Threads::One).is_err());
        graph.push(7, Op::Flatten);
        assert!(quantised(&graph, &x, [1, 20, 20, 3]).is_err());
    }
}
