//! A convolution of padded pictures of bytes: which pixels meet which weights.

use super::super::{Level, Map, Part, Shape};
use super::{ByteProduct, Outputs, PackedBytes, Residual};

/// A convolution with its weights as tiles want them, and what becomes of its sums: `sum · scale + bias + residual`.
#[derive(Debug)]
pub(crate) struct ByteConvolution {
    pub(crate) shape: Shape,
    weights: PackedBytes,
    scale: Vec<f32>,
    bias: Vec<f32>,
    residual_step: f32,
}

/// The numbers of a convolution in bytes.
pub(crate) struct ByteWeights<'a> {
    /// `(kernel height, kernel width, channels, out)`, row after row; one group.
    pub(crate) values: &'a [i8],
    /// What one step of a sum is worth, an output channel, in steps of the output where that is bytes.
    pub(crate) scale: Vec<f32>,
    /// In the same unit.
    pub(crate) bias: Vec<f32>,
    /// What one of the residual is worth, or one step of its bytes, in the same unit.
    pub(crate) residual_step: f32,
}

impl ByteConvolution {
    /// How many bytes behind the last picture may be read, though nothing comes of them.
    pub(crate) const SLACK: usize = super::QUAD - 1;

    pub(crate) fn new(level: Level, shape: Shape, weights: ByteWeights<'_>) -> Self {
        let Shape { kernel: [height, width], channels, out, .. } = shape;
        let row = |row: usize, to: &mut [i8]| to.copy_from_slice(&weights.values[row * out..][..out]);
        let packed = PackedBytes::new(level, height, width * channels, out, row);
        let ByteWeights { scale, bias, residual_step, .. } = weights;
        Self { shape, weights: packed, scale, bias, residual_step }
    }

    /// Bytes of the packed weights.
    pub(crate) fn weight_bytes(&self) -> usize {
        size_of_val(&self.weights.lines[..])
    }

    /// Computes a part of the outputs.
    ///
    /// - `x`: all inputs, laid out as `from`, whose border is at least the padding, and [`SLACK`](Self::SLACK) bytes behind them.
    /// - `out`: the outputs of `part`, laid out as `to`.
    pub(crate) fn write(
        &self,
        x: &[u8],
        from: &Map,
        part: &Part,
        out: Outputs<'_>,
        to: &Map,
        residual: Option<(Residual<'_>, &Map)>,
    ) {
        let (taps, _) = self.shape.taps(from);
        let walk = part.walk(&self.shape, from, to, residual.map(|(_, map)| map));
        let product = ByteProduct {
            a: x,
            pixel: walk.pixel,
            taps: &taps,
            weights: &self.weights,
            scale: &self.scale,
            bias: &self.bias,
            residual: residual.map(|(values, _)| values),
            residual_pixel: walk.residual_pixel,
            residual_step: self.residual_step,
            out_pixel: walk.out_pixel,
        };
        product.write(&walk.runs, out);
    }
}
