//! The numbers of a tensor on the CPU as a slice, to read and to change in place.
//!
//! candle lends them to operations only. So a closure becomes an operation, and the locks of two tensors nest as the closures do.

use std::cell::RefCell;

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Storage, Tensor, bail};

/// Calls `f` with the values of a contiguous `f32` tensor, to be changed.
pub(super) fn change(tensor: &Tensor, f: impl FnMut(&mut [f32]) -> Result<()>) -> Result<()> {
    tensor.inplace_op1(&Change(RefCell::new(f)))
}

struct Change<F>(RefCell<F>);

impl<F: FnMut(&mut [f32]) -> Result<()>> InplaceOp1 for Change<F> {
    fn name(&self) -> &'static str {
        "change-in-place"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        match (storage, layout.contiguous_offsets()) {
            (CpuStorage::F32(values), Some((start, end))) => (self.0.borrow_mut())(&mut values[start..end]),
            _ => bail!("expected contiguous f32 values, found {layout:?}"),
        }
    }
}

/// Calls `f` with the values of an `f32` tensor.
pub(super) fn read<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(storage), Some((start, end))) => Ok(f(&storage.as_slice::<f32>()?[start..end])),
        _ => bail!("expected values on the CPU, found {layout:?}"),
    }
}
