//! What a filter costs, and what it leaves of recall: the figures that the index chooses by, between a walk and a scan.

use std::time::Instant;

use roaring::RoaringTreemap;
use serde::Serialize;
use vultus_index::{Effort, Index, Neighbor, Search};

use super::measure;
use super::vectors::Vectors;

/// How answers change where only a share of the vectors is allowed, in the mean of all queries.
#[derive(Serialize)]
pub(super) struct Filtered {
    /// Of the vectors, spread evenly over all.
    pub(super) share: f64,
    pub(super) allowed: u64,
    pub(super) recall: f64,
    pub(super) microseconds: f64,
    /// Where all that are allowed are compared.
    pub(super) exact_microseconds: f64,
}

/// At the width that a search has by default.
///
/// # Errors
/// Those of the index.
pub(super) fn measure(index: &Index, queries: &Vectors, k: usize, share: f64) -> anyhow::Result<Filtered> {
    let count = index.count() as u64;
    let reached = |at: u64| (at as f64 * share) as u64;
    let allowed: RoaringTreemap = (0..count).filter(|at| reached(at + 1) > reached(*at)).collect();
    let search = Search { k, allowed: Some(&allowed), ..Search::default() };
    let (found, microseconds) = timed(index, queries, &search)?;
    let (truth, exact_microseconds) = timed(index, queries, &Search { effort: Effort::Exact, ..search })?;
    let recall = measure::recall(&found, &truth);
    Ok(Filtered { share, allowed: allowed.len(), recall, microseconds, exact_microseconds })
}

/// All answers, and microseconds of one.
fn timed(index: &Index, queries: &Vectors, search: &Search<'_>) -> anyhow::Result<(Vec<Vec<Neighbor>>, f64)> {
    let begin = Instant::now();
    let found = queries.rows().map(|query| Ok(index.search(query, search)?)).collect::<anyhow::Result<Vec<_>>>()?;
    Ok((found, 1e6 * begin.elapsed().as_secs_f64() / queries.count() as f64))
}
