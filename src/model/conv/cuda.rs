//! The convolution and its two gradients on NVIDIA GPUs, by cuDNN: NHWC, `f32` (as TF32) and `bf16`, both summed in `f32`.
//!
//! cuDNN wants filters as (out, height, width, in), so ours are transposed on the device on their way in and out. Which algorithm is
//! fastest is asked once for each shape; algorithms, the library's handle and one workspace that only grows are kept a thread,
//! because a handle must not be shared by two.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::cuda_backend::cudarc::cudnn::{
    ConvBackwardData, ConvBackwardFilter, ConvDescriptor, ConvForward, Cudnn, CudnnDataType, FilterDescriptor,
    TensorDescriptor, sys,
};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, DeviceRepr};
use candle_core::cuda_backend::{CudaDType, DeviceId};
use candle_core::{CudaDevice, CudaStorage, DType, Error, Layout, Result, Shape, WithDType, bail};

use super::ConvParams;

/// Values and where they lie.
pub(super) type Input<'a> = (&'a CudaStorage, &'a Layout);

/// `y` of shape `y`, without bias and activation.
pub(super) fn forward(params: &ConvParams, x: Input<'_>, weight: Input<'_>, y: &Shape) -> Result<CudaStorage> {
    let filter = transposed(weight.0, &weight.1.permute(&[3, 0, 1, 2])?)?;
    let problem = Problem::new(params, x.1.shape(), weight.1.shape(), y)?;
    match x.0.dtype() {
        DType::F32 => problem.forward::<f32>(x, &filter),
        DType::BF16 => problem.forward::<half::bf16>(x, &filter),
        other => bail!("convolution of {other:?} on CUDA: expected f32 or bf16"),
    }
}

/// The gradient of an input of shape `x`.
pub(super) fn input_gradient(
    params: &ConvParams,
    weight: Input<'_>,
    grad: Input<'_>,
    x: &Shape,
) -> Result<CudaStorage> {
    let filter = transposed(weight.0, &weight.1.permute(&[3, 0, 1, 2])?)?;
    let problem = Problem::new(params, x, weight.1.shape(), grad.1.shape())?;
    match grad.0.dtype() {
        DType::F32 => problem.input_gradient::<f32>(&filter, grad),
        DType::BF16 => problem.input_gradient::<half::bf16>(&filter, grad),
        other => bail!("convolution of {other:?} on CUDA: expected f32 or bf16"),
    }
}

/// The gradient of a weight of shape `weight`.
pub(super) fn weight_gradient(
    params: &ConvParams,
    x: Input<'_>,
    grad: Input<'_>,
    weight: &Shape,
) -> Result<CudaStorage> {
    let problem = Problem::new(params, x.1.shape(), weight, grad.1.shape())?;
    let filter = match x.0.dtype() {
        DType::F32 => problem.weight_gradient::<f32>(x, grad)?,
        DType::BF16 => problem.weight_gradient::<half::bf16>(x, grad)?,
        other => bail!("convolution of {other:?} on CUDA: expected f32 or bf16"),
    };
    let (height, width, channels, out) = weight.dims4()?;
    transposed(&filter, &Layout::contiguous((out, height, width, channels)).permute(&[1, 2, 3, 0])?)
}

/// A contiguous copy of what `layout` shows of `storage`.
#[expect(unsafe_code, reason = "candle's allocation without zeros")]
fn transposed(storage: &CudaStorage, layout: &Layout) -> Result<CudaStorage> {
    // SAFETY: the copy below writes every value of the new storage.
    let mut copy = unsafe { storage.device().alloc_uninit(layout.shape(), storage.dtype())? };
    storage.copy_strided_src(&mut copy, 0, layout)?;
    Ok(copy)
}

/// All that cuDNN's choice of an algorithm depends on, but for type and direction.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Problem {
    /// Batch, channels, height, width: the order in which cuDNN names sizes of every layout.
    x: [i32; 4],
    filter: [i32; 4],
    y: [i32; 4],
    stride: i32,
    padding: i32,
    groups: i32,
}

type Key = (Problem, DType);

/// An algorithm and the bytes of workspace that it needs.
type Choices<A> = HashMap<Key, (A, usize)>;

/// What is kept between calls, for one device and one thread.
struct Kept {
    handle: Arc<Cudnn>,
    forward: Choices<sys::cudnnConvolutionFwdAlgo_t>,
    input_gradient: Choices<sys::cudnnConvolutionBwdDataAlgo_t>,
    weight_gradient: Choices<sys::cudnnConvolutionBwdFilterAlgo_t>,
    workspace: Option<CudaSlice<u8>>,
}

thread_local! {
    static KEPT: RefCell<HashMap<DeviceId, Kept>> = RefCell::new(HashMap::new());
}

/// The descriptors of one call.
struct Descriptors<T> {
    x: TensorDescriptor<T>,
    filter: FilterDescriptor<T>,
    y: TensorDescriptor<T>,
    conv: ConvDescriptor<f32>,
}

/// What a type must be for cuDNN and for candle.
trait Number: CudaDType + DeviceRepr + CudnnDataType + WithDType {}

impl Number for f32 {}
impl Number for half::bf16 {}

impl Problem {
    fn new(params: &ConvParams, x: &Shape, weight: &Shape, y: &Shape) -> Result<Self> {
        let number = |size: usize| i32::try_from(size).map_err(Error::wrap);
        let sizes = |shape: &Shape| -> Result<[i32; 4]> {
            let (n, h, w, c) = shape.dims4()?;
            Ok([number(n)?, number(c)?, number(h)?, number(w)?])
        };
        let (height, width, channels, out) = weight.dims4()?;
        let x = sizes(x)?;
        Ok(Self {
            x,
            filter: [number(out)?, number(channels)?, number(height)?, number(width)?],
            y: sizes(y)?,
            stride: number(params.stride)?,
            padding: number(params.padding)?,
            groups: x[1] / number(channels)?.max(1),
        })
    }

    fn descriptors<T: Number>(&self, handle: &Arc<Cudnn>) -> Result<Descriptors<T>> {
        let nhwc = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
        let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        // Sums are `f32` for both types; this math allows TF32 and `bf16` tensor cores.
        let conv = handle.create_conv2d::<f32>([self.padding; 2], [self.stride; 2], [1, 1], mode);
        let mut conv = conv.map_err(Error::wrap)?;
        conv.set_math_type(sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH).map_err(Error::wrap)?;
        conv.set_group_count(self.groups).map_err(Error::wrap)?;
        Ok(Descriptors {
            x: handle.create_4d_tensor(nhwc, self.x).map_err(Error::wrap)?,
            filter: handle.create_4d_filter(nhwc, self.filter).map_err(Error::wrap)?,
            y: handle.create_4d_tensor(nhwc, self.y).map_err(Error::wrap)?,
            conv,
        })
    }

    #[expect(unsafe_code, reason = "cuDNN reads and writes what its descriptors say")]
    fn forward<T: Number>(&self, x: Input<'_>, filter: &CudaStorage) -> Result<CudaStorage> {
        let device = x.0.device().clone();
        let (x, filter) = (view::<T>(x, self.x)?, all::<T>(filter, self.filter)?);
        // SAFETY: cuDNN writes all of it before anyone reads.
        let mut out = unsafe { device.alloc::<T>(count(self.y))? };
        kept(&device, |kept| {
            let d = self.descriptors::<T>(&kept.handle)?;
            let op = ConvForward { conv: &d.conv, x: &d.x, w: &d.filter, y: &d.y };
            let (algorithm, bytes) = match kept.forward.get(&(*self, T::DTYPE)) {
                Some(choice) => *choice,
                None => {
                    let algorithm = op.pick_algorithm().map_err(Error::wrap)?;
                    let bytes = op.get_workspace_size(algorithm).map_err(Error::wrap)?;
                    *kept.forward.entry((*self, T::DTYPE)).or_insert((algorithm, bytes))
                }
            };
            let workspace = workspace(&mut kept.workspace, &device, bytes)?;
            // SAFETY: every buffer is on this device and has as many values as its descriptor says.
            unsafe { op.launch(algorithm, workspace, (T::one(), T::zero()), &x, &filter, &mut out) }
                .map_err(Error::wrap)
        })?;
        Ok(CudaStorage::wrap_cuda_slice(out, device))
    }

    #[expect(unsafe_code, reason = "cuDNN reads and writes what its descriptors say")]
    fn input_gradient<T: Number>(&self, filter: &CudaStorage, grad: Input<'_>) -> Result<CudaStorage> {
        let device = grad.0.device().clone();
        let (filter, grad) = (all::<T>(filter, self.filter)?, view::<T>(grad, self.y)?);
        // SAFETY: cuDNN writes all of it before anyone reads.
        let mut out = unsafe { device.alloc::<T>(count(self.x))? };
        kept(&device, |kept| {
            let d = self.descriptors::<T>(&kept.handle)?;
            let op = ConvBackwardData { conv: &d.conv, dx: &d.x, w: &d.filter, dy: &d.y };
            let (algorithm, bytes) = match kept.input_gradient.get(&(*self, T::DTYPE)) {
                Some(choice) => *choice,
                None => {
                    let algorithm = op.pick_algorithm().map_err(Error::wrap)?;
                    let bytes = op.get_workspace_size(algorithm).map_err(Error::wrap)?;
                    *kept.input_gradient.entry((*self, T::DTYPE)).or_insert((algorithm, bytes))
                }
            };
            let workspace = workspace(&mut kept.workspace, &device, bytes)?;
            // SAFETY: every buffer is on this device and has as many values as its descriptor says.
            unsafe { op.launch(algorithm, workspace, (T::one(), T::zero()), &mut out, &filter, &grad) }
                .map_err(Error::wrap)
        })?;
        Ok(CudaStorage::wrap_cuda_slice(out, device))
    }

    #[expect(unsafe_code, reason = "cuDNN reads and writes what its descriptors say")]
    fn weight_gradient<T: Number>(&self, x: Input<'_>, grad: Input<'_>) -> Result<CudaStorage> {
        let device = x.0.device().clone();
        let (x, grad) = (view::<T>(x, self.x)?, view::<T>(grad, self.y)?);
        // SAFETY: cuDNN writes all of it before anyone reads.
        let mut out = unsafe { device.alloc::<T>(count(self.filter))? };
        kept(&device, |kept| {
            let d = self.descriptors::<T>(&kept.handle)?;
            let op = ConvBackwardFilter { conv: &d.conv, x: &d.x, dw: &d.filter, dy: &d.y };
            let (algorithm, bytes) = match kept.weight_gradient.get(&(*self, T::DTYPE)) {
                Some(choice) => *choice,
                None => {
                    let algorithm = op.pick_algorithm().map_err(Error::wrap)?;
                    let bytes = op.get_workspace_size(algorithm).map_err(Error::wrap)?;
                    *kept.weight_gradient.entry((*self, T::DTYPE)).or_insert((algorithm, bytes))
                }
            };
            let workspace = workspace(&mut kept.workspace, &device, bytes)?;
            // SAFETY: every buffer is on this device and has as many values as its descriptor says.
            unsafe { op.launch(algorithm, workspace, (T::one(), T::zero()), &x, &mut out, &grad) }.map_err(Error::wrap)
        })?;
        Ok(CudaStorage::wrap_cuda_slice(out, device))
    }
}

/// Calls `f` with what this thread keeps for `device`.
fn kept<R>(device: &CudaDevice, f: impl FnOnce(&mut Kept) -> Result<R>) -> Result<R> {
    KEPT.with_borrow_mut(|all| {
        if let Some(kept) = all.get_mut(&device.id()) {
            return f(kept);
        }
        let kept = Kept {
            handle: Cudnn::new(device.cuda_stream()).map_err(Error::wrap)?,
            forward: HashMap::new(),
            input_gradient: HashMap::new(),
            weight_gradient: HashMap::new(),
            workspace: None,
        };
        f(all.entry(device.id()).or_insert(kept))
    })
}

/// At least so many bytes on the device. Calls on one stream run one after the other, so they can share them.
#[expect(unsafe_code, reason = "candle's allocation without zeros")]
fn workspace<'a>(
    kept: &'a mut Option<CudaSlice<u8>>,
    device: &CudaDevice,
    bytes: usize,
) -> Result<Option<&'a mut CudaSlice<u8>>> {
    if bytes > kept.as_ref().map_or(0, CudaSlice::len) {
        // The old one goes first, so that the two need not fit at once.
        *kept = None;
        // SAFETY: cuDNN reads of its workspace only what it wrote.
        *kept = Some(unsafe { device.alloc::<u8>(bytes)? });
    }
    Ok(kept.as_mut().filter(|_| bytes > 0))
}

fn count(sizes: [i32; 4]) -> usize {
    sizes.iter().map(|size| *size as usize).product()
}

/// The values of a contiguous tensor that has the sizes of its descriptor.
fn view<T: Number>((storage, layout): Input<'_>, sizes: [i32; 4]) -> Result<CudaView<'_, T>> {
    match layout.contiguous_offsets() {
        Some((start, end)) if end - start == count(sizes) => Ok(storage.as_cuda_slice::<T>()?.slice(start..end)),
        _ => bail!("convolution of {:?} on CUDA: expected {sizes:?}, contiguous", layout.dims()),
    }
}

/// All values of a storage that has the sizes of its descriptor.
fn all<T: Number>(storage: &CudaStorage, sizes: [i32; 4]) -> Result<CudaView<'_, T>> {
    let slice = storage.as_cuda_slice::<T>()?;
    match slice.len() == count(sizes) {
        true => Ok(slice.slice(..)),
        false => bail!("convolution on CUDA: {} weights, expected {sizes:?}", slice.len()),
    }
}
