//! A trained network made ready to run on the CPU: weights packed, buffers laid out, nothing copied between layers.
//!
//! Every value is an NHWC picture, of floats or of bytes, with a border as wide as its readers' padding, so that a convolution reads whole
//! kernel rows and writes where the next one reads. Several pictures go through a layer together, as many as the caches keep.

mod buffers;
mod compile;
mod pool;
mod quantise;
mod step;

pub(crate) use quantise::ByteGraph;

use std::ops::Range;
use std::sync::Mutex;
use std::time::Instant;

use rayon::prelude::*;

use buffers::{Buffers, Order, Value};
use step::{Step, Surroundings, Work};

use super::kernel::{Level, Map, Shape};
use crate::{Error, Result};

/// A network, ready to run.
#[derive(Debug)]
pub(crate) struct Plan {
    level: Level,
    /// The most pictures that go through a layer together: weights are read once for all of them.
    together: usize,
    steps: Vec<Step>,
    /// Channels of the input.
    channels: usize,
    /// The border of each value; value 0 is the input.
    borders: Vec<usize>,
    /// Buffers that no run uses now.
    spare: Mutex<Vec<Buffers>>,
}

/// A step that was taken, on some of the pictures.
struct Done<'a> {
    step: usize,
    value: &'a Value,
    /// Which part of the value was computed.
    own: Range<usize>,
    seconds: f64,
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
    /// Runs the network.
    ///
    /// - `x`: `(n, height, width, channels)` of `shape`, row after row.
    /// - Returns the last layer's values, `(n, height', width', out)`, and their shape.
    ///
    /// # Errors
    /// `Argument` when the shape is not that of `x`, or too small for the network.
    pub(crate) fn run(&self, x: &[f32], shape: [usize; 4], threads: Threads) -> Result<(Vec<f32>, [usize; 4])> {
        let [count, height, width, channels] = shape;
        let maps = self.maps(x, shape)?;
        let last = maps[maps.len() - 1];
        let out_each = last.height * last.width * last.channels;
        let mut out = vec![0.0; count * out_each];
        // Fewer together where there would not be work for every thread otherwise.
        let workers = if threads == Threads::All { rayon::current_num_threads() } else { 1 };
        let together = count.div_ceil(workers).clamp(1, self.together);
        let each = (height * width * channels).max(1);
        let split = if count < workers { threads } else { Threads::One };
        let part = |(x, out): (&[f32], &mut [f32])| self.run_part(&maps, x, out, split, |_| ());
        match threads {
            Threads::All if split == Threads::One => {
                x.par_chunks(together * each).zip(out.par_chunks_mut(together * out_each)).for_each(part);
            }
            // Rows of the pictures are what is shared out, if anything is.
            _ => x.chunks(together * each).zip(out.chunks_mut(together * out_each)).for_each(part),
        }
        Ok((out, [count, last.height, last.width, last.channels]))
    }

    /// What each convolution costs on the calling thread, in the order of the layers.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    pub(crate) fn profile(&self, x: &[f32], shape: [usize; 4]) -> Result<Vec<LayerTime>> {
        self.run(x, shape, Threads::One)?;
        let maps = self.maps(x, shape)?;
        let mut seconds = vec![0.0; self.steps.len()];
        let last = maps[maps.len() - 1];
        let each = (x.len() / shape[0].max(1)).max(1);
        for x in x.chunks(each * self.together) {
            let mut out = vec![0.0; x.len() / each * last.height * last.width * last.channels];
            self.run_part(&maps, x, &mut out, Threads::One, |done| seconds[done.step] += done.seconds);
        }
        let convolutions = self.steps.iter().zip(&maps[1..]).zip(seconds).filter_map(|((step, map), seconds)| {
            let Shape { kernel, channels, out, groups, stride, .. } = match &step.work {
                Work::Conv(conv) | Work::Stem(conv, _) => conv.shape,
                Work::Bytes(conv, _) => conv.shape,
                _ => return None,
            };
            let each = kernel[0] * kernel[1] * channels / groups * out * map.height * map.width;
            let multiplications = each * shape[0];
            Some(LayerTime { kernel, channels, out, stride, side: map.height, multiplications, seconds })
        });
        Ok(convolutions.collect())
    }

    /// The layout of every value for inputs of this shape.
    fn maps(&self, x: &[f32], shape: [usize; 4]) -> Result<Vec<Map>> {
        let [_, height, width, channels] = shape;
        if shape.iter().product::<usize>() != x.len() || channels != self.channels {
            let what = format!("{} values for {shape:?}, expected {} channels", x.len(), self.channels);
            return Err(Error::argument("pictures", what));
        }
        let mut maps = vec![Map { height, width, channels, border: self.borders[0] }];
        for (step, border) in self.steps.iter().zip(&self.borders[1..]) {
            let from = maps[step.input];
            let size = [from.height, from.width, from.channels];
            let fits = |[height, width, channels]: &[usize; 3]| {
                step.residual
                    .is_none_or(|r| [maps[r].height, maps[r].width, maps[r].channels] == [*height, *width, *channels])
            };
            let [height, width, channels] = step.work.output(size).filter(fits).ok_or_else(|| {
                Error::argument("pictures", format!("{height} x {width} pixels don't fit this network"))
            })?;
            maps.push(Map { height, width, channels, border: *border });
        }
        Ok(maps)
    }

    /// Lets `seen` look at every value of floats that a network gives on the way, by its number, some pictures at a time: zeros of borders
    /// are among them.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    fn watch(&self, x: &[f32], shape: [usize; 4], mut seen: impl FnMut(usize, &[f32])) -> Result<()> {
        let maps = self.maps(x, shape)?;
        let each = (x.len() / shape[0].max(1)).max(1);
        for x in x.chunks(each * self.together) {
            self.run_part(&maps, x, &mut [], Threads::One, |done| {
                if let Value::Floats(values) = done.value {
                    seen(done.step + 1, &values[done.own]);
                }
            });
        }
        Ok(())
    }

    /// Some of the pictures, through all layers. `seen` hears of each step.
    fn run_part(&self, maps: &[Map], x: &[f32], out: &mut [f32], threads: Threads, mut seen: impl FnMut(Done<'_>)) {
        let each = maps[0].height * maps[0].width * maps[0].channels;
        let count = x.len() / each.max(1);
        let order = Order::new(&self.steps, maps, self.together);
        let mut buffers = self.spare.lock().ok().and_then(|mut spare| spare.pop()).unwrap_or_default();
        buffers.lay_out(&self.steps, &order, maps, count);
        for group in &order.groups {
            for first in (0..count).step_by(group.together) {
                let pictures = first..(first + group.together).min(count);
                if group.steps.start == 0 {
                    buffers.fill(&maps[0], &x[pictures.start * each..pictures.end * each], order.place(0, first));
                }
                for index in group.steps.clone() {
                    let begin = Instant::now();
                    let (before, after) = buffers.values.split_at_mut(index + 1);
                    self.steps[index].run(
                        self.level,
                        Surroundings { before, maps, order: &order },
                        &mut after[0],
                        &pictures,
                        threads,
                    );
                    let (each, place) = (maps[index + 1].len(), order.place(index + 1, first));
                    let own = place * each..(place + pictures.len()) * each;
                    seen(Done { step: index, value: &after[0], own, seconds: begin.elapsed().as_secs_f64() });
                }
            }
        }
        let map = &maps[maps.len() - 1];
        if let Some(Value::Floats(values)) = buffers.values.last() {
            let each = map.height * map.width * map.channels;
            values.chunks_exact(map.len()).zip(out.chunks_exact_mut(each)).for_each(|(from, to)| map.gather(from, to));
        }
        if let Ok(mut spare) = self.spare.lock() {
            spare.push(buffers);
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_in_bytes;
