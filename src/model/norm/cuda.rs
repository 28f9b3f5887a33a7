//! Batch normalisation on NVIDIA GPUs, by the kernels of `norm.cu`: nothing leaves the device, and the same input gives the same bits.
//!
//! Each function allocates what it returns and launches on the device's stream; shapes are checked by the caller.

use std::ffi::c_int;

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::CudaDType;
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaSlice, CudaView, DeviceRepr, LaunchConfig, PushKernelArg,
};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Error, Layout, Result, Shape, Storage, Tensor, WithDType, bail};
use half::bf16;

use super::Gradients;
use crate::model::conv::Activation;

const PTX: &str = include_str!(concat!(env!("OUT_DIR"), "/norm.ptx"));

/// Channels and rows of one block that sums: `norm.cu` says the same.
const BLOCK: [u32; 2] = [32, 16];
/// The most slabs that rows are summed in, and the rows that each lane of a slab has at least, where there are enough.
const SLABS: u32 = 256;
const ROWS: u32 = 8;
/// Threads of a block that changes values, and the most blocks.
const THREADS: u32 = 256;
const BLOCKS: u32 = 4096;

/// Values and where they lie.
pub(super) type Input<'a> = (&'a CudaStorage, &'a Layout);

/// What a type must be for candle and for the kernels.
trait Number: CudaDType + DeviceRepr + WithDType {
    /// The last part of a kernel's name.
    const NAME: &'static str;
}

impl Number for f32 {
    const NAME: &'static str = "f32";
}

impl Number for bf16 {
    const NAME: &'static str = "bf16";
}

/// `(2, channels)`: means, then variances, `f32`.
pub(super) fn moments(x: Input<'_>, channels: usize) -> Result<CudaStorage> {
    match x.0.dtype() {
        DType::F32 => moments_as::<f32>(x, channels),
        DType::BF16 => moments_as::<bf16>(x, channels),
        other => bail!("moments of {other:?} on CUDA: expected f32 or bf16"),
    }
}

/// The output, in the type of `x`.
pub(super) fn forward(
    x: Input<'_>,
    affine: Input<'_>,
    residual: Option<Input<'_>>,
    moments: &Tensor,
    activation: Activation,
) -> Result<CudaStorage> {
    match x.0.dtype() {
        DType::F32 => forward_as::<f32>(x, affine, residual, moments, activation),
        DType::BF16 => forward_as::<bf16>(x, affine, residual, moments, activation),
        other => bail!("normalising {other:?} on CUDA: expected f32 or bf16"),
    }
}

/// What a gradient is computed from; all of one shape but for `affine` and `moments`.
pub(super) struct Backward<'a> {
    pub(super) x: &'a Tensor,
    pub(super) affine: &'a Tensor,
    pub(super) y: &'a Tensor,
    pub(super) grad: &'a Tensor,
    pub(super) moments: &'a Tensor,
    pub(super) activation: Activation,
}

impl Backward<'_> {
    /// Of the input, of the affine, and of the residual where there was one.
    pub(super) fn gradients(&self, residual: bool) -> Result<Gradients> {
        match self.x.dtype() {
            DType::F32 => self.gradients_as::<f32>(residual),
            DType::BF16 => self.gradients_as::<bf16>(residual),
            other => bail!("normalising {other:?} on CUDA: expected f32 or bf16"),
        }
    }

    #[expect(unsafe_code, reason = "kernels read and write what their sizes say")]
    fn gradients_as<T: Number>(&self, residual: bool) -> Result<Gradients> {
        let held = [self.x, self.y, self.grad, self.moments, self.affine].map(Tensor::storage_and_layout);
        let [x, y, grad, moments, affine] = held.each_ref().map(|(storage, layout)| (&**storage, *layout));
        let (x, y, grad) = (on_cuda(x)?, on_cuda(y)?, on_cuda(grad)?);
        let device = x.0.device().clone();
        let stream = device.cuda_stream();
        let (x, y, grad) = (view::<T>(x)?, view::<T>(y)?, view::<T>(grad)?);
        let (moments, affine) = (view::<f32>(on_cuda(moments)?)?, view::<f32>(on_cuda(affine)?)?);
        let sizes = Sizes::new(x.len(), affine.len() / 2)?;
        if [y.len(), grad.len()] != [x.len(); 2] || moments.len() != affine.len() {
            bail!("gradients of {} values by {} and {}", x.len(), y.len(), grad.len());
        }
        let relu = c_int::from(self.activation == Activation::Relu);
        let beside = c_int::from(residual);
        let mut partial = sizes.partial(&device)?;
        let slab = function::<T>(&device, "gradients_slab")?;
        let mut launch = stream.launch_builder(&slab);
        launch.arg(&x).arg(&y).arg(&grad).arg(&moments).arg(&mut partial);
        launch.arg(&sizes.rows).arg(&sizes.channels).arg(&sizes.slab).arg(&relu);
        // SAFETY: arguments are those of the kernel; values are rows times channels, and `partial` is what `sizes` says.
        unsafe { launch.launch(sizes.sums()) }.map_err(Error::wrap)?;
        // SAFETY: the kernels write all of them before anyone reads.
        let (mut d_affine, mut terms) =
            unsafe { (device.alloc::<f32>(affine.len())?, device.alloc::<f32>(affine.len())?) };
        let end = kernel(&device, "gradients_end")?;
        let mut launch = stream.launch_builder(&end);
        launch.arg(&partial).arg(&moments).arg(&mut d_affine).arg(&mut terms);
        launch.arg(&sizes.rows).arg(&sizes.channels).arg(&sizes.slabs);
        // SAFETY: as above; one thread a channel.
        unsafe { launch.launch(sizes.ends()) }.map_err(Error::wrap)?;
        // SAFETY: the kernel writes all of both; of the second only where there is a residual, and nobody has it otherwise.
        let (mut dx, mut d_residual) =
            unsafe { (device.alloc::<T>(x.len())?, device.alloc::<T>(if residual { x.len() } else { 1 })?) };
        let values = function::<T>(&device, "differentiate")?;
        let mut launch = stream.launch_builder(&values);
        launch.arg(&x).arg(&y).arg(&grad).arg(&moments).arg(&affine).arg(&terms).arg(&mut dx).arg(&mut d_residual);
        launch.arg(&sizes.values).arg(&sizes.channels).arg(&beside).arg(&relu);
        // SAFETY: arguments are those of the kernel, which touches `d_residual` only when `beside` is set.
        unsafe { launch.launch(sizes.changes()) }.map_err(Error::wrap)?;
        let shape = self.x.shape();
        Ok(Gradients {
            x: tensor(dx, &device, shape),
            affine: tensor(d_affine, &device, self.affine.shape()),
            residual: residual.then(|| tensor(d_residual, &device, shape)),
        })
    }
}

#[expect(unsafe_code, reason = "kernels read and write what their sizes say")]
fn moments_as<T: Number>(x: Input<'_>, channels: usize) -> Result<CudaStorage> {
    let device = x.0.device().clone();
    let stream = device.cuda_stream();
    let x = view::<T>(x)?;
    let sizes = Sizes::new(x.len(), channels)?;
    let mut partial = sizes.partial(&device)?;
    let slab = function::<T>(&device, "moments_slab")?;
    let mut launch = stream.launch_builder(&slab);
    launch.arg(&x).arg(&mut partial).arg(&sizes.rows).arg(&sizes.channels).arg(&sizes.slab);
    // SAFETY: arguments are those of the kernel; `x` is rows times channels, and `partial` is what `sizes` says.
    unsafe { launch.launch(sizes.sums()) }.map_err(Error::wrap)?;
    // SAFETY: the kernel writes all of it before anyone reads.
    let mut moments = unsafe { device.alloc::<f32>(2 * channels)? };
    let end = function::<T>(&device, "moments_end")?;
    let mut launch = stream.launch_builder(&end);
    launch.arg(&x).arg(&partial).arg(&mut moments).arg(&sizes.rows).arg(&sizes.channels).arg(&sizes.slabs);
    // SAFETY: as above; one thread a channel.
    unsafe { launch.launch(sizes.ends()) }.map_err(Error::wrap)?;
    Ok(CudaStorage::wrap_cuda_slice(moments, device))
}

#[expect(unsafe_code, reason = "kernels read and write what their sizes say")]
fn forward_as<T: Number>(
    x: Input<'_>,
    affine: Input<'_>,
    residual: Option<Input<'_>>,
    moments: &Tensor,
    activation: Activation,
) -> Result<CudaStorage> {
    let device = x.0.device().clone();
    let stream = device.cuda_stream();
    let (moments, layout) = moments.storage_and_layout();
    let moments = view::<f32>(on_cuda((&moments, layout))?)?;
    let (x, affine) = (view::<T>(x)?, view::<f32>(affine)?);
    let beside = c_int::from(residual.is_some());
    let relu = c_int::from(activation == Activation::Relu);
    // Without a residual something else stands in its place, and is not read.
    let residual = residual.map(view::<T>).transpose()?.unwrap_or_else(|| x.slice(..));
    let sizes = Sizes::new(x.len(), affine.len() / 2)?;
    if residual.len() != x.len() || moments.len() != affine.len() {
        bail!("normalising {} values with a residual of {}", x.len(), residual.len());
    }
    // SAFETY: the kernel writes all of it before anyone reads.
    let mut y = unsafe { device.alloc::<T>(x.len())? };
    let values = function::<T>(&device, "normalize")?;
    let mut launch = stream.launch_builder(&values);
    launch.arg(&x).arg(&residual).arg(&moments).arg(&affine).arg(&mut y);
    launch.arg(&sizes.values).arg(&sizes.channels).arg(&beside).arg(&relu);
    // SAFETY: arguments are those of the kernel, and as long as it takes them to be.
    unsafe { launch.launch(sizes.changes()) }.map_err(Error::wrap)?;
    Ok(CudaStorage::wrap_cuda_slice(y, device))
}

/// How values are divided among blocks: of the sizes alone, so that sums have one order.
struct Sizes {
    values: u64,
    rows: u32,
    channels: u32,
    /// Rows of a slab.
    slab: u32,
    slabs: u32,
}

impl Sizes {
    fn new(values: usize, channels: usize) -> Result<Self> {
        let number = |size: usize| u32::try_from(size).map_err(Error::wrap);
        if channels == 0 || values == 0 || !values.is_multiple_of(channels) {
            bail!("normalising {values} values of {channels} channels");
        }
        let (rows, channels) = (number(values / channels)?, number(channels)?);
        let slabs = rows.div_ceil(BLOCK[1] * ROWS).min(SLABS);
        Ok(Self { values: values as u64, rows, channels, slab: rows.div_ceil(slabs), slabs })
    }

    #[expect(unsafe_code, reason = "candle's allocation without zeros")]
    fn partial(&self, device: &CudaDevice) -> Result<CudaSlice<f32>> {
        // SAFETY: the kernel writes all of it before anyone reads.
        unsafe { device.alloc::<f32>(2 * self.slabs as usize * self.channels as usize) }
    }

    fn sums(&self) -> LaunchConfig {
        let grid_dim = (self.channels.div_ceil(BLOCK[0]), self.slabs, 1);
        LaunchConfig { grid_dim, block_dim: (BLOCK[0], BLOCK[1], 1), shared_mem_bytes: 0 }
    }

    fn ends(&self) -> LaunchConfig {
        let grid_dim = (self.channels.div_ceil(BLOCK[0]), 1, 1);
        LaunchConfig { grid_dim, block_dim: (BLOCK[0], 1, 1), shared_mem_bytes: 0 }
    }

    fn changes(&self) -> LaunchConfig {
        let blocks = self.values.div_ceil(u64::from(THREADS)).min(u64::from(BLOCKS)) as u32;
        LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 }
    }
}

fn function<T: Number>(device: &CudaDevice, name: &str) -> Result<CudaFunction> {
    kernel(device, &format!("{name}_{}", T::NAME))
}

fn kernel(device: &CudaDevice, name: &str) -> Result<CudaFunction> {
    Ok(device.get_or_load_custom_func(name, "vultus-norm", PTX)?.into_cuda_function())
}

fn on_cuda<'a>((storage, layout): (&'a Storage, &'a Layout)) -> Result<Input<'a>> {
    match storage {
        Storage::Cuda(storage) => Ok((storage, layout)),
        _ => bail!("batch normalisation of tensors on two devices"),
    }
}

/// The values of a contiguous tensor.
fn view<T: Number>((storage, layout): Input<'_>) -> Result<CudaView<'_, T>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(storage.as_cuda_slice::<T>()?.slice(start..end)),
        None => bail!("expected a contiguous tensor"),
    }
}

fn tensor<T: Number>(values: CudaSlice<T>, device: &CudaDevice, shape: &Shape) -> Tensor {
    let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(values, device.clone()));
    Tensor::from_storage(storage, shape.clone(), BackpropOp::none(), false)
}
