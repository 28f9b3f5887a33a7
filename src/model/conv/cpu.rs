//! The convolution and its gradients in `f32` on the CPU: three uses of the same tiles, some photos a task.

use rayon::prelude::*;

use super::Sizes;
use crate::model::kernel::{
    Convolution, Depthwise, Finish, Level, Map, Order, Packed, Part, Product, Rectifier, Run, Shape,
    TiledWeightGradient, Weights, in_parts, whole_panels,
};

/// Output pixels of one task: weights are read once for all of them.
const PIXELS: usize = 256;

/// Photos of one task where a stride has phases.
const TOGETHER: usize = 4;

/// Floats in a cache line.
const LINE: usize = 16;

/// Floats of inputs and outputs that a second-level cache keeps beside the sums of a tile.
const CACHED: usize = 1 << 17;

/// Sums of weight gradients that are made side by side: fixed, so that the order of additions does not depend on the number of threads.
pub(super) const GROUPS: usize = 4;

pub(super) fn forward(level: Level, s: &Sizes, x: &[f32], weight: &[f32], bias: &[f32], relu: bool) -> Vec<f32> {
    let rectifier = if relu { Rectifier::Relu } else { Rectifier::None };
    let conv = Convolution::new(level, s.shape, s.batch * s.pixels_out(), weight, bias, rectifier);
    let from = Map { height: s.height, width: s.width, channels: s.shape.channels, border: s.shape.padding };
    let to = Map { height: s.out[0], width: s.out[1], channels: s.shape.out, border: 0 };
    convolve(&conv, x, &from, &to)
}

/// All photos, some a task.
fn convolve(conv: &Convolution, x: &[f32], from: &Map, to: &Map) -> Vec<f32> {
    let photo = from.height * from.width * from.channels;
    let batch = x.len() / photo;
    // Enough that weights are read for many pixels; as many tasks for each thread, since all wait for the last.
    let together = PIXELS.div_ceil(to.height * to.width).max(1);
    let threads = rayon::current_num_threads();
    let tasks = batch.div_ceil(together).next_multiple_of(threads);
    let together = batch.div_ceil(tasks).max(1);
    in_parts(0.0, batch * to.len(), together * to.len(), Vec::new, |padded, part, y| {
        let first = part * together;
        let photos = y.len() / to.len();
        let x = with_border(from, &x[first * photo..][..photos * photo], padded);
        conv.write(x, from, &Part::whole(0..photos, to), y, to, None);
    })
}

/// `photos` with the border that `map` has; as they are where it has none.
fn with_border<'a>(map: &Map, photos: &'a [f32], buffer: &'a mut Vec<f32>) -> &'a [f32] {
    if map.border == 0 {
        return photos;
    }
    let photo = map.height * map.width * map.channels;
    buffer.resize(photos.len() / photo * map.len(), 0.0);
    for (from, to) in photos.chunks_exact(photo).zip(buffer.chunks_exact_mut(map.len())) {
        map.fill(from, to);
    }
    buffer
}

/// Along one axis, the inputs whose index leaves `rest` when divided by the stride: which parts of the kernel they meet, and which outputs.
#[derive(Clone, Copy, Debug)]
struct Phase {
    rest: usize,
    /// First part of the kernel that meets them; every stride-th from there does.
    first: usize,
    /// How many parts meet them.
    taps: usize,
    /// How many inputs there are.
    count: usize,
    /// The output that the first input meets with the first part of the kernel.
    output: usize,
}

impl Phase {
    fn all(s: &Sizes, side: usize, kernel: usize) -> impl Iterator<Item = Self> {
        let (stride, padding) = (s.shape.stride, s.shape.padding);
        (0..stride.min(side)).map(move |rest| {
            let first = (rest + padding) % stride;
            let taps = kernel.saturating_sub(first).div_ceil(stride);
            Self { rest, first, taps, count: (side - rest).div_ceil(stride), output: (rest + padding - first) / stride }
        })
    }

    /// Outputs that are missing before the first and behind the last of `side`, and are taken to be zero.
    fn border(&self, side: usize) -> usize {
        (self.taps.saturating_sub(1).saturating_sub(self.output)).max((self.count + self.output).saturating_sub(side))
    }
}

/// The gradient of the input is a convolution of the outputs' gradient with the kernel turned around; with a stride, one for each of its
/// phases.
pub(super) fn input_gradient(level: Level, s: &Sizes, grad: &[f32], weight: &[f32]) -> Vec<f32> {
    let Shape { kernel: [height, width], channels, out, groups, stride, padding } = s.shape;
    if stride == 1 && groups == 1 && height == width && padding < height {
        let padding = height - 1 - padding;
        let shape = Shape { kernel: s.shape.kernel, channels: out, out: channels, groups, stride, padding };
        let (turned, bias) = (turned_around(&s.shape, weight), vec![0.0; channels]);
        let outputs = s.batch * s.height * s.width;
        let conv = Convolution::new(level, shape, outputs, &turned, &bias, Rectifier::None);
        let from = Map { height: s.out[0], width: s.out[1], channels: out, border: padding };
        return convolve(&conv, grad, &from, &Map { height: s.height, width: s.width, channels, border: 0 });
    }
    input_gradient_by_phases(level, s, grad, weight)
}

/// `(height, width, channels, out)` to `(height, width, out, channels)`, the last pixel of the kernel first.
fn turned_around(shape: &Shape, weight: &[f32]) -> Vec<f32> {
    let Shape { channels, out, .. } = *shape;
    let pixels = shape.kernel[0] * shape.kernel[1];
    in_parts(
        0.0,
        weight.len(),
        channels * out,
        || (),
        |(), pixel, to| {
            let from = &weight[(pixels - 1 - pixel) * channels * out..][..channels * out];
            // Blocks, so that lines of the cache are used whole on both sides.
            for first in (0..channels).step_by(LINE) {
                for (o, to) in to.chunks_exact_mut(channels).enumerate() {
                    for (c, to) in to.iter_mut().enumerate().skip(first).take(LINE) {
                        *to = from[c * out + o];
                    }
                }
            }
        },
    )
}

fn input_gradient_by_phases(level: Level, s: &Sizes, grad: &[f32], weight: &[f32]) -> Vec<f32> {
    let rows: Vec<Phase> = Phase::all(s, s.height, s.shape.kernel[0]).collect();
    let columns: Vec<Phase> = Phase::all(s, s.width, s.shape.kernel[1]).collect();
    let borders = rows.iter().map(|p| p.border(s.out[0])).chain(columns.iter().map(|p| p.border(s.out[1])));
    let from = Map { height: s.out[0], width: s.out[1], channels: s.shape.out, border: borders.max().unwrap_or(0) };
    let phases: Vec<(Phase, Phase)> =
        rows.iter().flat_map(|row| columns.iter().map(move |column| (*row, *column))).collect();
    // What no part of the kernel meets has no gradient, and stays zero.
    let turned: Vec<_> = phases
        .into_iter()
        .filter(|(row, column)| row.taps > 0 && column.taps > 0)
        .map(|phase| (phase, Turned::new(level, s, weight, phase)))
        .collect();
    in_parts(0.0, s.batch * s.photo(), TOGETHER * s.photo(), Vec::new, |padded, part, dx| {
        let photos = dx.len() / s.photo();
        let grad = &grad[part * TOGETHER * s.photo_out()..][..photos * s.photo_out()];
        let grad = with_border(&from, grad, padded);
        for (phase, weights) in &turned {
            weights.write(level, s, phase, grad, &from, dx);
        }
    })
}

enum Turned {
    Groups(Vec<Packed>),
    Depthwise(Vec<f32>),
}

impl Turned {
    fn new(level: Level, s: &Sizes, weight: &[f32], (row, column): (Phase, Phase)) -> Self {
        let (group_in, group_out) = (s.shape.channels / s.shape.groups, s.shape.out / s.shape.groups);
        let part = |t: usize| {
            let (y, x) = (row.taps - 1 - t / column.taps, column.taps - 1 - t % column.taps);
            ((row.first + s.shape.stride * y) * s.shape.kernel[1] + column.first + s.shape.stride * x)
                * group_in
                * s.shape.out
        };
        let taps = row.taps * column.taps;
        if s.shape.is_depthwise() {
            return Self::Depthwise((0..taps).flat_map(|t| weight[part(t)..][..s.shape.out].to_vec()).collect());
        }
        let group = |group: usize| {
            Packed::new(level, taps * group_out, group_in, |r, to| {
                let column = part(r / group_out) + group * group_out + r % group_out;
                to.iter_mut().enumerate().for_each(|(c, to)| *to = weight[column + c * s.shape.out]);
            })
        };
        Self::Groups((0..s.shape.groups).map(group).collect())
    }

    fn write(&self, level: Level, s: &Sizes, (row, column): &(Phase, Phase), grad: &[f32], from: &Map, dx: &mut [f32]) {
        let (channels, stride) = (s.shape.channels, s.shape.stride);
        let top = from.border + row.output + 1 - row.taps;
        let left = from.border + column.output + 1 - column.taps;
        let mut runs: Vec<Run> = (0..dx.len() / s.photo())
            .flat_map(|photo| (0..row.count).map(move |i| (photo, i)))
            .map(|(photo, i)| Run {
                a: photo * from.len() + (top + i) * from.row() + left * from.channels,
                out: photo * s.photo() + ((row.rest + i * stride) * s.width + column.rest) * channels,
                residual: 0,
                count: column.count,
            })
            .collect();
        let tap = |y: usize, x: usize| y * from.row() + x * from.channels;
        let each: Vec<usize> = (0..row.taps).flat_map(|y| (0..column.taps).map(move |x| tap(y, x))).collect();
        match self {
            Self::Depthwise(weights) => {
                let part =
                    Depthwise { a_pixel: channels, taps: &each, weights, channels, out_pixel: stride * channels };
                let nothing = vec![0.0; channels];
                for run in runs {
                    part.write(level, &grad[run.a..], run.count, &mut dx[run.out..], &nothing, None, Rectifier::None);
                }
            }
            Self::Groups(packed) => {
                let group_out = s.shape.out / s.shape.groups;
                let (taps, depth) = match s.shape.groups {
                    1 => ((0..row.taps).map(|y| tap(y, 0)).collect(), column.taps * group_out),
                    _ => (each, group_out),
                };
                for weights in packed {
                    let product = Product {
                        a: grad,
                        order: Order::Steps { pixel: from.channels },
                        taps: &taps,
                        depth,
                        weights: weights.weights(level),
                        out_pixel: stride * channels,
                        finish: Finish::Write { bias: None, residual: None, rectifier: Rectifier::None },
                    };
                    product.write(level, &runs, dx);
                    for run in &mut runs {
                        run.a += group_out;
                        run.out += weights.columns();
                    }
                }
            }
        }
    }
}

/// The gradient of the weights: what each input of the kernel saw, times the outputs' gradient, over all output pixels.
pub(super) fn weight_gradient(level: Level, s: &Sizes, x: &[f32], grad: &[f32]) -> Vec<f32> {
    let group = s.batch.div_ceil(GROUPS).max(1);
    let groups = x.par_chunks(group * s.photo()).zip(grad.par_chunks(group * s.photo_out()));
    let partials: Vec<Vec<f32>> = groups.map(|(x, grad)| partial_weight_gradient(level, s, x, grad)).collect();
    let mut partials = partials.into_iter();
    let mut sum = partials.next().unwrap_or_else(|| vec![0.0; s.weights()]);
    let rest: Vec<Vec<f32>> = partials.collect();
    let chunk = sum.len().div_ceil(rayon::current_num_threads()).max(1);
    sum.par_chunks_mut(chunk).enumerate().for_each(|(index, sum)| {
        for partial in &rest {
            let part = &partial[index * chunk..][..sum.len()];
            sum.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
        }
    });
    sum
}

fn partial_weight_gradient(level: Level, s: &Sizes, x: &[f32], grad: &[f32]) -> Vec<f32> {
    let Sizes { shape, .. } = s;
    let from = Map { height: s.height, width: s.width, channels: shape.channels, border: shape.padding };
    if let Some(mut tiled) = TiledWeightGradient::new(level, *shape, grad.len() / shape.out) {
        let to = Map { height: s.out[0], width: s.out[1], channels: shape.out, border: 0 };
        let together = (CACHED / (from.len() + s.photo_out())).max(1);
        let mut padded = Vec::new();
        for (x, grad) in x.chunks(together * s.photo()).zip(grad.chunks(together * s.photo_out())) {
            tiled.add(with_border(&from, x, &mut padded), &from, grad, &to);
        }
        return tiled.finish();
    }
    let (group_in, group_out) = (shape.channels / shape.groups, shape.out / shape.groups);
    // Tiles read whole panels of the gradient.
    let columns = if shape.is_depthwise() { 1 } else { whole_panels(level, &vec![0.0; group_out]).len() };
    let whole = columns == shape.out && shape.groups == 1;
    let mut sums = vec![0.0; shape.groups * shape.kernel[0] * shape.kernel[1] * group_in * columns];
    let each = sums.len() / shape.groups;
    let step = shape.stride * shape.channels;
    let (kernel_taps, kernel_depth) = shape.taps(&from);
    let (mut padded, mut wide) = (Vec::new(), Vec::new());
    // Several photos a product: what a tile adds to memory is little beside what it adds up.
    let together = (CACHED / (from.len() + s.photo_out())).max(1);
    for (x, grad) in x.chunks(together * s.photo()).zip(grad.chunks(together * s.photo_out())) {
        let x = with_border(&from, x, &mut padded);
        let photos = grad.len() / s.photo_out();
        let row = |y: usize| y * shape.stride * from.row();
        let taps: Vec<usize> =
            (0..photos).flat_map(|photo| (0..s.out[0]).map(move |y| photo * from.len() + row(y))).collect();
        if shape.is_depthwise() {
            let part = Depthwise { a_pixel: step, taps: &kernel_taps, weights: &[], channels: shape.out, out_pixel: 0 };
            for (row, grad) in taps.iter().zip(grad.chunks_exact(s.out[1] * shape.out)) {
                part.add_weight_gradient(level, &x[*row..], s.out[1], grad, &mut sums);
            }
            continue;
        }
        for (group, sums) in sums.chunks_exact_mut(each).enumerate() {
            let values = match whole {
                true => grad,
                false => {
                    wide.resize(photos * s.pixels_out() * columns, 0.0);
                    for (from, to) in grad.chunks_exact(shape.out).zip(wide.chunks_exact_mut(columns)) {
                        to[..group_out].copy_from_slice(&from[group * group_out..][..group_out]);
                    }
                    &wide
                }
            };
            let runs: Vec<Run> = kernel_taps
                .iter()
                .enumerate()
                .map(|(at, tap)| Run {
                    a: tap + group * group_in,
                    out: at * kernel_depth * columns,
                    residual: 0,
                    count: kernel_depth,
                })
                .collect();
            let product = Product {
                a: x,
                order: Order::Pixels { step },
                taps: &taps,
                depth: s.out[1],
                weights: Weights::Rows { values, columns },
                out_pixel: columns,
                finish: Finish::Accumulate,
            };
            product.write(level, &runs, sums);
        }
    }
    if whole || shape.is_depthwise() {
        sums.truncate(s.weights());
        return sums;
    }
    let mut dw = vec![0.0; s.weights()];
    for (group, sums) in sums.chunks_exact(each).enumerate() {
        for (from, to) in sums.chunks_exact(columns).zip(dw.chunks_exact_mut(shape.out)) {
            to[group * group_out..][..group_out].copy_from_slice(&from[..group_out]);
        }
    }
    dw
}
