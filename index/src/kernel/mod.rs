//! Distances of vectors and products of codes, as fast as this CPU can.
//!
//! `scalar` is the definition; the others compute the same, exactly for codes and within rounding for vectors, and property tests hold them to
//! it. Inside one kernel, `scan` and `gather` give bit for bit the same distance for the same two vectors, so an answer does not depend on the
//! way it was found.

/// The kernel of the functions `scan`, `gather`, `bytes`, `nibbles`, `columns`, `nibble_columns`, `select` and `insert` of the place it is written in, if this
/// CPU has the features that these are compiled with. Holding the pointers is the proof that they may be called.
macro_rules! kernel_if {
    ($has_features:expr) => {
        ($has_features).then_some($crate::kernel::Kernel {
            // SAFETY: this closure leaves the macro only after the features were seen.
            scan: |query, rows, distances| unsafe { scan(query, rows, distances) },
            // SAFETY: this closure leaves the macro only after the features were seen.
            gather: |query, vectors, picked, distances| unsafe { gather(query, vectors, picked, distances) },
            // SAFETY: this closure leaves the macro only after the features were seen.
            bytes: |query, codes, picked, dots| unsafe { bytes(query, codes, picked, dots) },
            // SAFETY: this closure leaves the macro only after the features were seen.
            nibbles: |query, codes, picked, dots| unsafe { nibbles(query, codes, picked, dots) },
            // SAFETY: this closure leaves the macro only after the features were seen.
            columns: |query, blocks, dots| unsafe { columns(query, blocks, dots) },
            // SAFETY: this closure leaves the macro only after the features were seen.
            nibble_columns: |query, blocks, dots| unsafe { nibble_columns(query, blocks, dots) },
            // SAFETY: this closure leaves the macro only after the features were seen.
            select: |rows, scores, least, selected| unsafe { select(rows, scores, least, selected) },
            // SAFETY: this closure leaves the macro only after the features were seen.
            insert: |sorted, more| unsafe { insert(sorted, more) },
        })
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

pub(crate) use scalar::{dot, largest};

/// Ways to measure. Rows stand one behind the other.
#[derive(Clone, Copy)]
pub(crate) struct Kernel {
    pub(crate) scan: Scan,
    pub(crate) gather: Gather,
    /// Rows of bytes, one for each number of the query: the sum of products.
    pub(crate) bytes: Dots,
    /// Rows of half bytes. Of 128 numbers of the query, the first 64 meet the low halves of 64 bytes, the others the high halves.
    pub(crate) nibbles: Dots,
    /// Rows of bytes, [`COLUMN`] of them side by side: products with all, several times as fast, since no row's sum is spread over lanes.
    pub(crate) columns: Columns,
    /// The same for rows of half bytes.
    pub(crate) nibble_columns: Columns,
    /// Which rows rank before some rank.
    pub(crate) select: Select,
    /// Puts ranks where they belong among some that are in order.
    pub(crate) insert: Insert,
}

/// Rows that stand side by side: first the first four bytes of each of them, then the next four of each.
pub(crate) const COLUMN: usize = 16;

/// `(query, rows, distances)`: sets `distances[i]` to the squared distance of row `i`.
type Scan = fn(&[f32], &[f32], &mut [f32]);

/// `(query, vectors, picked, distances)`: sets `distances[i]` to that of row `picked[i]`, and panics where that row lies outside
/// of `vectors`.
type Gather = fn(&[f32], &[f32], &[u32], &mut [f32]);

/// `(query, codes, picked, dots)`: sets `dots[i]` to the product with row `picked[i]`, and panics where that row lies outside of `codes`. The
/// query has a multiple of 128 numbers, as few that the sums fit.
pub(crate) type Dots = fn(&[i8], &[u8], &[u32], &mut [i32]);

/// `(query, blocks, dots)`: sets `dots[i]` to the product with row `i`, of [`COLUMN`] rows a block. There are as many of both, and the query is as
/// that of [`Dots`].
type Columns = fn(&[i8], &[u8], &mut [i32]);

/// Ranks that are written at once.
pub(crate) const RANKS: usize = 8;

/// `(rows, scores, least, selected)`: puts those [`rank`]s that are greater than `least` in `selected`, in the order of the rows, and returns how
/// many they are. There are as many rows as scores, and [`RANKS`] places more; what is behind the selected ones is anything. What is no row, from 2³¹ on,
/// is not selected.
type Select = fn(&[u32], &[i32], u64, &mut [u64]) -> usize;

/// `(sorted, more)`: puts `more` where they belong among the ranks in `sorted`, which descend, and returns in which place the first of them is. In free
/// places there are zeros; where there is no room for all, the least are left out. There are a multiple of [`RANKS`] places. Puts `more`, at least one,
/// in any order.
type Insert = fn(&mut [u64], &mut [u64]) -> usize;

/// A row, less than 2³¹, and its score in 64 bits that sort by score, then by row: the score, moved to be no less than zero; the row, turned so that
/// lower ones are greater; and a bit that is zero.
pub(crate) fn rank(score: i32, row: u32) -> u64 {
    let (score, row) = (score.cast_unsigned() ^ 1 << 31, !row & u32::MAX >> 1);
    u64::from(score) << 32 | u64::from(row) << 1
}

/// Names a kernel to use instead of the fastest: one of `avx512`, `avx2`, `neon` and `portable` that this CPU has.
const VARIABLE: &str = "VULTUS_CPU_LEVEL";

/// The fastest kernel of this CPU, or the one that `VULTUS_CPU_LEVEL` names; found out once.
pub(crate) fn best() -> Kernel {
    static BEST: OnceLock<Kernel> = OnceLock::new();
    *BEST.get_or_init(|| {
        let named = std::env::var(VARIABLE).ok().and_then(|level| available().find(|(name, _)| *name == level));
        named.or_else(|| available().next()).map_or(scalar::KERNEL, |(_, kernel)| kernel)
    })
}

/// The kernels this CPU has, by name, fastest first.
fn available() -> impl Iterator<Item = (&'static str, Kernel)> {
    #[cfg(target_arch = "x86_64")]
    let special = [("avx512", avx512::detect()), ("avx2", avx2::detect())];
    #[cfg(target_arch = "aarch64")]
    let special = [("neon", neon::detect())];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let special: [(&str, Option<Kernel>); 0] = [];
    special.into_iter().filter_map(|(name, kernel)| Some((name, kernel?))).chain([("portable", scalar::KERNEL)])
}

/// Row `row` of rows of `width`.
#[inline(always)]
fn row<T>(rows: &[T], width: usize, row: u32) -> &[T] {
    &rows[row as usize * width..][..width]
}

/// Bytes that so many rows of `width` bytes take in blocks for [`Kernel::columns`].
pub(crate) fn columns_bytes(rows: usize, width: usize) -> usize {
    rows.next_multiple_of(COLUMN) * width
}

/// Puts a row where [`Kernel::columns`] looks for it.
pub(crate) fn put_in_column(blocks: &mut [u8], row: usize, codes: &[u8]) {
    let block = &mut blocks[row / COLUMN * COLUMN * codes.len()..];
    let fours = block.as_chunks_mut::<4>().0[row % COLUMN..].iter_mut().step_by(COLUMN);
    fours.zip(codes.as_chunks().0).for_each(|(four, codes)| *four = *codes);
}

/// Asks for a row that is measured soon: a walk jumps, and no hardware foresees where to. Only the second level of the cache is asked to have it:
/// fewer can be on their way to the first, and who asks for one more waits.
#[inline(always)]
pub(crate) fn prefetch<T>(row: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in row.chunks(64 / size_of::<T>()) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a hint, and the address is that of a live slice; every x86-64 has SSE.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = row;
}

/// The same for some of the rows of `width` bytes; where there is no such row, nothing is asked for.
#[inline(always)]
pub(crate) fn prefetch_rows(rows: &[u8], width: usize, picked: &[u32]) {
    #[cfg(target_arch = "x86_64")]
    for row in picked {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        for line in (0..width).step_by(64) {
            let at = rows.as_ptr().wrapping_add(*row as usize * width + line);
            // SAFETY: a hint, which fails for no address; every x86-64 has SSE.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (rows, width, picked);
}
