//! How wide a walk must be to reach a recall: measured on the graph that was just built, with its own rows as queries.
//!
//! A row knows its neighbours by its links, which no query does, so the walk may not pass through the row that it looks for neighbours of.

use std::convert::Infallible;

use rayon::prelude::*;

use super::Row;
use super::rerank::rerank;
use crate::graph::{Graph, Scratch, Trusted};
use crate::nearest::{Found, Nearest};
use crate::quantiser::Quantiser;
use crate::stop::{Stop, Stopped};
use crate::{kernel, scan};

/// Rows that are asked for their neighbours, and at most one in so many. With ten neighbours each a recall is known to a few thousandths.
const QUERIES: usize = 256;
const QUERY_SHARE: usize = 8;
/// Rows that all queries are compared with at once.
const BLOCK: usize = 256;
/// What is tried, each about a fifth wider than the one before.
const WIDTHS: [usize; 27] = [
    8, 10, 12, 14, 17, 20, 24, 28, 34, 40, 48, 56, 68, 80, 96, 112, 136, 160, 192, 224, 272, 320, 384, 448, 540, 640,
    768,
];

/// The narrowest widths that reach [`Graph::RECALLS`], for as many neighbours as [`Graph::MEASURED_K`].
///
/// - `rows`, `codes`: in the order of the graph.
pub(super) fn measure(
    rows: &[Row<'_>],
    quantiser: &Quantiser<'_>,
    codes: &[u8],
    graph: &Graph<'_>,
    stop: &Stop,
) -> Result<[Option<u32>; Graph::RECALLS.len()], Stopped> {
    let count = QUERIES.min(rows.len().div_ceil(QUERY_SHARE));
    let queries: Vec<u32> = (0..count).map(|at| (at * rows.len() / count) as u32).collect();
    let truth = truth(rows, &queries, stop)?;
    let wanted: usize = truth.iter().map(Vec::len).sum();
    let mut widths = [None; Graph::RECALLS.len()];
    for width in WIDTHS {
        stop.check()?;
        let hits = |scratch: &mut Scratch, (query, truth): (&u32, &Vec<u32>)| {
            let found = neighbors(rows, *query, quantiser, codes, graph, width, scratch);
            truth.iter().filter(|row| found.contains(row)).count()
        };
        let hits: usize = queries.par_iter().zip(&truth).map_init(Scratch::default, hits).sum();
        for (recall, narrowest) in Graph::RECALLS.iter().zip(&mut widths) {
            if narrowest.is_none() && hits as f64 >= f64::from(*recall) * wanted as f64 {
                *narrowest = Some(width as u32);
            }
        }
        if widths.iter().all(Option::is_some) {
            break;
        }
    }
    Ok(widths)
}

/// What a search finds, itself left out.
fn neighbors(
    rows: &[Row<'_>],
    query: u32,
    quantiser: &Quantiser<'_>,
    codes: &[u8],
    graph: &Graph<'_>,
    width: usize,
    scratch: &mut Scratch,
) -> Vec<u32> {
    let k = Graph::MEASURED_K;
    let vector = rows[query as usize].vector;
    let (scored, scale) = quantiser.query(vector);
    let Ok(found) = graph.search(&scored, codes, Some(query), width.max(k), scratch, &Trusted);
    let compare = |others: &[u32]| {
        let found = others.iter().map(|row| {
            let mut distance = [0.0];
            (kernel::best().scan)(vector, rows[*row as usize].vector, &mut distance);
            Found { distance: distance[0], key: u64::from(*row) }
        });
        Ok::<_, Infallible>(found.collect())
    };
    let Ok(found) = rerank(k, found.iter().copied(), scale, compare);
    found.iter().map(|found| found.key as u32).collect()
}

/// The rows nearest to each of some, itself left out.
fn truth(rows: &[Row<'_>], queries: &[u32], stop: &Stop) -> Result<Vec<Vec<u32>>, Stopped> {
    let none = || -> Vec<Nearest> { queries.iter().map(|_| Nearest::new(Graph::MEASURED_K, f32::INFINITY)).collect() };
    let blocks = rows.par_chunks(BLOCK).enumerate();
    let compared = blocks.try_fold(none, |mut nearest, (block, near)| {
        stop.check()?;
        let vectors: Vec<f32> = near.iter().flat_map(|row| row.vector).copied().collect();
        for (query, nearest) in queries.iter().zip(&mut nearest) {
            let key = |at: usize| Some((block * BLOCK + at) as u64).filter(|row| *row != u64::from(*query));
            scan::every_row(rows[*query as usize].vector, &vectors, nearest, key);
        }
        Ok(nearest)
    });
    let all = compared.try_reduce(none, |all, more| Ok(all.into_iter().zip(more).map(Nearest::merged).collect()))?;
    let row = |found: Found| found.key as u32;
    Ok(all.into_iter().map(|nearest| nearest.into_sorted().into_iter().map(row).collect()).collect())
}
