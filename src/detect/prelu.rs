//! The parametric rectifier and the max-pooling behind it, in one pass over NHWC data; candle's own take several.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

/// `max(x, 0) + slope * min(x, 0)`, a slope a channel. `x`: `(n, height, width, channels)`.
pub(super) fn prelu(x: &Tensor, slope: &Tensor) -> Result<Tensor> {
    x.apply_op2_no_bwd(slope, &Prelu { window: 1, stride: 1 })
}

/// The same, and of every `window * window` pixels, at a stride of two, the largest value of each channel.
///
/// Windows that reach beyond the last row or column are cut off there, and there are as many as it takes to see every pixel: where
/// the original nets pad ("same") they pad at that end only, and where they do not ("valid") nothing is left over.
pub(super) fn prelu_max_pool(x: &Tensor, slope: &Tensor, window: usize) -> Result<Tensor> {
    x.apply_op2_no_bwd(slope, &Prelu { window, stride: 2 })
}

struct Prelu {
    window: usize,
    stride: usize,
}

impl CustomOp2 for Prelu {
    fn name(&self) -> &'static str {
        "prelu-max-pool"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_at: &Layout,
        slope: &CpuStorage,
        slope_at: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (batch, height, width, channels) = x_at.shape().dims4()?;
        let (Some(x_range), Some(slope_range)) = (x_at.contiguous_offsets(), slope_at.contiguous_offsets()) else {
            bail!("expected contiguous tensors");
        };
        let (x, slope) =
            (&x.as_slice::<f32>()?[x_range.0..x_range.1], &slope.as_slice::<f32>()?[slope_range.0..slope_range.1]);
        if slope.len() != channels || height < self.window || width < self.window {
            bail!("{} slopes and a window of {} for {:?}", slope.len(), self.window, x_at.shape());
        }
        let outputs = |side: usize| (side - self.window).div_ceil(self.stride) + 1;
        let (height_out, width_out) = (outputs(height), outputs(width));
        let mut y = vec![f32::NEG_INFINITY; batch * height_out * width_out * channels];
        for (index, pixel) in y.chunks_exact_mut(channels).enumerate() {
            let (photo, row, column) = (
                index / (height_out * width_out),
                index / width_out % height_out * self.stride,
                index % width_out * self.stride,
            );
            for row in row..(row + self.window).min(height) {
                let start = ((photo * height + row) * width + column) * channels;
                let seen = self.window.min(width - column);
                for found in x[start..start + seen * channels].chunks_exact(channels) {
                    for ((best, value), slope) in pixel.iter_mut().zip(found).zip(slope) {
                        *best = best.max(value.max(0.0) + slope * value.min(0.0));
                    }
                }
            }
        }
        Ok((CpuStorage::F32(y), Shape::from((batch, height_out, width_out, channels))))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::{prelu, prelu_max_pool};

    fn check(values: &[f32], side: usize, slope: f32, window: Option<usize>, expected: &[f32]) {
        let x = Tensor::from_slice(values, (1, side, side, 1), &Device::Cpu).expect("as many values as pixels");
        let slope = Tensor::new(&[slope], &Device::Cpu).expect("one slope");
        let y = match window {
            Some(window) => prelu_max_pool(&x, &slope, window),
            None => prelu(&x, &slope),
        };
        let y = y.and_then(|y| y.flatten_all()?.to_vec1::<f32>()).expect("shapes agree");
        assert_eq!(y, expected);
    }

    #[test]
    fn what_is_negative_is_scaled() {
        check(&[-2.0, 3.0, 0.0, -4.0], 2, 0.25, None, &[-0.5, 3.0, 0.0, -1.0]);
    }

    #[test]
    fn a_negative_slope_is_applied_before_the_maximum() {
        check(&[-2.0, 1.0, 0.0, -4.0], 2, -1.0, Some(2), &[4.0]);
    }

    #[test]
    fn windows_at_the_far_edges_are_cut_off() {
        let values: Vec<f32> = (0..9).map(|value| value as f32).collect();
        check(&values, 3, 1.0, Some(2), &[4.0, 5.0, 7.0, 8.0]);
        let values: Vec<f32> = (0..16).map(|value| value as f32).collect();
        check(&values, 4, 1.0, Some(3), &[10.0, 11.0, 14.0, 15.0]);
    }
}
