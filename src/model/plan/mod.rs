//! A trained network made ready to run on the CPU: weights packed, buffers laid out, nothing copied between layers.
//!
//! Every value is an NHWC picture with a border as wide as its readers' padding, so that a convolution reads whole kernel rows and writes
//! where the next one reads. Several pictures go through a layer together, since weights are larger than what the caches keep.

mod bytes;
mod pool;
mod quantise;

pub(crate) use bytes::BytePlan;
pub(crate) use quantise::ByteGraph;

use std::sync::Mutex;
use std::time::Instant;

use rayon::prelude::*;

use super::graph::{Graph, Op, Rectifier};
use super::kernel::{Convolution, Level, Map, Shape};
use crate::{Error, Result};

/// Pictures that go through the layers together: weights are read once for all of them, and their values still fit an L2 cache.
const TOGETHER: usize = 8;

/// A network, ready to run.
#[derive(Debug)]
pub(crate) struct Plan {
    steps: Vec<Step>,
    /// Channels of the input.
    channels: usize,
    /// The border of each value; value 0 is the input.
    borders: Vec<usize>,
    /// Buffers that no run uses now.
    spare: Mutex<Vec<Vec<Vec<f32>>>>,
}

#[derive(Debug)]
struct Step {
    input: usize,
    residual: Option<usize>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Conv(Convolution),
    MaxPool { window: usize, stride: usize },
    Flatten,
}

/// What one convolution costs.
#[derive(Clone, Copy, Debug)]
pub struct LayerTime {
    /// Height and width.
    pub kernel: [usize; 2],
    /// Input channels.
    pub channels: usize,
    /// Output channels.
    pub out: usize,
    /// Pixels between two outputs.
    pub stride: usize,
    /// Rows of the output.
    pub side: usize,
    /// Multiplications of all pictures.
    pub multiplications: usize,
    /// Time of all pictures.
    pub seconds: f64,
}

/// Who works on one picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Threads {
    /// The calling thread: where many pictures are at work already.
    One,
    /// All of the pool, each a part of the rows or some of the pictures.
    All,
}

impl Plan {
    /// Packs the weights of `graph` for this CPU.
    pub(crate) fn new(graph: &Graph) -> Self {
        Self::at_level(graph, Level::best())
    }

    fn at_level(graph: &Graph, level: Level) -> Self {
        let mut borders = vec![0; graph.layers.len() + 1];
        let mut steps = Vec::new();
        let mut channels = 0;
        for layer in &graph.layers {
            let mut residual = None;
            let kind = match &layer.op {
                Op::Conv(conv) => {
                    borders[layer.input] = borders[layer.input].max(conv.padding);
                    residual = conv.residual;
                    if channels == 0 {
                        channels = conv.channels;
                    }
                    let shape = Shape {
                        kernel: conv.kernel,
                        channels: conv.channels,
                        out: conv.out,
                        groups: conv.groups,
                        stride: conv.stride,
                        padding: conv.padding,
                    };
                    let slope = match &conv.rectifier {
                        Rectifier::None => None,
                        Rectifier::Relu => Some(vec![0.0; conv.out]),
                        Rectifier::Prelu(slope) => Some(slope.clone()),
                    };
                    Kind::Conv(Convolution::new(level, shape, &conv.weight, &conv.bias, slope.as_deref()))
                }
                Op::MaxPool { window, stride } => Kind::MaxPool { window: *window, stride: *stride },
                Op::Flatten => Kind::Flatten,
            };
            steps.push(Step { input: layer.input, residual, kind });
        }
        Self { steps, channels, borders, spare: Mutex::new(Vec::new()) }
    }

    /// Runs the network.
    ///
    /// - `x`: `(n, height, width, channels)` of `shape`, row after row.
    /// - Returns the last layer's values, `(n, height', width', out)`, and their shape.
    ///
    /// # Errors
    /// `Argument` when the shape is not that of `x`, or too small for the network.
    pub(crate) fn run(&self, x: &[f32], shape: [usize; 4], threads: Threads) -> Result<(Vec<f32>, [usize; 4])> {
        let [count, height, width, channels] = shape;
        if shape.iter().product::<usize>() != x.len() || channels != self.channels {
            let what = format!("{} values for {shape:?}, expected {} channels", x.len(), self.channels);
            return Err(Error::argument("pictures", what));
        }
        let maps = self.maps(height, width)?;
        let last = maps[maps.len() - 1];
        let out_each = last.height * last.width * last.channels;
        let mut out = vec![0.0; count * out_each];
        // Fewer together where there would not be work for every thread otherwise.
        let workers = if threads == Threads::All { rayon::current_num_threads() } else { 1 };
        let together = count.div_ceil(workers).clamp(1, TOGETHER);
        let each = (height * width * channels).max(1);
        let split = if count < workers { threads } else { Threads::One };
        let part = |(x, out): (&[f32], &mut [f32])| self.run_part(&maps, x, out, x.len() / each, split, |_, _| ());
        let parts = x.par_chunks(together * each).zip(out.par_chunks_mut(together * out_each));
        match threads {
            Threads::One => parts.with_min_len(usize::MAX).for_each(part),
            // Rows of the pictures are what is shared out then.
            Threads::All if split == Threads::All => {
                x.chunks(together * each).zip(out.chunks_mut(together * out_each)).for_each(part);
            }
            Threads::All => parts.for_each(part),
        }
        Ok((out, [count, last.height, last.width, last.channels]))
    }

    /// What each convolution of the network costs on the calling thread, in the order of the layers.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    pub(crate) fn profile(&self, x: &[f32], shape: [usize; 4]) -> Result<Vec<LayerTime>> {
        self.run(x, shape, Threads::One)?;
        let maps = self.maps(shape[1], shape[2])?;
        let mut seconds = vec![0.0; self.steps.len()];
        let last = maps[maps.len() - 1];
        let each = (x.len() / shape[0].max(1)).max(1);
        for x in x.chunks_exact(each * TOGETHER.min(shape[0].max(1))) {
            let count = x.len() / each;
            let mut out = vec![0.0; count * last.height * last.width * last.channels];
            self.run_part(&maps, x, &mut out, count, Threads::One, |step, spent| seconds[step] += spent);
        }
        let convolutions = self.steps.iter().zip(&maps[1..]).zip(seconds).filter_map(|((step, map), seconds)| {
            let Kind::Conv(conv) = &step.kind else { return None };
            let Shape { kernel, channels, out, groups, stride, .. } = conv.shape;
            let each = kernel[0] * kernel[1] * channels / groups * out * map.height * map.width;
            let pictures = shape[0] / TOGETHER.min(shape[0].max(1)) * TOGETHER.min(shape[0]);
            Some(LayerTime {
                kernel,
                channels,
                out,
                stride,
                side: map.height,
                multiplications: each * pictures,
                seconds,
            })
        });
        Ok(convolutions.collect())
    }

    /// The layout of every value for an input of this size.
    fn maps(&self, height: usize, width: usize) -> Result<Vec<Map>> {
        let mut maps = vec![Map { height, width, channels: self.channels, border: self.borders[0] }];
        for (step, border) in self.steps.iter().zip(&self.borders[1..]) {
            let from = maps[step.input];
            let small =
                || Error::argument("pictures", format!("{height} x {width} pixels are too few for this network"));
            let (height, width, channels) = match &step.kind {
                Kind::Conv(conv) => {
                    let [height, width] = conv.shape.output(from.height, from.width).ok_or_else(small)?;
                    (height, width, conv.shape.out)
                }
                Kind::MaxPool { window, stride } => {
                    if from.height < *window || from.width < *window {
                        return Err(small());
                    }
                    let side = |side: usize| (side - window).div_ceil(*stride) + 1;
                    (side(from.height), side(from.width), from.channels)
                }
                Kind::Flatten => (1, 1, from.height * from.width * from.channels),
            };
            let expected = match &step.kind {
                Kind::Conv(conv) => conv.shape.channels,
                _ => from.channels,
            };
            if from.channels != expected
                || step.residual.is_some_and(|r| (maps[r].height, maps[r].width) != (height, width))
            {
                let what = format!("a layer for {expected} channels sees {} of {height} x {width}", from.channels);
                return Err(Error::argument("pictures", what));
            }
            maps.push(Map { height, width, channels, border: *border });
        }
        Ok(maps)
    }

    /// Some of the pictures, through all layers.
    /// `spent` hears the seconds of each step.
    fn run_part(
        &self,
        maps: &[Map],
        x: &[f32],
        out: &mut [f32],
        count: usize,
        threads: Threads,
        mut spent: impl FnMut(usize, f64),
    ) {
        let mut values = self.spare.lock().ok().and_then(|mut spare| spare.pop()).unwrap_or_default();
        values.resize_with(maps.len(), Vec::new);
        for (value, map) in values.iter_mut().zip(maps) {
            value.resize(count * map.len(), 0.0);
        }
        let each = x.len() / count.max(1);
        for (x, to) in x.chunks_exact(each).zip(values[0].chunks_exact_mut(maps[0].len())) {
            maps[0].fill(x, to);
        }
        for (index, step) in self.steps.iter().enumerate() {
            let begin = Instant::now();
            let (before, after) = values.split_at_mut(index + 1);
            let (from, to) = (&maps[step.input], &maps[index + 1]);
            let (x, y) = (&before[step.input], &mut after[0]);
            y.chunks_exact_mut(to.len()).for_each(|y| to.clear_border(y));
            match &step.kind {
                Kind::Conv(conv) => {
                    let residual = step.residual.map(|r| (&before[r][..], &maps[r]));
                    convolve(conv, x, from, count, y, to, residual, threads);
                }
                Kind::MaxPool { window, stride } => {
                    for (x, y) in x.chunks_exact(from.len()).zip(y.chunks_exact_mut(to.len())) {
                        pool::max_pool(x, from, y, to, *window, *stride);
                    }
                }
                Kind::Flatten => {
                    x.chunks_exact(from.len()).zip(y.chunks_exact_mut(to.len())).for_each(|(x, y)| gather(x, from, y))
                }
            }
            spent(index, begin.elapsed().as_secs_f64());
        }
        let last = maps.len() - 1;
        let each = maps[last].height * maps[last].width * maps[last].channels;
        let pictures = values[last].chunks_exact(maps[last].len());
        pictures.zip(out.chunks_exact_mut(each)).for_each(|(from, to)| gather(from, &maps[last], to));
        if let Ok(mut spare) = self.spare.lock() {
            spare.push(values);
        }
    }
}

/// One layer on all pictures, or its rows shared out.
#[expect(clippy::too_many_arguments, reason = "two values with their layouts")]
fn convolve(
    conv: &Convolution,
    x: &[f32],
    from: &Map,
    count: usize,
    y: &mut [f32],
    to: &Map,
    residual: Option<(&[f32], &Map)>,
    threads: Threads,
) {
    if threads == Threads::One || to.height < 2 {
        return conv.write(x, from, count, 0..to.height, y, 0, to, residual);
    }
    // Two bands a thread: the last one to finish is not far behind.
    let rows = to.height.div_ceil(2 * rayon::current_num_threads()).max(1);
    for picture in 0..count {
        let (x, y) = (&x[picture * from.len()..], &mut y[picture * to.len()..][..to.len()]);
        let residual = residual.map(|(values, map)| (&values[picture * map.len()..], map));
        let first = to.border * to.row();
        let bands = y[first..first + to.height * to.row()].par_chunks_mut(rows * to.row()).enumerate();
        bands.for_each(|(band, y)| {
            let top = band * rows;
            let bottom = (top + rows).min(to.height);
            conv.write(x, from, 1, top..bottom, y, first + top * to.row(), to, residual);
        });
    }
}

/// A picture without its border.
fn gather(x: &[f32], map: &Map, to: &mut [f32]) {
    let row = map.width * map.channels;
    for (y, to) in to.chunks_exact_mut(row).enumerate() {
        to.copy_from_slice(&x[map.at(y, 0)..][..row]);
    }
}

#[cfg(test)]
mod tests;
