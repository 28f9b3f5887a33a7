//! Matrix products of strided slices: the one door to the `gemm` crate.

use candle_core::WithDType;

/// A matrix inside a slice.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a, T> {
    values: &'a [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// Row after row, without gaps.
    pub(super) fn rows(values: &'a [T], rows: usize, columns: usize) -> Self {
        assert_eq!(values.len(), rows * columns, "a matrix fills its slice");
        Self { values, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// The same values, rows and columns exchanged.
    pub(super) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// `c += a · b`, `c` row after row; on the calling thread.
#[expect(unsafe_code, reason = "the gemm crate takes pointers and strides")]
pub(super) fn multiply<T: WithDType>(a: &Matrix<'_, T>, b: &Matrix<'_, T>, c: &mut [T]) {
    assert_eq!(a.columns, b.rows, "the inner sizes of a product agree");
    assert_eq!(c.len(), a.rows * b.columns, "the product fills its slice");
    // SAFETY: `Matrix` guarantees that rows and columns at its strides lie inside its slice (it fills the slice in one order
    // or the other), the asserts above do so for `c`, whose rows are `b.columns` long; `c` is borrowed mutably, so it overlaps
    // neither input.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            c.as_mut_ptr(),
            1,
            b.columns as isize,
            true,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            T::one(),
            T::one(),
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
