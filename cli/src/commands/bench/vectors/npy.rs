//! `.npy`: one array of NumPy (its manual, `numpy.lib.format`, versions 1 to 3).
//!
//! | bytes        | field   | meaning                                                              |
//! |-------------:|---------|----------------------------------------------------------------------|
//! |            6 | magic   | `\x93NUMPY`                                                          |
//! |            2 | version | 1.0, 2.0 or 3.0                                                      |
//! |       2 or 4 | length  | of the header, little-endian; four bytes since version 2             |
//! |       length | header  | a Python dictionary: `descr`, `fortran_order`, `shape`               |
//! | rows x width | numbers | row behind row, unless `fortran_order`                               |

use std::io::{self, Read, Write};

use anyhow::{Context as _, bail, ensure};

use super::{DIMENSIONS_MAX, Vectors, bytes};

/// Longer than any header of an array of two dimensions.
const HEADER_MAX: usize = 1 << 16;

/// Reads the first `limit` rows of an array of two dimensions, of `float32` or `float64`.
pub(super) fn read(mut file: impl Read, limit: usize) -> anyhow::Result<Vectors> {
    let Header { wide, rows, dimensions } = header(&mut file)?;
    let (mut values, mut buffer) = (Vec::new(), Vec::new());
    let wanted = dimensions * if wide { 8 } else { 4 };
    for row in 0..rows.min(limit) {
        let read = bytes::next(&mut file, wanted, &mut buffer)?;
        ensure!(read == wanted, "ends inside row {row} of {rows}: {read} bytes of {wanted}");
        if wide {
            values.extend(buffer.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes) as f32));
        } else {
            values.extend(buffer.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
        }
    }
    Ok(Vectors::new(dimensions, values))
}

/// Writes an array of `float32`.
pub(super) fn write(file: &mut impl Write, vectors: &Vectors) -> io::Result<()> {
    let shape = format!("({}, {})", vectors.count(), vectors.dimensions());
    let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    // Ten bytes come before it and a line break ends it; the numbers begin at a multiple of 64.
    let length = (10 + text.len() + 1).next_multiple_of(64) - 10;
    file.write_all(b"\x93NUMPY\x01\x00")?;
    file.write_all(&(length as u16).to_le_bytes())?;
    writeln!(file, "{text:<width$}", width = length - 1)?;
    for x in vectors.rows().flatten() {
        file.write_all(&x.to_le_bytes())?;
    }
    Ok(())
}

struct Header {
    /// `float64`.
    wide: bool,
    rows: usize,
    dimensions: usize,
}

fn header(file: &mut impl Read) -> anyhow::Result<Header> {
    let mut buffer = Vec::new();
    bytes::next(file, 8, &mut buffer)?;
    ensure!(buffer.starts_with(b"\x93NUMPY") && buffer.len() == 8, "does not begin as an array of NumPy does");
    let length_bytes = match buffer[6] {
        1 => 2,
        2 | 3 => 4,
        found => bail!("array format {found}, expected 1 to 3"),
    };
    ensure!(bytes::next(file, length_bytes, &mut buffer)? == length_bytes, "ends inside its header");
    let length = buffer.iter().rev().fold(0, |length, byte| length << 8 | usize::from(*byte));
    ensure!(length <= HEADER_MAX, "a header of {length} bytes, expected at most {HEADER_MAX}");
    ensure!(bytes::next(file, length, &mut buffer)? == length, "ends inside its header");
    let text = String::from_utf8_lossy(&buffer);

    let value = |key: &str| {
        let (_, rest) = text.split_once(&format!("'{key}':")).with_context(|| format!("its header has no {key}"))?;
        anyhow::Ok(rest.trim_start())
    };
    let kind = value("descr")?;
    let kind = kind.strip_prefix('\'').and_then(|rest| rest.split('\'').next()).unwrap_or("records");
    let wide = match kind {
        "<f4" => false,
        "<f8" => true,
        _ => bail!("an array of {kind}, expected <f4 or <f8 (float32 or float64)"),
    };
    ensure!(
        value("fortran_order")?.starts_with("False"),
        "stored column by column (Fortran order), expected rows: save numpy.ascontiguousarray(array)"
    );
    let shape = value("shape")?.strip_prefix('(').and_then(|rest| rest.split(')').next()).unwrap_or_default();
    let sizes: Option<Vec<usize>> =
        shape.split(',').map(str::trim).filter(|size| !size.is_empty()).map(|size| size.parse().ok()).collect();
    match sizes.as_deref() {
        Some(&[rows, dimensions]) if (1..=DIMENSIONS_MAX).contains(&dimensions) => {
            Ok(Header { wide, rows, dimensions })
        }
        _ => bail!("an array of shape ({shape}), expected (rows, 1 to {DIMENSIONS_MAX})"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use super::*;

    fn npy(descr: &str, order: &str, shape: &str, numbers: &[u8]) -> Vec<u8> {
        let text = format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n");
        let length = (text.len() as u16).to_le_bytes();
        [b"\x93NUMPY\x01\x00", &length[..], text.as_bytes(), numbers].concat()
    }

    fn message(file: &[u8]) -> String {
        read(file, 9).err().unwrap().to_string()
    }

    #[test]
    fn both_widths_are_read_up_to_the_limit() {
        let (narrow, wide) = ([0.5f32, -1.0].map(f32::to_le_bytes), [0.5f64, -1.0].map(f64::to_le_bytes));
        let narrow = npy("'<f4'", "False", "(2, 1)", narrow.as_flattened());
        let wide = npy("'<f8'", "False", "(2, 1)", wide.as_flattened());
        for file in [narrow, wide] {
            assert_eq!(read(file.as_slice(), 9).unwrap().values, [0.5, -1.0]);
            assert_eq!(read(file.as_slice(), 1).unwrap().values, [0.5]);
        }
    }

    #[test]
    fn what_was_written_is_read_and_refused_when_cut_anywhere() {
        let mut file = Vec::new();
        let vectors = Vectors::new(3, (0..12).map(|x| x as f32).collect());
        write(&mut file, &vectors).unwrap();
        assert_eq!(file.len(), 128 + 48);
        assert_eq!(read(file.as_slice(), 9).unwrap().values, vectors.values);
        for length in 0..file.len() {
            assert!(read(&file[..length], 9).is_err(), "cut at {length}");
        }
        assert_eq!(message(&file[..128 + 13]), "ends inside row 1 of 4: 1 bytes of 12");
    }

    #[test]
    fn what_can_not_be_read_is_named() {
        let cases = [
            (npy("'<f4'", "True", "(2, 1)", &[]), "Fortran order"),
            (npy("'<i8'", "False", "(2, 1)", &[]), "an array of <i8, expected <f4 or <f8"),
            (npy("'>f4'", "False", "(2, 1)", &[]), "an array of >f4"),
            (npy("[('x', '<f4')]", "False", "(2,)", &[]), "an array of records"),
            (npy("'<f4'", "False", "(2,)", &[]), "of shape (2,), expected (rows, 1 to 65536)"),
            (npy("'<f4'", "False", "(2, 0)", &[]), "of shape (2, 0)"),
            (npy("'<f4'", "False", "(2, 99999999999999999999)", &[]), "of shape"),
            (npy("'<f4'", "False", "(9999999999999, 3)", &[0; 7]), "ends inside row 0 of 9999999999999: 7 bytes of 12"),
            (b"\x93NUMPY\x04\x00".to_vec(), "array format 4, expected 1 to 3"),
            (b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec(), "a header of 4294967295 bytes"),
            (b"PK\x03\x04 an npz".to_vec(), "does not begin as an array"),
        ];
        for (file, words) in cases {
            assert!(message(&file).contains(words), "{}", message(&file));
        }
    }
}
