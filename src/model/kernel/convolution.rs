//! A convolution of padded pictures: which pixels meet which weights.

use std::ops::Range;

use super::{Depthwise, Finish, Level, Order, Packed, Product, Run, Weights, whole_panels};

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

/// A convolution with its weights as tiles want them, and what is done to its outputs.
#[derive(Debug)]
pub(crate) struct Convolution {
    level: Level,
    pub(crate) shape: Shape,
    kernel: Kernel,
    bias: Vec<f32>,
    slope: Option<Vec<f32>>,
}

#[derive(Debug)]
enum Kernel {
    /// One matrix a group.
    Groups(Vec<Packed>),
    /// `(kernel height, kernel width, channels)`.
    Depthwise(Vec<f32>),
}

impl Convolution {
    /// - `weight`: `(kernel height, kernel width, channels / groups, out)`, row after row.
    /// - `bias`, `slope`: one an output channel; `slope` is what negative outputs are multiplied with.
    pub(crate) fn new(level: Level, shape: Shape, weight: &[f32], bias: &[f32], slope: Option<&[f32]>) -> Self {
        let out = shape.out / shape.groups;
        let rows = shape.kernel[0] * shape.kernel[1] * shape.channels / shape.groups;
        let kernel = match shape.is_depthwise() {
            true => Kernel::Depthwise(weight.to_vec()),
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
        Self { level, shape, kernel, bias: each_group(bias), slope: slope.map(each_group) }
    }

    /// Computes rows of `pictures` outputs.
    ///
    /// - `x`: the inputs, laid out as `from`, whose border is at least the padding.
    /// - `out`: the outputs, laid out as `to`, from position `base` of the first picture on.
    /// - `rows`: which output rows; all of them when there are several pictures.
    #[expect(clippy::too_many_arguments, reason = "two pictures, each with its layout, and a part of them")]
    pub(crate) fn write(
        &self,
        x: &[f32],
        from: &Map,
        pictures: usize,
        rows: Range<usize>,
        out: &mut [f32],
        base: usize,
        to: &Map,
        residual: Option<(&[f32], &Map)>,
    ) {
        let Shape { stride, padding, groups, .. } = self.shape;
        let (taps, depth) = self.shape.taps(from);
        // The corner of the kernel lies in the border.
        let corner = from.border - padding;
        let mut runs = Vec::with_capacity(pictures * rows.len());
        let single = to.height * to.width == 1;
        for picture in 0..if single { 1 } else { pictures } {
            for y in rows.clone() {
                runs.push(Run {
                    a: picture * from.len() + (y * stride + corner) * from.row() + corner * from.channels,
                    out: picture * to.len() + to.at(y, 0) - base,
                    residual: residual.map_or(0, |(_, map)| picture * map.len() + map.at(y, 0)),
                    count: if single { pictures } else { to.width },
                });
            }
        }
        // Where each picture gives a single pixel, the pictures take the place of the pixels, so that weights are read once.
        let (pixel, out_pixel, residual_pixel) = match single {
            true => (from.len(), to.len(), residual.map_or(0, |(_, map)| map.len())),
            false => (stride * from.channels, to.channels, residual.map_or(0, |(_, map)| map.channels)),
        };
        let packed = match &self.kernel {
            Kernel::Groups(packed) => packed,
            Kernel::Depthwise(weights) => {
                let part = Depthwise { a_pixel: pixel, taps: &taps, weights, channels: self.shape.out, out_pixel };
                for run in runs {
                    let out = &mut out[run.out..];
                    let residual = residual.map(|(values, _)| (&values[run.residual..], residual_pixel));
                    part.write(self.level, &x[run.a..], run.count, out, &self.bias, residual, self.slope.as_deref());
                }
                return;
            }
        };
        let part = |values: &'_ [f32], group: usize| {
            let each = values.len() / groups;
            group * each..(group + 1) * each
        };
        for (group, weights) in packed.iter().enumerate() {
            let finish = Finish::Write {
                bias: Some(&self.bias[part(&self.bias, group)]),
                residual: residual.map(|(values, _)| (values, residual_pixel)),
                slope: self.slope.as_ref().map(|slope| &slope[part(slope, group)]),
            };
            let weights = Weights::Packed(weights);
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
