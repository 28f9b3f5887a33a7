//! Builds an index and asks it, with the time that each takes. Vectors are known by their row.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use rayon::prelude::*;
use roaring::RoaringTreemap;
use serde::{Deserialize, Serialize};
use vultus_index::{Effort, Index, Kept, Neighbor, Options, Search};

use super::machine;
use super::vectors::Vectors;

/// What building took. Its JSON is part of what `bench` prints.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Built {
    pub(super) build_seconds: f64,
    /// Of all threads.
    pub(super) build_cpu_seconds: Option<f64>,
    /// Of the whole folder.
    pub(super) index_bytes: u64,
}

/// What opening took, until the first answer was there.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Opened {
    pub(super) first_answer_seconds: f64,
    /// Bytes in memory before the index was opened.
    pub(super) resident_before_bytes: Option<u64>,
    pub(super) resident_bytes: Option<u64>,
}

/// Answers to queries, and how long each took.
pub(super) struct Answers {
    pub(super) neighbors: Vec<Vec<Neighbor>>,
    pub(super) seconds: f64,
    pub(super) seconds_each: Vec<f64>,
}

/// Builds an index of unit vectors in a folder that is new or empty.
///
/// # Errors
/// A folder that holds something; those of the index.
pub(super) fn build(folder: &Path, vectors: &Vectors, kept: Kept) -> anyhow::Result<Built> {
    let is_empty = fs::read_dir(folder).map_or(true, |mut files| files.next().is_none());
    ensure!(is_empty, "{}: expected a new folder, or an empty one", folder.display());
    let (begin, cpu_begin) = (Instant::now(), machine::cpu_seconds());
    let mut index = Index::open(folder, Options { kept, ..options(vectors.dimensions()) })?;
    add(&mut index, vectors)?;
    index.seal(1)?;
    index.settle()?;
    let build_seconds = begin.elapsed().as_secs_f64();
    let build_cpu_seconds = Option::zip(machine::cpu_seconds(), cpu_begin).map(|(end, begin)| end - begin);
    let mut index_bytes = 0;
    for file in fs::read_dir(folder)? {
        index_bytes += file?.metadata()?.len();
    }
    Ok(Built { build_seconds, build_cpu_seconds, index_bytes })
}

/// An index that only compares, since nothing was sealed: all of every vector is in memory.
///
/// - `folder`: a new or empty one.
///
/// # Errors
/// Those of the index.
pub(super) fn unsealed(folder: &Path, vectors: &Vectors) -> anyhow::Result<Index> {
    let mut index = Index::open(folder, options(vectors.dimensions()))?;
    add(&mut index, vectors)?;
    Ok(index)
}

fn add(index: &mut Index, vectors: &Vectors) -> anyhow::Result<()> {
    for (row, vector) in vectors.rows().enumerate() {
        index.add(row as u64, vector).with_context(|| format!("row {row}"))?;
    }
    Ok(())
}

/// Opens an index and asks it once.
///
/// # Errors
/// Those of the index.
pub(super) fn open(folder: &Path, query: &[f32]) -> anyhow::Result<(Index, Opened)> {
    let resident_before_bytes = machine::resident_bytes();
    let begin = Instant::now();
    let index = Index::open(folder, options(query.len()))?;
    index.search(query, &Search::default())?;
    let first_answer_seconds = begin.elapsed().as_secs_f64();
    let opened = Opened { first_answer_seconds, resident_before_bytes, resident_bytes: machine::resident_bytes() };
    Ok((index, opened))
}

fn options(dimensions: usize) -> Options {
    Options { dimensions, ..Options::default() }
}

/// Asks one query after the other, in this thread.
///
/// # Errors
/// Those of the index.
pub(super) fn search(index: &Index, queries: &Vectors, k: usize, ef: usize) -> anyhow::Result<Answers> {
    let search = Search { k, effort: Effort::Width(ef), ..Search::default() };
    let mut neighbors = Vec::with_capacity(queries.count());
    let mut seconds_each = Vec::with_capacity(queries.count());
    let begin = Instant::now();
    for query in queries.rows() {
        let begin = Instant::now();
        neighbors.push(index.search(query, &search)?);
        seconds_each.push(begin.elapsed().as_secs_f64());
    }
    Ok(Answers { neighbors, seconds: begin.elapsed().as_secs_f64(), seconds_each })
}

/// The true neighbors of each query, by comparing with every vector; not timed, so all threads take part.
///
/// # Errors
/// Those of the index.
pub(super) fn truth(index: &Index, queries: &Vectors, k: usize) -> anyhow::Result<Vec<Vec<Neighbor>>> {
    let rows: Vec<&[f32]> = queries.rows().collect();
    let search = Search { k, effort: Effort::Exact, ..Search::default() };
    rows.into_par_iter().map(|query| Ok(index.search(query, &search)?)).collect()
}

/// The same neighbors at the distances that another index has them at.
///
/// # Errors
/// Those of the index.
pub(super) fn measured_by(
    index: &Index,
    queries: &Vectors,
    found: &[Vec<Neighbor>],
) -> anyhow::Result<Vec<Vec<Neighbor>>> {
    let queries: Vec<&[f32]> = queries.rows().collect();
    let measured = |(query, found): (&[f32], &Vec<Neighbor>)| {
        let allowed: RoaringTreemap = found.iter().map(|found| found.id).collect();
        let search = Search { k: found.len(), effort: Effort::Exact, allowed: Some(&allowed), within: None };
        Ok(index.search(query, &search)?)
    };
    queries.into_par_iter().zip(found).map(measured).collect()
}

/// The share of the true neighbors that was found. A vector as near as the farthest of them is as good: copies of one vector have
/// different rows.
pub(super) fn recall(found: &[Vec<Neighbor>], truth: &[Vec<Neighbor>]) -> f64 {
    let hits = |(found, truth): (&Vec<Neighbor>, &Vec<Neighbor>)| {
        let farthest = truth.last().map_or(f32::NEG_INFINITY, |last| last.distance);
        found.iter().filter(|found| found.distance <= farthest).count().min(truth.len())
    };
    let wanted: usize = truth.iter().map(Vec::len).sum();
    found.iter().zip(truth).map(hits).sum::<usize>() as f64 / wanted as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_a_neighbor_counts_and_a_farther_vector_does_not() {
        let list = |list: &[(u64, f32)]| list.iter().map(|&(id, distance)| Neighbor { id, distance }).collect();
        let truth = [list(&[(1, 0.1), (2, 0.2)]), list(&[(3, 0.0), (4, 0.5)])];
        let found = [list(&[(1, 0.1), (9, 0.2)]), list(&[(3, 0.0), (8, 0.6)])];
        assert_eq!(recall(&found, &truth), 0.75);
        assert_eq!(recall(&[Vec::new(), Vec::new()], &truth), 0.0);
    }
}
