//! One NHWC convolution, differentiable, for every net of this crate: training, embedding and detection.
//!
//! Candle's own convolution is NCHW, slow on CPUs and slower still backwards. This one gathers the patches of a few output
//! rows at a time, so that they stay in the L2 cache, and multiplies them with the weights by the `gemm` crate.
//!
//! Gradients: dX scatters `dY · Wᵀ` back through the same gathering; dW is `patchesᵀ · dY`, summed over fixed groups of photos, so
//! that the result does not depend on the number of threads.

#[cfg(feature = "cuda")]
mod cuda;
mod matmul;
mod patches;

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor, WithDType, bail};
use rayon::prelude::*;

use self::matmul::{Matrix, multiply};
use self::patches::Geometry;

/// How a convolution walks over its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvParams {
    /// Pixels between two outputs, in both directions.
    pub stride: usize,
    /// Zeros assumed around the input, on each side.
    pub padding: usize,
    /// What follows each output.
    pub activation: Activation,
    /// Who does the work.
    pub threads: Threads,
}

impl Default for ConvParams {
    fn default() -> Self {
        Self { stride: 1, padding: 0, activation: Activation::None, threads: Threads::All }
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

/// Who does the work of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// The calling thread: for pipelines that are parallel already.
    One,
    /// The pool, one photo of the batch a task.
    All,
}

/// Convolution: `y[n, i, j, o] = b[o] + Σ x[n, i·stride + p - padding, j·stride + q - padding, c] · w[p, q, c, o]`.
///
/// - `x`: `(batch, height, width, in)`, `f32` or `f64`.
/// - `weight`: `(kernel height, kernel width, in, out)`.
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

/// Photos whose weight gradients are summed by one task: fixed, so that the order of additions is.
const GROUP: usize = 8;

impl Conv {
    fn geometry(&self, x: &Shape, weight: &Shape) -> Result<Geometry> {
        let (batch, height, width, channels) = x.dims4()?;
        let (kernel_height, kernel_width, weight_channels, out) = weight.dims4()?;
        if weight_channels != channels {
            bail!("convolution of {channels} channels with weights for {weight_channels}");
        }
        let ConvParams { stride, padding, .. } = self.params;
        if stride == 0 || height + 2 * padding < kernel_height || width + 2 * padding < kernel_width {
            bail!("a {kernel_height} x {kernel_width} kernel does not fit {height} x {width} with padding {padding}");
        }
        Ok(Geometry { batch, height, width, channels, kernel_height, kernel_width, out, stride, padding })
    }

    fn forward<T: WithDType>(&self, g: &Geometry, x: &[T], weight: &[T], bias: &[T]) -> Vec<T> {
        let mut y = vec![T::zero(); g.batch * g.pixels_out() * g.out];
        let weight = Matrix::rows(weight, g.depth(), g.out);
        let rows = g.rows_a_block();
        let one = |(x, y): (&[T], &mut [T])| {
            let mut buffer = Vec::new();
            for (block, y) in y.chunks_mut(rows * g.width_out() * g.out).enumerate() {
                let patches = g.gather(x, block * rows, y.len() / (g.width_out() * g.out), &mut buffer);
                y.chunks_exact_mut(g.out).for_each(|pixel| pixel.copy_from_slice(bias));
                multiply(&patches, &weight, y);
                if self.params.activation == Activation::Relu {
                    y.iter_mut().filter(|v| **v < T::zero()).for_each(|v| *v = T::zero());
                }
            }
        };
        let photo = g.height * g.width * g.channels;
        self.each(x.par_chunks_exact(photo).zip(y.par_chunks_exact_mut(g.pixels_out() * g.out)), one);
        y
    }

    fn backward_input<T: WithDType>(&self, g: &Geometry, grad: &[T], weight: &[T]) -> Vec<T> {
        let photo = g.height * g.width * g.channels;
        let mut dx = vec![T::zero(); g.batch * photo];
        let weight = Matrix::rows(weight, g.depth(), g.out).transposed();
        let rows = g.rows_a_block();
        let one = |(grad, dx): (&[T], &mut [T])| {
            let mut buffer = Vec::new();
            for (block, grad) in grad.chunks(rows * g.width_out() * g.out).enumerate() {
                let pixels = grad.len() / g.out;
                buffer.clear();
                buffer.resize(pixels * g.depth(), T::zero());
                multiply(&Matrix::rows(grad, pixels, g.out), &weight, &mut buffer);
                g.scatter(&buffer, block * rows, pixels / g.width_out(), dx);
            }
        };
        self.each(grad.par_chunks_exact(g.pixels_out() * g.out).zip(dx.par_chunks_exact_mut(photo)), one);
        dx
    }

    fn backward_weight<T: WithDType>(&self, g: &Geometry, x: &[T], grad: &[T]) -> Vec<T> {
        let photo = g.height * g.width * g.channels;
        let rows = g.rows_a_block();
        let partial = |(x, grad): (&[T], &[T])| {
            let mut dw = vec![T::zero(); g.depth() * g.out];
            let mut buffer = Vec::new();
            for (x, grad) in x.chunks_exact(photo).zip(grad.chunks_exact(g.pixels_out() * g.out)) {
                for (block, grad) in grad.chunks(rows * g.width_out() * g.out).enumerate() {
                    let pixels = grad.len() / g.out;
                    let patches = g.gather(x, block * rows, pixels / g.width_out(), &mut buffer);
                    multiply(&patches.transposed(), &Matrix::rows(grad, pixels, g.out), &mut dw);
                }
            }
            dw
        };
        let groups = x.par_chunks(GROUP * photo).zip(grad.par_chunks(GROUP * g.pixels_out() * g.out));
        let partials: Vec<Vec<T>> = groups.map(partial).collect();
        let mut dw = vec![T::zero(); g.depth() * g.out];
        for partial in partials {
            dw.iter_mut().zip(partial).for_each(|(sum, value)| *sum += value);
        }
        dw
    }

    fn each<I: IndexedParallelIterator>(&self, photos: I, one: impl Fn(I::Item) + Sync + Send) {
        match self.params.threads {
            Threads::All => photos.for_each(one),
            // A chunk as long as the batch is one task, and a task of one is run by the caller.
            Threads::One => photos.with_min_len(usize::MAX).for_each(one),
        }
    }
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
        let g = self.geometry(x_layout.shape(), weight_layout.shape())?;
        if bias_layout.shape().dims1()? != g.out {
            bail!("a bias of {:?} for {} channels", bias_layout.shape(), g.out);
        }
        let shape = Shape::from((g.batch, g.height_out(), g.width_out(), g.out));
        let y = match x.dtype() {
            DType::F32 => CpuStorage::F32(self.forward(
                &g,
                values(x, x_layout)?,
                values(weight, weight_layout)?,
                values(bias, bias_layout)?,
            )),
            DType::F64 => CpuStorage::F64(self.forward(
                &g,
                values(x, x_layout)?,
                values(weight, weight_layout)?,
                values(bias, bias_layout)?,
            )),
            other => bail!("convolution of {other:?}: expected f32 or f64"),
        };
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
        let g = self.geometry(x_layout.shape(), weight_layout.shape())?;
        let shape = Shape::from((g.batch, g.height_out(), g.width_out(), g.out));
        Ok((cuda::forward(&self.params, (x, x_layout), (weight, weight_layout), &shape)?, shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = match self.params.activation {
            Activation::None => grad.contiguous()?,
            Activation::Relu => (grad * y.gt(0.0)?.to_dtype(grad.dtype())?)?.contiguous()?,
        };
        // The first layer's input is data: nobody asks for its gradient, and it would cost as much as a forward pass.
        let dx = match x.track_op() {
            true => Some(weight.contiguous()?.apply_op2_no_bwd(&grad, &InputGradient { conv: self, x: x.shape() })?),
            false => None,
        };
        let dw = x.contiguous()?.apply_op2_no_bwd(&grad, &WeightGradient { conv: self, weight: weight.shape() })?;
        let db = grad.flatten_to(2)?.sum(0)?;
        Ok((dx, Some(dw), Some(db)))
    }
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
        let g = self.conv.geometry(self.x, wl.shape())?;
        let dx = match w.dtype() {
            DType::F64 => CpuStorage::F64(self.conv.backward_input(&g, values(grad, gl)?, values(w, wl)?)),
            _ => CpuStorage::F32(self.conv.backward_input(&g, values(grad, gl)?, values(w, wl)?)),
        };
        Ok((dx, self.x.clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, w: &CudaStorage, wl: &Layout, grad: &CudaStorage, gl: &Layout) -> Result<(CudaStorage, Shape)> {
        self.conv.geometry(self.x, wl.shape())?;
        Ok((cuda::input_gradient(&self.conv.params, (w, wl), (grad, gl), self.x)?, self.x.clone()))
    }
}

impl candle_core::CustomOp2 for WeightGradient<'_> {
    fn name(&self) -> &'static str {
        "conv2d-nhwc-weight-gradient"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, grad: &CpuStorage, gl: &Layout) -> Result<(CpuStorage, Shape)> {
        let g = self.conv.geometry(xl.shape(), self.weight)?;
        let dw = match x.dtype() {
            DType::F64 => CpuStorage::F64(self.conv.backward_weight(&g, values(x, xl)?, values(grad, gl)?)),
            _ => CpuStorage::F32(self.conv.backward_weight(&g, values(x, xl)?, values(grad, gl)?)),
        };
        Ok((dw, self.weight.clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, xl: &Layout, grad: &CudaStorage, gl: &Layout) -> Result<(CudaStorage, Shape)> {
        self.conv.geometry(xl.shape(), self.weight)?;
        Ok((cuda::weight_gradient(&self.conv.params, (x, xl), (grad, gl), self.weight)?, self.weight.clone()))
    }
}

#[cfg(test)]
mod tests;
