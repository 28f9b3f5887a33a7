//! How wide a walk must be to reach a recall, and how wide one with a slack is: measured on the graph that was just built, with its own rows as queries.
//!
//! A row knows its neighbours by its links, which no query does, so the walk may not pass through the row that it looks for neighbours of.

use std::convert::Infallible;

use rayon::prelude::*;

use super::Row;
use super::rerank::rerank;
use crate::graph::{Graph, Measured, Reach, Scratch, Trusted};
use crate::kernel;
use crate::nearest::{Found, Nearest};
use crate::quantiser::Quantiser;
use crate::sieve::{Query, Sieve};
use crate::stop::{Stop, Stopped};

/// Rows that are asked for their neighbours, and at most one in so many. What is found of ten neighbours differs from row to row, by .15 where its mean is .95:
/// so that is known to .007.
const QUERIES: usize = 512;
const QUERY_SHARE: usize = 8;
/// Rows that all queries are compared with at once.
const BLOCK: usize = 256;
/// No search need be wider in the mean, if all recalls were reached by then.
const WIDTH_MAX: f64 = 768.0;

/// What searches with each of [`Graph::SLACKS`] find, of as many neighbours as [`Graph::MEASURED_K`].
///
/// - `rows`, `codes`: in the order of the graph.
pub(super) fn measure(
    rows: &[Row<'_>],
    quantiser: &Quantiser<'_>,
    codes: &[u8],
    graph: &Graph<'_>,
    stop: &Stop,
) -> Result<Measured, Stopped> {
    let count = QUERIES.min(rows.len().div_ceil(QUERY_SHARE));
    let queries: Vec<u32> = (0..count).map(|at| (at * rows.len() / count) as u32).collect();
    let truth = truth(rows, &queries, stop)?;
    let wanted: usize = truth.iter().map(Vec::len).sum();
    let mut measured = Measured::NOTHING;
    // A width, and the recall that it reaches: none finds nothing.
    let mut narrower = (1.0, 0.0);
    for (slack, reached) in Graph::SLACKS.into_iter().zip(&mut measured.reached) {
        stop.check()?;
        let outcome = |scratch: &mut Scratch, (query, truth): (&u32, &Vec<u32>)| {
            let (found, width) = neighbors(rows, *query, quantiser, codes, graph, slack, scratch);
            (truth.iter().filter(|row| found.contains(row)).count(), width)
        };
        let outcomes = queries.par_iter().zip(&truth).map_init(Scratch::default, outcome);
        let (hits, widths) = outcomes.reduce(Default::default, |a, b| (a.0 + b.0, a.1 + b.1));
        let width = widths as f64 / count as f64;
        *reached = Some(width as f32);
        let reached = (width, hits as f64 / wanted as f64);
        for (recall, least) in Graph::RECALLS.iter().zip(&mut measured.widths) {
            if least.is_none() && reached.1 >= f64::from(*recall) {
                *least = Some(between(narrower, reached, f64::from(*recall)).ceil() as u32);
            }
        }
        narrower = reached;
        if width >= WIDTH_MAX && measured.widths.iter().all(Option::is_some) {
            break;
        }
    }
    Ok(measured)
}

/// The width that a recall takes, given two widths and the recalls that they reach, the lower one less than it; widths grow by factors.
fn between(narrow: (f64, f64), wide: (f64, f64), recall: f64) -> f64 {
    let share = (recall - narrow.1) / (wide.1 - narrow.1);
    narrow.0 * (wide.0 / narrow.0).powf(share)
}

/// What a search finds, itself left out, and how many rows were in its pool at the end.
fn neighbors(
    rows: &[Row<'_>],
    query: u32,
    quantiser: &Quantiser<'_>,
    codes: &[u8],
    graph: &Graph<'_>,
    slack: f32,
    scratch: &mut Scratch,
) -> (Vec<u32>, usize) {
    let k = Graph::MEASURED_K;
    let vector = rows[query as usize].vector;
    let coded = quantiser.query(vector, Default::default());
    let reach = Reach::slack(k, slack, &coded);
    let Ok(pool) = graph.search(&coded, codes, Some(query), &reach, scratch, &Trusted);
    let compare = |others: &[u32], each: &mut dyn FnMut(Found)| {
        for row in others {
            let mut distance = [0.0];
            (kernel::best().scan)(vector, rows[*row as usize].vector, &mut distance);
            each(Found { distance: distance[0], key: u64::from(*row) });
        }
        Ok::<_, Infallible>(())
    };
    let mut nearest = Nearest::new(k, f32::INFINITY);
    let Ok(_) = rerank(&mut nearest, pool.iter().copied(), coded.scale, compare);
    (nearest.into_sorted().iter().map(|found| found.key as u32).collect(), pool.len())
}

/// The rows nearest to each of some, itself left out.
fn truth(rows: &[Row<'_>], queries: &[u32], stop: &Stop) -> Result<Vec<Vec<u32>>, Stopped> {
    let dimensions = rows[0].vector.len();
    let none = || -> Vec<Nearest> { queries.iter().map(|_| Nearest::new(Graph::MEASURED_K, f32::INFINITY)).collect() };
    let coded: Vec<Query<'_>> = queries.iter().map(|query| Query::new(rows[*query as usize].vector)).collect();
    let blocks = rows.par_chunks(BLOCK).enumerate();
    let compared = blocks.try_fold(none, |mut nearest, (block, near)| {
        stop.check()?;
        let vectors: Vec<f32> = near.iter().flat_map(|row| row.vector).copied().collect();
        let sieve = Sieve::new(&vectors, dimensions);
        for ((query, coded), nearest) in queries.iter().zip(&coded).zip(&mut nearest) {
            let key = |at: usize| Some((block * BLOCK + at) as u64).filter(|row| *row != u64::from(*query));
            sieve.search(coded, &vectors, nearest, key);
        }
        Ok(nearest)
    });
    let all = compared.try_reduce(none, |all, more| Ok(all.into_iter().zip(more).map(Nearest::merged).collect()))?;
    let row = |found: Found| found.key as u32;
    Ok(all.into_iter().map(|nearest| nearest.into_sorted().into_iter().map(row).collect()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recall_between_two_takes_a_width_between_theirs() {
        let width = |recall| between((10.0, 0.9), (40.0, 0.96), recall).round();
        assert_eq!([0.9, 0.93, 0.96].map(width), [10.0, 20.0, 40.0]);
    }
}
