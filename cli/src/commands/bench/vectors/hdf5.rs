//! `.hdf5` as ann-benchmarks has it: datasets `train` and `test`, `neighbors`, and the attribute `distance`.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use hdf5_reader::{Dataset, Datatype, H5Type, Hdf5File, OpenOptions};

use super::{DIMENSIONS_MAX, Read, Vectors};

/// Deflate makes at most so many bytes of one: a claim of more than that is refused before memory is taken for it.
const EXPANSION_MAX: u64 = 1032;

/// Reads `train` up to the limit, and `test` and `neighbors` where they are.
pub(super) fn read(path: &Path, limit: usize) -> anyhow::Result<Read> {
    let bytes = std::fs::metadata(path)?.len();
    gather(&Hdf5File::open_with_options(path, options(bytes))?, bytes, limit)
}

#[cfg(test)]
pub(super) fn read_bytes(bytes: &[u8], limit: usize) -> anyhow::Result<Read> {
    let length = bytes.len() as u64;
    gather(&Hdf5File::from_bytes_with_options(bytes, options(length))?, length, limit)
}

fn options(file_bytes: u64) -> OpenOptions {
    let limit = usize::try_from(file_bytes.saturating_mul(EXPANSION_MAX)).unwrap_or(usize::MAX);
    OpenOptions::default().with_max_read_bytes(limit).with_max_chunk_bytes(limit)
}

fn gather(file: &Hdf5File, file_bytes: u64, limit: usize) -> anyhow::Result<Read> {
    let expected = file.superblock().eof_address;
    ensure!(file_bytes >= expected, "{file_bytes} bytes, expected {expected}: the file was cut");
    let bytes_max = file_bytes.saturating_mul(EXPANSION_MAX);
    let train = file.dataset("train").context("expected a dataset `train`")?;
    let mut vectors = floats(&train, bytes_max).context("train")?;
    let queries = match file.dataset("test") {
        Ok(test) => Some(floats(&test, bytes_max).context("test")?),
        Err(_) => None,
    };
    // Only of all vectors, and by their angles, are they the neighbours of what is measured here.
    let by_angle = || file.root_group().ok()?.attribute("distance").ok()?.read_string().ok();
    let comparable = limit >= vectors.count() && by_angle().is_some_and(|distance| distance == "angular");
    let neighbors = match file.dataset("neighbors") {
        Ok(dataset) if comparable => Some(rows(&dataset, bytes_max).context("neighbors")?),
        _ => None,
    };
    vectors.truncate(limit);
    Ok(Read { vectors, queries, neighbors })
}

fn floats(dataset: &Dataset, bytes_max: u64) -> anyhow::Result<Vectors> {
    let [_, dimensions] = shape(dataset)?;
    ensure!((1..=DIMENSIONS_MAX).contains(&dimensions), "{dimensions} dimensions, expected 1 to {DIMENSIONS_MAX}");
    let values = match dataset.dtype() {
        Datatype::FloatingPoint { size: 4, .. } => values::<f32>(dataset, bytes_max)?,
        Datatype::FloatingPoint { size: 8, .. } => {
            values::<f64>(dataset, bytes_max)?.into_iter().map(|x| x as f32).collect()
        }
        found => bail!("holds {found:?}, expected float32 or float64"),
    };
    Ok(Vectors::new(dimensions, values))
}

fn rows(dataset: &Dataset, bytes_max: u64) -> anyhow::Result<Vec<Vec<u64>>> {
    let [_, width] = shape(dataset)?;
    let values: Vec<i64> = match dataset.dtype() {
        Datatype::FixedPoint { size: 4, signed: true, .. } => {
            values::<i32>(dataset, bytes_max)?.into_iter().map(i64::from).collect()
        }
        Datatype::FixedPoint { size: 8, signed: true, .. } => values(dataset, bytes_max)?,
        found => bail!("holds {found:?}, expected int32 or int64"),
    };
    let rows = values.chunks(width.max(1)).map(|row| row.iter().map(|id| u64::try_from(*id)).collect());
    rows.collect::<Result<_, _>>().context("a row below zero")
}

fn shape(dataset: &Dataset) -> anyhow::Result<[usize; 2]> {
    let sizes = <[u64; 2]>::try_from(dataset.shape());
    let sizes = sizes.map_err(|_| anyhow::anyhow!("of shape {:?}, expected rows and columns", dataset.shape()))?;
    Ok([usize::try_from(sizes[0])?, usize::try_from(sizes[1])?])
}

fn values<T: H5Type + Default>(dataset: &Dataset, bytes_max: u64) -> anyhow::Result<Vec<T>> {
    let [rows, columns] = shape(dataset)?;
    let bytes = rows.checked_mul(columns).and_then(|count| count.checked_mul(size_of::<T>()));
    ensure!(
        bytes.is_some_and(|bytes| bytes as u64 <= bytes_max),
        "claims {rows} x {columns} numbers, more than a file of this size can hold"
    );
    let mut values = vec![T::default(); rows * columns];
    dataset.read_into(&mut values)?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use super::*;

    /// Written by `tests/it/data/make.py`.
    const FILE: &[u8] = include_bytes!("../../../../tests/it/data/tiny.hdf5");

    #[test]
    fn a_file_of_h5py_is_read_with_its_queries_and_neighbors() {
        let found = read_bytes(FILE, 1000).unwrap();
        let queries = found.queries.unwrap();
        assert_eq!((found.vectors.count(), found.vectors.dimensions(), queries.count()), (60, 8, 5));
        let nearest = |query: &[f32]| {
            let dot = |row: &[f32]| row.iter().zip(query).map(|(a, b)| a * b).sum::<f32>();
            let lengths = |row: &[f32]| dot(row) / row.iter().map(|x| x * x).sum::<f32>().sqrt();
            let rows = found.vectors.rows().enumerate();
            rows.max_by(|a, b| lengths(a.1).total_cmp(&lengths(b.1))).unwrap().0 as u64
        };
        let neighbors = found.neighbors.unwrap();
        assert!(queries.rows().zip(&neighbors).all(|(query, given)| given[0] == nearest(query)));
    }

    #[test]
    fn a_file_that_is_cut_or_damaged_anywhere_never_panics() {
        for length in (0..FILE.len()).step_by(3) {
            assert!(read_bytes(&FILE[..length], 1000).is_err(), "cut at {length}");
        }
        for at in 0..FILE.len() {
            let mut bad = FILE.to_vec();
            bad[at] ^= 1 << (at % 8);
            // What was hit may be unused, or one number.
            let _ = read_bytes(&bad, 1000);
        }
    }
}
