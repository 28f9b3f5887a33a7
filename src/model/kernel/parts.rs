//! Vectors that threads make part by part: memory is first touched by the thread that fills it, while it is in its cache.
//!
//! `vec![0.0; n]` writes zeros on one thread, and every number then comes from memory a second time.

use std::mem::MaybeUninit;

use rayon::prelude::*;

/// Numbers from an address on that is a whole number of cache lines, so that no register is read from two.
#[derive(Debug, Default)]
pub(crate) struct Aligned<T> {
    values: Vec<T>,
    start: usize,
    length: usize,
}

/// Bytes in a cache line.
const LINE: usize = 64;

impl<T: Copy + Default> Aligned<T> {
    /// As many zeros, where others were.
    pub(crate) fn zeros(&mut self, length: usize) -> &mut [T] {
        self.values.clear();
        self.sized(length)
    }

    /// As many numbers: those of before, or zeros.
    pub(crate) fn sized(&mut self, length: usize) -> &mut [T] {
        self.values.resize(self.values.len().max(length + LINE / size_of::<T>()), T::default());
        // The standard library may refuse to tell; then it is only slower.
        self.start = self.values.as_ptr().align_offset(LINE).min(LINE / size_of::<T>());
        self.length = length;
        &mut self.values[self.start..][..length]
    }

    pub(crate) fn values(&self) -> &[T] {
        &self.values[self.start..][..self.length]
    }
}

/// A vector of `length` numbers, made in parts of `part` numbers (the last may be shorter).
///
/// - `zero`: what every number is at first.
/// - `start`: what threads begin with: buffers, say.
/// - `fill`: hears the number of a part and the part, full of `zero`.
#[expect(unsafe_code, reason = "safe Rust has no way to let threads initialise parts of one vector")]
pub(crate) fn in_parts<T: Copy + Send + Sync, S>(
    zero: T,
    length: usize,
    part: usize,
    start: impl Fn() -> S + Sync + Send,
    fill: impl Fn(&mut S, usize, &mut [T]) + Sync + Send,
) -> Vec<T> {
    let mut values = Vec::with_capacity(length);
    let parts = values.spare_capacity_mut()[..length].par_chunks_mut(part.max(1));
    parts.enumerate().for_each_init(start, |state, (index, part)| {
        part.fill(MaybeUninit::new(zero));
        // SAFETY: every number of the part was written just now.
        let part = unsafe { std::slice::from_raw_parts_mut(part.as_mut_ptr().cast::<T>(), part.len()) };
        fill(state, index, part);
    });
    // SAFETY: the parts cover the first `length` numbers, and every one of them was written.
    unsafe { values.set_len(length) };
    values
}
