//! `.fvecs` and `.bvecs`: the files of SIFT1M, GIST1M and SIFT1B (corpus-texmex.irisa.fr).
//!
//! | bytes             | field      | meaning                                         |
//! |------------------:|------------|-------------------------------------------------|
//! |                 4 | dimensions | numbers that follow; the same in every row      |
//! | 4 or 1 x as many  | numbers    | little-endian `f32` in .fvecs, `u8` in .bvecs   |
//!
//! Rows one behind the other until the file ends; there is no header.

use std::io::Read;

use anyhow::ensure;

use super::{DIMENSIONS_MAX, Vectors, bytes};

/// What the numbers of a file are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    F32,
    U8,
}

/// Reads the first `limit` rows.
pub(super) fn read(mut file: impl Read, number: Number, limit: usize) -> anyhow::Result<Vectors> {
    let (mut dimensions, mut values, mut buffer) = (0, Vec::new(), Vec::new());
    for row in 0..limit {
        let read = bytes::next(&mut file, 4, &mut buffer)?;
        if read == 0 {
            break;
        }
        let Ok(word) = <[u8; 4]>::try_from(buffer.as_slice()) else {
            anyhow::bail!("ends inside row {row}: {read} bytes of 4 that hold its dimensions");
        };
        let found = u32::from_le_bytes(word) as usize;
        ensure!(
            (1..=DIMENSIONS_MAX).contains(&found),
            "row {row} claims {found} dimensions, expected 1 to {DIMENSIONS_MAX}"
        );
        if row == 0 {
            dimensions = found;
        }
        ensure!(found == dimensions, "row {row} has {found} dimensions, expected {dimensions} as in row 0");
        let wanted = match number {
            Number::F32 => 4 * dimensions,
            Number::U8 => dimensions,
        };
        let read = bytes::next(&mut file, wanted, &mut buffer)?;
        ensure!(read == wanted, "ends inside row {row}: {read} bytes of {wanted}");
        match number {
            Number::F32 => values.extend(buffer.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes))),
            Number::U8 => values.extend(buffer.iter().map(|byte| f32::from(*byte))),
        }
    }
    Ok(Vectors::new(dimensions.max(1), values))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use super::*;

    /// Three rows of two numbers.
    fn fvecs() -> Vec<u8> {
        let row = |at: u8| [2u32.to_le_bytes(), f32::from(at).to_le_bytes(), 0.5f32.to_le_bytes()].concat();
        (0..3).flat_map(row).collect()
    }

    fn message(file: &[u8]) -> String {
        read(file, Number::F32, 9).err().unwrap().to_string()
    }

    #[test]
    fn rows_are_read_up_to_the_limit() {
        let rows = |limit| read(fvecs().as_slice(), Number::F32, limit).unwrap();
        assert_eq!((rows(9).count(), rows(2).count(), rows(9).dimensions()), (3, 2, 2));
        assert_eq!(rows(9).rows().last(), Some(&[2.0, 0.5][..]));
        let bytes = [2, 0, 0, 0, 7, 255];
        assert_eq!(read(&bytes[..], Number::U8, 9).unwrap().rows().next(), Some(&[7.0, 255.0][..]));
    }

    #[test]
    fn a_file_that_is_cut_inside_a_row_is_refused_wherever_that_is() {
        let good = fvecs();
        for length in 0..good.len() {
            let read = read(&good[..length], Number::F32, 9);
            match length % 12 {
                0 => assert_eq!(read.unwrap().count(), length / 12),
                _ => {
                    let message = read.err().unwrap().to_string();
                    assert!(message.starts_with(&format!("ends inside row {}", length / 12)), "{length}: {message}");
                }
            }
        }
    }

    #[test]
    fn rows_that_differ_and_absurd_dimensions_are_named() {
        let mut file = fvecs();
        file[12] = 3;
        assert_eq!(message(&file), "row 1 has 3 dimensions, expected 2 as in row 0");
        for absurd in [0, u32::MAX] {
            file[..4].copy_from_slice(&absurd.to_le_bytes());
            assert_eq!(message(&file), format!("row 0 claims {absurd} dimensions, expected 1 to 65536"));
        }
    }
}
