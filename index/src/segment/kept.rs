//! What a segment has of its vectors: all of them, or something shorter that is read as vectors of unit length.

use std::borrow::Cow;
use std::convert::Infallible;
use std::ops::Range;

use super::Row;
use crate::kernel::prefetch;
use crate::nearest::Nearest;
use crate::quantiser::{Quantiser, code_bytes};
use crate::{Kept, fine, kernel, scan};

/// Rows that are decoded at a time where all are compared.
const BLOCK: usize = 256;

/// Bytes of a row of vectors.
pub(super) fn row_bytes(kept: Kept, dimensions: usize) -> usize {
    match kept {
        Kept::F32 => 4 * dimensions,
        Kept::Bf16 => 2 * dimensions,
        Kept::Codes => fine::bytes(dimensions),
    }
}

/// Gives what is kept of each row to `put`.
///
/// - `codes`: of the rows, as the quantiser gives them; needed for what is read together with them.
pub(super) fn encode_rows<E>(
    kept: Kept,
    quantiser: &Quantiser<'_>,
    rows: &[Row<'_>],
    codes: &[u8],
    mut put: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut bytes = Vec::new();
    let each = codes.len() / rows.len().max(1);
    for (at, row) in rows.iter().enumerate() {
        bytes.clear();
        match kept {
            Kept::F32 => bytes.extend_from_slice(bytemuck::cast_slice(row.vector)),
            Kept::Bf16 => bytes.extend(row.vector.iter().flat_map(|x| bf16(*x).to_le_bytes())),
            Kept::Codes => fine::encode(quantiser, row.vector, &codes[at * each..][..each], &mut bytes),
        }
        put(&bytes)?;
    }
    Ok(())
}

/// Rows as they will be read, one behind the other; `None` where that is as they are.
pub(super) fn read_back(kept: Kept, quantiser: &Quantiser<'_>, rows: &[Row<'_>], codes: &[u8]) -> Option<Vec<f32>> {
    if kept == Kept::F32 {
        return None;
    }
    let mut bytes = Vec::new();
    let Ok(()) = encode_rows(kept, quantiser, rows, codes, |row| {
        bytes.extend_from_slice(row);
        Ok::<(), Infallible>(())
    });
    let dimensions = rows.first()?.vector.len();
    let vectors = Vectors::view(kept, &bytes, *quantiser, codes);
    Some(vectors.rows(0..rows.len(), dimensions).into_owned())
}

/// Vectors, one for each row.
#[derive(Clone, Copy)]
pub(super) enum Vectors<'a> {
    F32(&'a [f32]),
    /// The upper halves of `f32`, little-endian.
    Bf16(&'a [u8]),
    Codes {
        quantiser: Quantiser<'a>,
        codes: &'a [u8],
        fine: &'a [u8],
    },
}

impl<'a> Vectors<'a> {
    /// - `bytes`: what is kept of the rows, aligned for it; `quantiser`, `codes`: needed where no more is kept than these and some bits.
    pub(super) fn view(kept: Kept, bytes: &'a [u8], quantiser: Quantiser<'a>, codes: &'a [u8]) -> Self {
        match kept {
            Kept::F32 => Self::F32(bytemuck::cast_slice(bytes)),
            Kept::Bf16 => Self::Bf16(bytes),
            Kept::Codes => Self::Codes { quantiser, codes, fine: bytes },
        }
    }

    /// Some of the rows, one behind the other.
    pub(super) fn rows(&self, rows: Range<usize>, dimensions: usize) -> Cow<'a, [f32]> {
        if let Self::F32(vectors) = self {
            return Cow::Borrowed(&vectors[rows.start * dimensions..rows.end * dimensions]);
        }
        let mut decoded = vec![0.0; rows.len() * dimensions];
        rows.zip(decoded.chunks_exact_mut(dimensions)).for_each(|(row, vector)| self.decode(row, vector));
        Cow::Owned(decoded)
    }

    /// Asks for what is read of a row.
    pub(super) fn prefetch(&self, row: u32, dimensions: usize) {
        let row = row as usize;
        match self {
            Self::F32(vectors) => prefetch(&vectors[row * dimensions..][..dimensions]),
            Self::Bf16(bytes) => prefetch(&bytes[2 * row * dimensions..][..2 * dimensions]),
            Self::Codes { fine, .. } => prefetch(&fine[row * fine::bytes(dimensions)..][..fine::bytes(dimensions)]),
        }
    }

    /// The squared distances of some rows from a query, one for each. Panics where there is no such row.
    pub(super) fn distances(&self, query: &[f32], rows: &[u32], distances: &mut [f32]) {
        if let Self::F32(vectors) = self {
            (kernel::best().gather)(query, vectors, rows, distances);
            return;
        }
        let mut decoded = vec![0.0; rows.len() * query.len()];
        let vectors = decoded.chunks_exact_mut(query.len());
        rows.iter().zip(vectors).for_each(|(row, vector)| self.decode(*row as usize, vector));
        (kernel::best().scan)(query, &decoded, distances);
    }

    /// Offers every row that counts.
    ///
    /// - `key`: gives the row's key in the answers, or `None` where it does not count.
    pub(super) fn scan(
        &self,
        query: &[f32],
        count: usize,
        nearest: &mut Nearest,
        mut key: impl FnMut(usize) -> Option<u64>,
    ) {
        for first in (0..count).step_by(BLOCK) {
            let vectors = self.rows(first..count.min(first + BLOCK), query.len());
            scan::every_row(query, &vectors, nearest, |row| key(first + row));
        }
    }

    fn decode(&self, row: usize, vector: &mut [f32]) {
        let dimensions = vector.len();
        match self {
            Self::F32(vectors) => return vector.copy_from_slice(&vectors[row * dimensions..][..dimensions]),
            Self::Bf16(halves) => {
                let halves = &halves.as_chunks().0[row * dimensions..][..dimensions];
                let whole = |half: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*half)) << 16);
                vector.iter_mut().zip(halves).for_each(|(x, half)| *x = whole(half));
            }
            Self::Codes { quantiser, codes, fine } => {
                let [codes, fine] = [(codes, code_bytes(dimensions)), (fine, fine::bytes(dimensions))]
                    .map(|(bytes, each)| &bytes[row * each..][..each]);
                fine::decode(quantiser, codes, fine, vector);
            }
        }
        // It was of unit length, so most of what rounding added along it goes.
        let length = kernel::dot(vector, vector).sqrt();
        vector.iter_mut().for_each(|x| *x /= length.max(f32::MIN_POSITIVE));
    }
}

/// The upper half of a float, to the nearest, ties to even.
fn bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    (bits.saturating_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_the_nearest_and_ties_are_even() {
        for (x, expected) in [(1.0, 0x3f80), (1.003, 0x3f80), (1.005, 0x3f81), (-0.1, 0xbdcd), (0.0, 0)] {
            assert_eq!(bf16(x), expected, "{x}");
        }
        let [below, above] = [0x3f80_8000, 0x3f81_8000].map(f32::from_bits);
        assert_eq!([bf16(below), bf16(above)], [0x3f80, 0x3f82]);
    }
}
