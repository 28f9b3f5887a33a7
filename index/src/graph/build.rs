//! Builds the graph of a segment with `hnsw_rs`, and copies its lists out through its public API.
//!
//! Its dump, reload and search are not used: they leave the process on a bad file, and are slow. Links at a layer may point to
//! rows that are not in that layer; those are left out. Vectors are finite, as `Index::add` checks: the builder panics on NaN.

use hnsw_rs::prelude::{Distance, Hnsw};

use super::{Lists, NONE};
use crate::kernel;
use crate::segment::Row;

/// Links per row in the layers above 0 (the paper's M); twice as many in layer 0.
const M: usize = 16;
const EF_CONSTRUCTION: usize = 200;
/// All that `hnsw_rs` has; each row draws how many of them it is in.
const LAYERS: usize = 16;
/// Rows inserted one by one before the rest is inserted on all cores: in a small graph, insertions at the same time miss each
/// other and leave rows that nobody links to.
const ONE_BY_ONE: usize = 5_000;

/// The graph section of a segment of these rows.
///
/// Source: Malkov & Yashunin 2018 (arXiv:1603.09320).
pub(crate) fn build(rows: &[Row<'_>]) -> Vec<u8> {
    let hnsw = Hnsw::new(M, rows.len(), LAYERS, EF_CONSTRUCTION, SquaredDistance);
    let (first, rest) = rows.split_at(rows.len().min(ONE_BY_ONE));
    for (row, vector) in first.iter().enumerate() {
        hnsw.insert((vector.vector, row));
    }
    let rest: Vec<(&[f32], usize)> = rest.iter().zip(first.len()..).map(|(row, at)| (row.vector, at)).collect();
    hnsw.parallel_insert_slice(&rest);
    export(&hnsw, rows.len()).encode()
}

fn export(hnsw: &Hnsw<'_, f32, SquaredDistance>, count: usize) -> Lists {
    let mut lists =
        Lists { links: 2 * M, upper_links: M, bottom: vec![NONE; 2 * M * count], upper: vec![Vec::new(); count] };
    for point in hnsw.get_point_indexation() {
        let row = point.get_origin_id();
        let level = usize::from(point.get_point_id().0);
        let upper = &mut lists.upper[row];
        upper.resize(M * level, NONE);
        let bottom = &mut lists.bottom[row * 2 * M..][..2 * M];
        let slots = std::iter::once(bottom).chain(upper.chunks_exact_mut(M));
        for ((layer, neighbors), slots) in point.get_neighborhood_id().into_iter().enumerate().zip(slots) {
            let linked = neighbors.iter().filter(|neighbor| usize::from(neighbor.p_id.0) >= layer);
            for (slot, neighbor) in slots.iter_mut().zip(linked) {
                *slot = neighbor.d_id as u32;
            }
        }
    }
    lists
}

/// Our distance, for the builder.
struct SquaredDistance;

impl Distance<f32> for SquaredDistance {
    fn eval(&self, a: &[f32], b: &[f32]) -> f32 {
        let mut distance = [0.0];
        (kernel::best().scan)(a, b, &mut distance);
        distance[0]
    }
}
