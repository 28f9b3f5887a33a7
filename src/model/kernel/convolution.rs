//! A convolution of padded pictures: which pixels meet which weights.

use std::cell::RefCell;
use std::ops::Range;

use super::winograd::{self, Ending, Strides, Tile, Winograd};
use super::{Depthwise, Finish, Level, Order, Packed, Product, Rectifier, Run, whole_panels};

/// How an NHWC picture lies in a slice: rows of pixels, with a border that holds zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Map {
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) channels: usize,
    /// Pixels of the border on each side.
    pub(crate) border: usize,
}

impl Map {
    /// Floats of a row with its borders.
    pub(crate) fn row(&self) -> usize {
        (self.width + 2 * self.border) * self.channels
    }

    /// Floats of a picture with its borders.
    pub(crate) fn len(&self) -> usize {
        (self.height + 2 * self.border) * self.row()
    }

    /// Where pixel `(y, x)` begins.
    pub(crate) fn at(&self, y: usize, x: usize) -> usize {
        (y + self.border) * self.row() + (x + self.border) * self.channels
    }

    /// Copies a picture without border into the middle, and clears the border.
    pub(crate) fn fill<T: Copy + Default>(&self, picture: &[T], to: &mut [T]) {
        self.clear_border(to);
        let row = self.width * self.channels;
        for (y, from) in picture.chunks_exact(row).enumerate() {
            to[self.at(y, 0)..][..row].copy_from_slice(from);
        }
    }

    /// Copies a picture without its border.
    pub(crate) fn gather(&self, picture: &[f32], to: &mut [f32]) {
        let row = self.width * self.channels;
        for (y, to) in to.chunks_exact_mut(row).enumerate() {
            to.copy_from_slice(&picture[self.at(y, 0)..][..row]);
        }
    }

    /// Zeros around the picture.
    pub(crate) fn clear_border<T: Copy + Default>(&self, picture: &mut [T]) {
        let side = self.border * self.channels;
        let (top, bottom) = (self.border * self.row(), self.len() - self.border * self.row());
        picture[..top].fill(T::default());
        picture[bottom..self.len()].fill(T::default());
        for row in picture[top..bottom].chunks_exact_mut(self.row()) {
            row[..side].fill(T::default());
            row[self.row() - side..].fill(T::default());
        }
    }
}

/// The sizes of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Kernel height and width.
    pub(crate) kernel: [usize; 2],
    pub(crate) channels: usize,
    pub(crate) out: usize,
    /// Groups of channels that do not see each other.
    pub(crate) groups: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
}

impl Shape {
    /// Height and width of the output for an input of this height and width, if the kernel fits.
    pub(crate) fn output(&self, height: usize, width: usize) -> Option<[usize; 2]> {
        let side = |side: usize, kernel: usize| Some((side + 2 * self.padding).checked_sub(kernel)? / self.stride + 1);
        Some([side(height, self.kernel[0])?, side(width, self.kernel[1])?])
    }

    /// Height, width and channels of the output for those of the input, if it fits.
    pub(crate) fn output_of(&self, [height, width, channels]: [usize; 3]) -> Option<[usize; 3]> {
        let [height, width] = self.output(height, width).filter(|_| channels == self.channels)?;
        Some([height, width, self.out])
    }

    /// Whether each channel is a group of its own.
    pub(crate) fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.groups == self.channels && self.groups == self.out
    }

    /// Offsets of the kernel's parts in `map`, and how many floats from there belong to one part: whole kernel rows where the channels of a
    /// group lie side by side.
    pub(crate) fn taps(&self, map: &Map) -> (Vec<usize>, usize) {
        let [height, width] = self.kernel;
        if self.groups == 1 {
            return ((0..height).map(|y| y * map.row()).collect(), width * self.channels);
        }
        let taps = (0..height).flat_map(|y| (0..width).map(move |x| y * map.row() + x * map.channels)).collect();
        (taps, self.channels / self.groups)
    }
}

/// Some of the outputs: rows of some pictures, all of them where there are several.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) pictures: Range<usize>,
    pub(crate) rows: Range<usize>,
    /// Where the slice of the outputs begins in the first picture.
    pub(crate) base: usize,
}

/// The pixels of a part's outputs, as products want them.
pub(super) struct Walk {
    pub(super) runs: Vec<Run>,
    /// From one pixel to the next.
    pub(super) pixel: usize,
    pub(super) out_pixel: usize,
    pub(super) residual_pixel: usize,
}

impl Part {
    /// All of `pictures`.
    pub(crate) fn whole(pictures: Range<usize>, to: &Map) -> Self {
        Self { pictures, rows: 0..to.height, base: 0 }
    }

    pub(super) fn walk(&self, shape: &Shape, from: &Map, to: &Map, residual: Option<&Map>) -> Walk {
        let Self { pictures, rows, base } = self.clone();
        // The corner of the kernel lies in the border.
        let corner = from.border - shape.padding;
        // Where each picture gives a single pixel, the pictures take the place of the pixels, so that weights are read once.
        let single = to.height * to.width == 1;
        let mut runs = Vec::with_capacity(pictures.len() * rows.len());
        for (place, picture) in pictures.clone().enumerate().take(if single { 1 } else { pictures.len() }) {
            for y in rows.clone() {
                runs.push(Run {
                    a: picture * from.len() + (y * shape.stride + corner) * from.row() + corner * from.channels,
                    out: place * to.len() + to.at(y, 0) - base,
                    residual: residual.map_or(0, |map| picture * map.len() + map.at(y, 0)),
                    count: if single { pictures.len() } else { to.width },
                });
            }
        }
        let step = |map: &Map| if single { map.len() } else { map.channels };
        let pixel = if single { from.len() } else { shape.stride * from.channels };
        Walk { runs, pixel, out_pixel: step(to), residual_pixel: residual.map_or(0, step) }
    }

    /// The same in tiles of 2 x 2 outputs.
    fn tiles(&self, shape: &Shape, from: &Map, to: &Map, residual: &Map) -> Vec<Tile> {
        let Self { pictures, rows, base } = self;
        let corner = from.border - shape.padding;
        let left = |side: usize, at: usize| (side + 2 * from.border - corner - at).min(4);
        let mut tiles = Vec::with_capacity(pictures.len() * rows.len().div_ceil(2) * to.width.div_ceil(2));
        for (place, picture) in pictures.clone().enumerate() {
            for y in rows.clone().step_by(2) {
                for x in (0..to.width).step_by(2) {
                    tiles.push(Tile {
                        input: picture * from.len() + (y + corner) * from.row() + (x + corner) * from.channels,
                        inside: [left(from.height, y), left(from.width, x)],
                        output: place * to.len() + to.at(y, x) - base,
                        residual: picture * residual.len() + residual.at(y, x),
                        wanted: [(rows.end - y).min(2), (to.width - x).min(2)],
                    });
                }
            }
        }
        tiles
    }
}

/// The gradient of the weights by tiles of 2 x 2 outputs, over any number of pictures.
pub(crate) struct TiledWeightGradient {
    level: Level,
    shape: Shape,
    sums: Vec<f32>,
}

impl TiledWeightGradient {
    /// Where that is faster than direct sums, for this many pixels of outputs; `out` is a whole number of panels then.
    pub(crate) fn new(level: Level, shape: Shape, outputs: usize) -> Option<Self> {
        let suits = Winograd::suits(&shape, outputs) && shape.out.is_multiple_of(super::tile::panel(level));
        suits.then(|| Self { level, shape, sums: vec![0.0; winograd::sums(&shape)] })
    }

    /// Adds what some pictures change: inputs laid out as `from`, whose border is at least the padding, gradients of outputs as `to`.
    pub(crate) fn add(&mut self, x: &[f32], from: &Map, grad: &[f32], to: &Map) {
        let tiles = Part::whole(0..grad.len() / to.len(), to).tiles(&self.shape, from, to, to);
        let (strides, sums) = (Strides::of(from, to, to), &mut self.sums);
        SCRATCH.with_borrow_mut(|scratch| {
            winograd::add_weight_gradient(self.level, &self.shape, x, grad, &tiles, &strides, sums, scratch);
        });
    }

    /// `(3, 3, channels, out)`.
    pub(crate) fn finish(self) -> Vec<f32> {
        winograd::contract(self.level, &self.shape, &self.sums)
    }
}

/// A convolution with its weights as tiles want them, and what is done to its outputs.
#[derive(Debug)]
pub(crate) struct Convolution {
    level: Level,
    pub(crate) shape: Shape,
    kernel: Kernel,
    bias: Vec<f32>,
    rectifier: Rectifier<Vec<f32>>,
}

#[derive(Debug)]
enum Kernel {
    /// One matrix a group.
    Groups(Vec<Packed>),
    /// `(kernel height, kernel width, channels)`.
    Depthwise(Vec<f32>),
    Winograd(Winograd),
}

thread_local! {
    /// What a thread transforms inputs and sums in: about a megabyte.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl Convolution {
    /// - `weight`: `(kernel height, kernel width, channels / groups, out)`, row after row.
    /// - `bias`, slopes of the `rectifier`: one an output channel.
    /// - `outputs`: pixels of the outputs that are computed together, as far as is known: they choose the method.
    pub(crate) fn new(
        level: Level,
        shape: Shape,
        outputs: usize,
        weight: &[f32],
        bias: &[f32],
        rectifier: Rectifier<&[f32]>,
    ) -> Self {
        let out = shape.out / shape.groups;
        let rows = shape.kernel[0] * shape.kernel[1] * shape.channels / shape.groups;
        let kernel = match shape.is_depthwise() {
            true => Kernel::Depthwise(weight.to_vec()),
            false if Winograd::suits(&shape, outputs) => Kernel::Winograd(Winograd::new(level, &shape, weight)),
            false => Kernel::Groups(
                (0..shape.groups)
                    .map(|group| {
                        Packed::new(level, rows, out, |row, to| {
                            to.copy_from_slice(&weight[row * shape.out + group * out..][..out]);
                        })
                    })
                    .collect(),
            ),
        };
        let each_group = |values: &[f32]| match shape.is_depthwise() {
            true => values.to_vec(),
            false => values.chunks_exact(out).flat_map(|values| whole_panels(level, values)).collect(),
        };
        Self { level, shape, kernel, bias: each_group(bias), rectifier: rectifier.map(|slope| each_group(slope)) }
    }

    /// Bytes of the packed weights.
    pub(crate) fn weight_bytes(&self) -> usize {
        let numbers = match &self.kernel {
            Kernel::Groups(groups) => groups.iter().map(Packed::len).sum(),
            Kernel::Depthwise(weights) => weights.len(),
            Kernel::Winograd(winograd) => winograd.len(),
        };
        numbers * size_of::<f32>()
    }

    /// Computes a part of the outputs.
    ///
    /// - `x`: all inputs, laid out as `from`, whose border is at least the padding.
    /// - `out`: the outputs of `part`, laid out as `to`.
    pub(crate) fn write(
        &self,
        x: &[f32],
        from: &Map,
        part: &Part,
        out: &mut [f32],
        to: &Map,
        residual: Option<(&[f32], &Map)>,
    ) {
        if let Kernel::Winograd(winograd) = &self.kernel {
            let beside = residual.map_or(to, |(_, map)| map);
            let tiles = part.tiles(&self.shape, from, to, beside);
            let residual = residual.map(|(values, _)| values);
            let ending = Ending { bias: &self.bias, residual, rectifier: self.rectifier.map(|slope| &slope[..]) };
            let strides = Strides::of(from, to, beside);
            return SCRATCH.with_borrow_mut(|scratch| {
                winograd.write(self.level, &self.shape, x, &tiles, &strides, ending, out, scratch);
            });
        }
        let groups = self.shape.groups;
        let (taps, depth) = self.shape.taps(from);
        let Walk { mut runs, pixel, out_pixel, residual_pixel } =
            part.walk(&self.shape, from, to, residual.map(|(_, map)| map));
        let packed = match &self.kernel {
            Kernel::Groups(packed) => packed,
            Kernel::Depthwise(weights) => {
                let part = Depthwise { a_pixel: pixel, taps: &taps, weights, channels: self.shape.out, out_pixel };
                for run in runs {
                    let out = &mut out[run.out..];
                    let residual = residual.map(|(values, _)| (&values[run.residual..], residual_pixel));
                    let rectifier = self.rectifier.map(|slope| &slope[..]);
                    part.write(self.level, &x[run.a..], run.count, out, &self.bias, residual, rectifier);
                }
                return;
            }
            Kernel::Winograd(_) => unreachable!("written above"),
        };
        let part = |values: &'_ [f32], group: usize| {
            let each = values.len() / groups;
            group * each..(group + 1) * each
        };
        for (group, weights) in packed.iter().enumerate() {
            let finish = Finish::Write {
                bias: Some(&self.bias[part(&self.bias, group)]),
                residual: residual.map(|(values, _)| (values, residual_pixel)),
                rectifier: self.rectifier.map(|slope| &slope[part(slope, group)]),
            };
            let weights = weights.weights(self.level);
            let product =
                Product { a: x, order: Order::Steps { pixel }, taps: &taps, depth, weights, out_pixel, finish };
            product.write(self.level, &runs, out);
            for run in &mut runs {
                run.a += depth;
                run.out += self.shape.out / groups;
                run.residual += self.shape.out / groups;
            }
        }
    }
}
