//! Embeddings as NumPy reads them, so that figures can be checked with other people's code.
//!
//! An `.npz` is a zip of `.npy` arrays: here `names`, `<U` strings, and `emb`, `(faces, 128)` of `<f4`, where a face that was
//! not found is a row of zeros. `scripts/lfw_eval.py` takes this file.
//!
//! Format: numpy.lib.format, version 1.0.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::{Embedding, Error, Result};

/// Writes one row a face.
///
/// # Errors
/// [`Error::Io`].
pub fn write_npz<'a>(path: &Path, faces: impl IntoIterator<Item = (&'a str, Option<&'a Embedding>)>) -> Result<()> {
    let (names, rows): (Vec<&str>, Vec<Option<&Embedding>>) = faces.into_iter().unzip();
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(1);
    let mut letters = header(&format!("<U{longest}"), &format!("({},)", names.len()));
    for name in &names {
        let padded = name.chars().chain(std::iter::repeat('\0')).take(longest);
        padded.for_each(|letter| letters.extend(u32::from(letter).to_le_bytes()));
    }
    let mut values = header("<f4", &format!("({}, {})", rows.len(), Embedding::DIMENSIONS));
    for row in rows {
        let row = row.map_or([0.0; Embedding::DIMENSIONS].as_slice(), Embedding::as_slice);
        row.iter().for_each(|value| values.extend(value.to_le_bytes()));
    }
    let write = || -> Result<(), zip::result::ZipError> {
        let mut zip = ZipWriter::new(BufWriter::new(File::create(path)?));
        let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        for (name, bytes) in [("names.npy", letters), ("emb.npy", values)] {
            zip.start_file(name, stored)?;
            zip.write_all(&bytes)?;
        }
        zip.finish()?.flush()?;
        Ok(())
    };
    write().map_err(|error| Error::io(path)(error.into()))
}

/// The start of an array in C order, padded so that the data begins at a multiple of 64 bytes.
fn header(kind: &str, shape: &str) -> Vec<u8> {
    let mut text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
    // Ten bytes come before it, and a line break ends it.
    let padding = (64 - (10 + text.len() + 1) % 64) % 64;
    text.extend(std::iter::repeat_n(' ', padding));
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes
}
