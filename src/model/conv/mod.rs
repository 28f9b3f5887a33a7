//! One NHWC convolution, differentiable, for training on every device.
//!
//! Candle's own convolution is NCHW, slow on CPUs and slower still backwards. This one runs on register tiles (`model::kernel`) on the CPU (in `bf16`
//! on those of a CPU that has them: `tiled`), by cuDNN on GPUs.
//! The gradient of the input is a convolution with the kernel turned around; that of the weights sums over fixed groups of photos, so that the
//! result does not depend on the number of threads. It takes the bias as a third tensor, hence a `CustomOp3`.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod lattice;
mod reference;
mod tiled;

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor, WithDType, bail};
use half::bf16;

use super::kernel::{self, Level, in_parts};
use tiled::Tiled;

/// How a convolution walks over its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvParams {
    /// Pixels between two outputs, in both directions.
    pub stride: usize,
    /// Zeros assumed around the input, on each side.
    pub padding: usize,
    /// Groups of channels that do not see each other; as many as channels is a depthwise convolution.
    pub groups: usize,
    /// What follows each output.
    pub activation: Activation,
}

impl Default for ConvParams {
    fn default() -> Self {
        Self { stride: 1, padding: 0, groups: 1, activation: Activation::None }
    }
}

/// What is applied to each output of a convolution or normalisation, in the same pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// `max(0, x)`.
    Relu,
}

/// Convolution: `y[n, i, j, o] = b[o] + Σ x[n, i·stride + p - padding, j·stride + q - padding, c] · w[p, q, c, o]`, the channels `c`
/// being those of `o`'s group.
///
/// - `x`: `(batch, height, width, in)`; `f32`, `f64` (CPU, in plain loops: for tests) or `bf16` (summed in `f32`).
/// - `weight`: `(kernel height, kernel width, in / groups, out)`.
/// - `bias`: `(out)`, zero when left out.
/// - Returns `(batch, height', width', out)`; differentiable in all three.
///
/// # Errors
/// When shapes or types disagree, or the kernel is larger than the padded input.
pub fn conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, params: &ConvParams) -> Result<Tensor> {
    let (_, _, _, out) = weight.dims4()?;
    let given = bias;
    let bias = match given {
        Some(bias) => bias.contiguous()?,
        None => Tensor::zeros(out, weight.dtype(), weight.device())?,
    };
    if x.device().is_cpu() {
        return x.contiguous()?.apply_op3(&weight.contiguous()?, &bias, Conv { params: *params });
    }
    // A GPU convolves alone; what follows are operations of their own.
    let plain = ConvParams { activation: Activation::None, ..*params };
    let y = x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.detach(), Conv { params: plain })?;
    let y = if given.is_some() { y.broadcast_add(&bias)? } else { y };
    if params.activation == Activation::Relu { y.relu() } else { Ok(y) }
}

struct Conv {
    params: ConvParams,
}

/// The sizes of one convolution.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    batch: usize,
    height: usize,
    width: usize,
    shape: kernel::Shape,
    /// Height and width of the output.
    out: [usize; 2],
}

impl Sizes {
    /// Values of one input.
    fn photo(&self) -> usize {
        self.height * self.width * self.shape.channels
    }

    fn pixels_out(&self) -> usize {
        self.out[0] * self.out[1]
    }

    /// Values of one output.
    fn photo_out(&self) -> usize {
        self.pixels_out() * self.shape.out
    }

    fn weights(&self) -> usize {
        self.shape.kernel[0] * self.shape.kernel[1] * self.shape.channels / self.shape.groups * self.shape.out
    }
}

impl Conv {
    fn sizes(&self, x: &Shape, weight: &Shape) -> Result<Sizes> {
        let (batch, height, width, channels) = x.dims4()?;
        let (kernel_height, kernel_width, group_in, out) = weight.dims4()?;
        let ConvParams { stride, padding, groups, .. } = self.params;
        if groups == 0 || group_in * groups != channels || !out.is_multiple_of(groups) {
            bail!(
                "convolution of {channels} channels in {groups} groups with weights for {group_in} in a group and {out} out"
            );
        }
        let shape = kernel::Shape { kernel: [kernel_height, kernel_width], channels, out, groups, stride, padding };
        match shape.output(height, width) {
            Some(out) if stride > 0 && batch * channels * shape.out * kernel_height * kernel_width > 0 => {
                Ok(Sizes { batch, height, width, shape, out })
            }
            _ => bail!(
                "a {kernel_height} x {kernel_width} kernel at stride {stride} does not fit {height} x {width} with padding {padding}"
            ),
        }
    }
}

/// Calls `f` with a computation for the type of the tensors: kernels for `f32`, also for `bf16`; plain loops for `f64`.
macro_rules! by_type {
    ($first:expr, $([$name:ident: $storage:expr, $layout:expr]),*; $f32:expr, $f64:expr) => {
        match $first.dtype() {
            DType::F32 => {
                $(let $name: &[f32] = values($storage, $layout)?;)*
                CpuStorage::F32($f32)
            }
            DType::F64 => {
                $(let $name: &[f64] = values($storage, $layout)?;)*
                CpuStorage::F64($f64)
            }
            DType::BF16 => {
                $(let $name = &all_widened(values($storage, $layout)?)[..];)*
                CpuStorage::BF16(all_narrowed(&$f32))
            }
            other => bail!("convolution of {other:?}: expected f32, f64 or bf16"),
        }
    };
}

/// Rounded to the nearest, halves to the even one. `half`'s own looks for NaN first, which no compiler vectorises; here one stays a NaN, except those
/// whose payload is all ones, which no CPU makes.
#[inline(always)]
pub(super) fn narrowed(value: f32) -> bf16 {
    let bits = value.to_bits();
    bf16::from_bits((bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16)
}

/// The same number.
#[inline(always)]
pub(super) fn widened(value: bf16) -> f32 {
    f32::from_bits(u32::from(value.to_bits()) << 16)
}

/// Numbers that one task converts.
const CHUNK: usize = 1 << 14;

fn all_widened(values: &[bf16]) -> Vec<f32> {
    converted(values, 0.0, widened)
}

fn all_narrowed(values: &[f32]) -> Vec<bf16> {
    converted(values, bf16::ZERO, narrowed)
}

#[inline(always)]
fn converted<A: Copy + Sync, B: Copy + Send + Sync>(
    values: &[A],
    zero: B,
    convert: impl Fn(A) -> B + Sync + Send,
) -> Vec<B> {
    let fill = |(): &mut (), part: usize, to: &mut [B]| {
        Level::best().run(
            #[inline(always)]
            || to.iter_mut().zip(&values[part * CHUNK..]).for_each(|(to, from)| *to = convert(*from)),
        );
    };
    in_parts(zero, values.len(), CHUNK, || (), fill)
}

/// The values of a contiguous tensor in its storage.
pub(super) fn values<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<T>()?[start..end]),
        None => bail!("expected a contiguous tensor"),
    }
}

impl CustomOp3 for Conv {
    fn name(&self) -> &'static str {
        "conv2d-nhwc"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let s = self.sizes(x_layout.shape(), weight_layout.shape())?;
        if bias_layout.shape().dims1()? != s.shape.out {
            bail!("a bias of {:?} for {} channels", bias_layout.shape(), s.shape.out);
        }
        let shape = Shape::from((s.batch, s.out[0], s.out[1], s.shape.out));
        let relu = self.params.activation == Activation::Relu;
        if x.dtype() == DType::BF16
            && let Some(tiled) = Tiled::new(&s)
        {
            let bias = all_widened(values(bias, bias_layout)?);
            let y = tiled.forward(values(x, x_layout)?, values(weight, weight_layout)?, &bias, relu);
            return Ok((CpuStorage::BF16(y), shape));
        }
        let y = by_type!(
            x, [xs: x, x_layout], [ws: weight, weight_layout], [bs: bias, bias_layout];
            cpu::forward(Level::best(), &s, xs, ws, bs, relu),
            {
                let mut y = reference::forward(&s, xs, ws, bs);
                if relu {
                    y.iter_mut().for_each(|y| *y = y.max(0.0));
                }
                y
            }
        );
        Ok((y, shape))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        weight: &CudaStorage,
        weight_layout: &Layout,
        _bias: &CudaStorage,
        _bias_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let s = self.sizes(x_layout.shape(), weight_layout.shape())?;
        let shape = Shape::from((s.batch, s.out[0], s.out[1], s.shape.out));
        Ok((cuda::forward(&self.params, (x, x_layout), (weight, weight_layout), &shape)?, shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = match self.params.activation {
            Activation::None => grad.contiguous()?,
            Activation::Relu => (grad * y.gt(0.0)?.to_dtype(grad.dtype())?)?.contiguous()?,
        };
        // The first layer's input is data: nobody asks for its gradient, and it would cost as much as a forward pass.
        let dx = match x.track_op() {
            true => Some(input_gradient(weight, &grad, x.shape(), &self.params)?),
            false => None,
        };
        let dw = weight_gradient(x, &grad, weight.shape(), &self.params)?;
        // Training has no bias: batch normalisation has one.
        let db = if bias.track_op() { Some(grad.flatten_to(2)?.sum(0)?) } else { None };
        Ok((dx, Some(dw), db))
    }
}

/// The gradient of a convolution's input, given that of its output (before any activation).
pub(super) fn input_gradient(weight: &Tensor, grad: &Tensor, x: &Shape, params: &ConvParams) -> Result<Tensor> {
    let conv = &Conv { params: *params };
    weight.contiguous()?.apply_op2_no_bwd(&grad.contiguous()?, &InputGradient { conv, x })
}

/// The gradient of a convolution's weights, likewise.
pub(super) fn weight_gradient(x: &Tensor, grad: &Tensor, weight: &Shape, params: &ConvParams) -> Result<Tensor> {
    let conv = &Conv { params: *params };
    x.contiguous()?.apply_op2_no_bwd(&grad.contiguous()?, &WeightGradient { conv, weight })
}

struct InputGradient<'a> {
    conv: &'a Conv,
    x: &'a Shape,
}

struct WeightGradient<'a> {
    conv: &'a Conv,
    weight: &'a Shape,
}

impl candle_core::CustomOp2 for InputGradient<'_> {
    fn name(&self) -> &'static str {
        "conv2d-nhwc-input-gradient"
    }

    fn cpu_fwd(&self, w: &CpuStorage, wl: &Layout, grad: &CpuStorage, gl: &Layout) -> Result<(CpuStorage, Shape)> {
        let s = self.conv.sizes(self.x, wl.shape())?;
        if w.dtype() == DType::BF16
            && let Some(tiled) = Tiled::new(&s)
            && let Some(dx) = tiled.input_gradient(values(grad, gl)?, values(w, wl)?)
        {
            return Ok((CpuStorage::BF16(dx), self.x.clone()));
        }
        let dx = by_type!(
            w, [ws: w, wl], [gs: grad, gl];
            cpu::input_gradient(Level::best(), &s, gs, ws),
            reference::input_gradient(&s, gs, ws)
        );
        Ok((dx, self.x.clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, w: &CudaStorage, wl: &Layout, grad: &CudaStorage, gl: &Layout) -> Result<(CudaStorage, Shape)> {
        self.conv.sizes(self.x, wl.shape())?;
        Ok((cuda::input_gradient(&self.conv.params, (w, wl), (grad, gl), self.x)?, self.x.clone()))
    }
}

impl candle_core::CustomOp2 for WeightGradient<'_> {
    fn name(&self) -> &'static str {
        "conv2d-nhwc-weight-gradient"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, grad: &CpuStorage, gl: &Layout) -> Result<(CpuStorage, Shape)> {
        let s = self.conv.sizes(xl.shape(), self.weight)?;
        if x.dtype() == DType::BF16
            && let Some(tiled) = Tiled::new(&s)
        {
            let dw = tiled.weight_gradient(values(x, xl)?, values(grad, gl)?);
            return Ok((CpuStorage::BF16(all_narrowed(&dw)), self.weight.clone()));
        }
        let dw = by_type!(
            x, [xs: x, xl], [gs: grad, gl];
            cpu::weight_gradient(Level::best(), &s, xs, gs),
            reference::weight_gradient(&s, xs, gs)
        );
        Ok((dw, self.weight.clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, xl: &Layout, grad: &CudaStorage, gl: &Layout) -> Result<(CudaStorage, Shape)> {
        self.conv.sizes(xl.shape(), self.weight)?;
        Ok((cuda::weight_gradient(&self.conv.params, (x, xl), (grad, gl), self.weight)?, self.weight.clone()))
    }
}

#[cfg(test)]
mod tests;
