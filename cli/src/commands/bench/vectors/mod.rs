//! Rows of numbers out of files that others write, each format in a file of its own.

mod bytes;
mod hdf5;
mod npy;
mod vecs;

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};

/// The most floats of a row: as many as the index takes.
const DIMENSIONS_MAX: usize = 65_536;

/// Rows of one length, one behind the other.
pub(super) struct Vectors {
    dimensions: usize,
    values: Vec<f32>,
}

/// What one file holds.
pub(super) struct Read {
    pub(super) vectors: Vectors,
    /// Of files that come with queries.
    pub(super) queries: Option<Vectors>,
    /// Rows that are said to be the nearest of each query by their angle, nearest first, where the file comes with them.
    pub(super) neighbors: Option<Vec<Vec<u64>>>,
}

impl From<Vectors> for Read {
    fn from(vectors: Vectors) -> Self {
        Self { vectors, queries: None, neighbors: None }
    }
}

/// Reads the first `limit` vectors of a file, whose name says what it is, and scales them and its queries to unit length.
///
/// # Errors
/// Names the file, what was expected and what was found.
pub(super) fn read(path: &Path, limit: usize) -> anyhow::Result<Read> {
    let read = || -> anyhow::Result<Read> {
        let open = || anyhow::Ok(BufReader::with_capacity(1 << 20, File::open(path)?));
        let mut read: Read = match path.extension().and_then(|extension| extension.to_str()) {
            Some("fvecs") => vecs::read(open()?, vecs::Number::F32, limit)?.into(),
            Some("bvecs") => vecs::read(open()?, vecs::Number::U8, limit)?.into(),
            Some("npy") => npy::read(open()?, limit)?.into(),
            Some("hdf5" | "h5") => hdf5::read(path, limit)?,
            _ => bail!("expected a name that ends in .fvecs, .bvecs, .npy, .hdf5 or .h5"),
        };
        ensure!(read.vectors.count() > 0, "holds no vectors");
        read.vectors.normalise()?;
        if let Some(queries) = &mut read.queries {
            queries.normalise().context("test")?;
        }
        Ok(read)
    };
    read().with_context(|| path.display().to_string())
}

/// Writes vectors as an array for NumPy, replacing what is there.
///
/// # Errors
/// Names the file.
pub(super) fn write(path: &Path, vectors: &Vectors) -> anyhow::Result<()> {
    let write = || -> anyhow::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        npy::write(&mut file, vectors)?;
        Ok(file.flush()?)
    };
    write().with_context(|| path.display().to_string())
}

impl Vectors {
    /// `values`: whole rows of `dimensions`.
    pub(super) fn new(dimensions: usize, values: Vec<f32>) -> Self {
        assert!(dimensions > 0 && values.len().is_multiple_of(dimensions), "vectors are whole rows");
        Self { dimensions, values }
    }

    pub(super) fn dimensions(&self) -> usize {
        self.dimensions
    }

    pub(super) fn count(&self) -> usize {
        self.values.len() / self.dimensions
    }

    pub(super) fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.values.chunks_exact(self.dimensions)
    }

    pub(super) fn truncate(&mut self, count: usize) {
        self.values.truncate(count.saturating_mul(self.dimensions));
    }

    /// Scales each row to unit length.
    ///
    /// # Errors
    /// Names the first row for which that can't be done.
    pub(super) fn normalise(&mut self) -> anyhow::Result<()> {
        for (at, row) in self.values.chunks_exact_mut(self.dimensions).enumerate() {
            ensure!(row.iter().all(|x| x.is_finite()), "row {at} holds a number that is not finite");
            // In f64 no square overflows or vanishes.
            let length = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            ensure!(length > 0.0, "row {at} is all zeros, and has no direction");
            row.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
        }
        Ok(())
    }

    /// Takes `count` rows out, spread evenly over all. Fewer than there are.
    pub(super) fn hold_out(&mut self, count: usize) -> Self {
        let all = self.count();
        let mut held = Vec::with_capacity(count * self.dimensions);
        let mut kept = Vec::with_capacity((all - count) * self.dimensions);
        for (at, row) in self.values.chunks_exact(self.dimensions).enumerate() {
            // Where the share of those held out reaches the next whole number.
            let taken = (at + 1) * count / all > at * count / all;
            if taken { &mut held } else { &mut kept }.extend_from_slice(row);
        }
        self.values = kept;
        Self::new(self.dimensions, held)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn a_row_without_a_direction_is_named() {
        let message = |values: &[f32]| Vectors::new(2, values.to_vec()).normalise().unwrap_err().to_string();
        assert_eq!(message(&[1.0, 0.0, 0.0, 0.0]), "row 1 is all zeros, and has no direction");
        assert_eq!(message(&[1.0, f32::NAN]), "row 0 holds a number that is not finite");
        assert_eq!(message(&[1.0, 0.0, 1.0, f32::INFINITY]), "row 1 holds a number that is not finite");
        // The largest and the smallest numbers have one.
        let mut extreme = Vectors::new(2, vec![f32::MAX, f32::MAX, 1e-45, 0.0]);
        extreme.normalise().unwrap();
        assert_eq!(extreme.values, [0.5f32.sqrt(), 0.5f32.sqrt(), 1.0, 0.0]);
    }

    #[test]
    fn held_out_rows_are_spread_and_the_rest_stays_in_order() {
        let mut vectors = Vectors::new(1, (0..10).map(|at| at as f32).collect());
        let held = vectors.hold_out(3);
        assert_eq!(held.values, [3.0, 6.0, 9.0]);
        assert_eq!(vectors.values, [0.0, 1.0, 2.0, 4.0, 5.0, 7.0, 8.0]);
    }

    #[test]
    fn random_bytes_behind_any_beginning_are_an_error_or_rows() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let header = b"\x93NUMPY\x01\x00\x40\x00{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }";
        let beginnings: [&[u8]; 5] =
            [b"", b"\x93NUMPY\x01\x00\x20\x00", header, b"\x02\x00\x00\x00", b"\x89HDF\r\n\x1a\n\x00"];
        for round in 0..3000 {
            let mut bytes = beginnings[round % beginnings.len()].to_vec();
            bytes.extend((0..rng.random_range(0..200)).map(|_| rng.random::<u8>()));
            let found = [
                vecs::read(bytes.as_slice(), vecs::Number::F32, 100).map(Read::from),
                vecs::read(bytes.as_slice(), vecs::Number::U8, 100).map(Read::from),
                npy::read(bytes.as_slice(), 100).map(Read::from),
                hdf5::read_bytes(&bytes, 100),
            ];
            for mut read in found.into_iter().flatten() {
                assert!(read.vectors.count() <= 100);
                // Rows may hold anything, so they may have no direction.
                let _ = read.vectors.normalise();
            }
        }
    }
}
