//! Which input pixels an output pixel sees, and copying them in and out of matrix rows.

use candle_core::WithDType;

use super::matmul::Matrix;

/// Floats that one block of patches may take: with weights and outputs they stay within an L2 cache.
const BLOCK: usize = 48 * 1024;

/// The sizes of one convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    pub(super) batch: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
    pub(super) kernel_height: usize,
    pub(super) kernel_width: usize,
    pub(super) out: usize,
    pub(super) stride: usize,
    pub(super) padding: usize,
}

impl Geometry {
    pub(super) fn height_out(&self) -> usize {
        (self.height + 2 * self.padding - self.kernel_height) / self.stride + 1
    }

    pub(super) fn width_out(&self) -> usize {
        (self.width + 2 * self.padding - self.kernel_width) / self.stride + 1
    }

    pub(super) fn pixels_out(&self) -> usize {
        self.height_out() * self.width_out()
    }

    /// Inputs that one output sums over.
    pub(super) fn depth(&self) -> usize {
        self.kernel_height * self.kernel_width * self.channels
    }

    /// Output rows whose patches make one block.
    pub(super) fn rows_a_block(&self) -> usize {
        (BLOCK / (self.width_out() * self.depth()).max(1)).clamp(1, self.height_out())
    }

    /// Whether patches are the input itself.
    fn is_pointwise(&self) -> bool {
        self.kernel_height == 1 && self.kernel_width == 1 && self.stride == 1 && self.padding == 0
    }

    /// The patches of `rows` output rows from `first`: one matrix row an output pixel.
    pub(super) fn gather<'a, T: WithDType>(
        &self,
        photo: &'a [T],
        first: usize,
        rows: usize,
        buffer: &'a mut Vec<T>,
    ) -> Matrix<'a, T> {
        let pixels = rows * self.width_out();
        if self.is_pointwise() {
            let start = first * self.width * self.channels;
            return Matrix::rows(&photo[start..start + pixels * self.channels], pixels, self.channels);
        }
        // Only what lies in the padding is not overwritten below, and it must be zero.
        if self.padding > 0 {
            buffer.clear();
        }
        buffer.resize(pixels * self.depth(), T::zero());
        self.each_run(first, rows, |patch, input, length| {
            buffer[patch..patch + length].copy_from_slice(&photo[input..input + length]);
        });
        Matrix::rows(buffer, pixels, self.depth())
    }

    /// The transpose of [`gather`](Self::gather): adds the patches back to the pixels that they came from.
    pub(super) fn scatter<T: WithDType>(&self, patches: &[T], first: usize, rows: usize, photo: &mut [T]) {
        self.each_run(first, rows, |patch, input, length| {
            let (from, to) = (&patches[patch..patch + length], &mut photo[input..input + length]);
            to.iter_mut().zip(from).for_each(|(sum, value)| *sum += *value);
        });
    }

    /// Calls `run(start in the patches, start in the photo, length)` for each run of floats that is contiguous in both.
    fn each_run(&self, first: usize, rows: usize, mut run: impl FnMut(usize, usize, usize)) {
        let (channels, row_length) = (self.channels, self.kernel_width * self.channels);
        for y in 0..rows {
            for x in 0..self.width_out() {
                let patch = (y * self.width_out() + x) * self.depth();
                // The left edge of the patch in padded coordinates, and the part of it that lies in the photo.
                let left = x * self.stride;
                let skip = self.padding.saturating_sub(left).min(self.kernel_width);
                let end = (self.width + self.padding).saturating_sub(left).min(self.kernel_width);
                if end <= skip {
                    continue;
                }
                for k in 0..self.kernel_height {
                    let padded = (first + y) * self.stride + k;
                    if padded < self.padding || padded >= self.height + self.padding {
                        continue;
                    }
                    let input = ((padded - self.padding) * self.width + left + skip - self.padding) * channels;
                    run(patch + k * row_length + skip * channels, input, (end - skip) * channels);
                }
            }
        }
    }
}
