//! Filters of every width, near the query and far from it, and what deletions leave of recall.

use roaring::RoaringTreemap;
use tempfile::{TempDir, tempdir};
use vultus_index::{Effort, Index, Options, Search};

use crate::data::{clustered, exactly, options};

const DIMENSIONS: usize = 32;
const COUNT: usize = 12_000;

fn small() -> Options {
    options(DIMENSIONS, 2_000)
}

/// The ids that are allowed, of all ids, nearest first.
type Filter<'a> = dyn Fn(&[u64]) -> RoaringTreemap + 'a;

/// An index of these vectors, under their places as ids.
fn indexed(vectors: &[Vec<f32>]) -> (TempDir, Index) {
    let folder = tempdir().unwrap();
    let mut index = Index::open(folder.path(), small()).unwrap();
    vectors.iter().zip(0..).for_each(|(vector, id)| index.add(id, vector).unwrap());
    index.seal(1).unwrap();
    index.settle().unwrap();
    (folder, index)
}

/// Hits and how many there could have been, of one query. Panics where fewer answers come back than exist.
#[track_caller]
fn hits(index: &Index, query: &[f32], search: &Search<'_>) -> [usize; 2] {
    let exact = index.search(query, &Search { effort: Effort::Exact, ..*search }).unwrap();
    let found = index.search(query, search).unwrap();
    let wanted = search.allowed.map_or(usize::MAX, |allowed| allowed.len() as usize).min(search.k);
    assert_eq!((found.len(), exact.len()), (wanted, wanted));
    assert!(found.iter().all(|found| search.allowed.is_none_or(|allowed| allowed.contains(found.id))));
    [exact.iter().filter(|neighbor| found.contains(neighbor)).count(), exact.len()]
}

fn recall(hits: impl Iterator<Item = [usize; 2]>) -> f64 {
    let [found, wanted] = hits.fold([0, 0], |sum, more| [sum[0] + more[0], sum[1] + more[1]]);
    found as f64 / wanted as f64
}

#[test]
fn a_filter_of_any_width_loses_nothing_near_the_query_far_from_it_or_anywhere() {
    let mut vectors = clustered(21, COUNT + 40, DIMENSIONS);
    let queries = vectors.split_off(COUNT);
    let (_folder, index) = indexed(&vectors);
    // For each query all ids, nearest first.
    let ranked: Vec<Vec<u64>> = queries
        .iter()
        .map(|query| index.search(query, &exactly(COUNT)).unwrap().iter().map(|neighbor| neighbor.id).collect())
        .collect();
    for share in [1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.001, 0.0001] {
        let count = ((share * COUNT as f64).ceil() as usize).max(1);
        let any: RoaringTreemap = (0..count as u64).map(|at| at * 7_919 % COUNT as u64).collect();
        let near = |ranked: &[u64]| -> RoaringTreemap { ranked[..count].iter().collect() };
        // The farthest: a walk towards the query meets none of them.
        let far = |ranked: &[u64]| -> RoaringTreemap { ranked[COUNT - count..].iter().collect() };
        let filters: [(&str, &Filter<'_>); 3] = [("any", &|_| any.clone()), ("near", &near), ("far", &far)];
        for (name, filter) in filters {
            let of_each = queries.iter().zip(&ranked).map(|(query, ranked)| {
                let allowed = filter(ranked);
                hits(&index, query, &Search { allowed: Some(&allowed), ..Search::default() })
            });
            let recall = recall(of_each);
            assert!(recall >= 0.99, "recall {recall} with {name} {share} of all");
        }
    }
}

#[test]
fn recall_after_half_was_replaced_is_that_of_a_fresh_index() {
    let mut vectors = clustered(22, COUNT + COUNT / 2 + 300, DIMENSIONS);
    let queries = vectors.split_off(COUNT + COUNT / 2);
    let (_folder, mut churned) = indexed(&vectors[..COUNT]);
    // A tenth of the half at a time, sealed each time, settled at the end only.
    let half: Vec<usize> = (0..COUNT).step_by(2).collect();
    for (round, gone) in half.chunks(COUNT / 20).enumerate() {
        for id in gone {
            assert!(churned.remove(*id as u64).unwrap());
            churned.add((COUNT + id / 2) as u64, &vectors[COUNT + id / 2]).unwrap();
        }
        churned.seal(2 + round as u64).unwrap();
    }
    churned.settle().unwrap();
    let left: Vec<Vec<f32>> =
        (0..COUNT).filter(|id| id % 2 == 1).chain(COUNT..vectors.len()).map(|id| vectors[id].clone()).collect();
    let (_other, fresh) = indexed(&left);
    assert_eq!(churned.count(), fresh.count());
    for width in [20, 40, 80] {
        let search = Search { effort: Effort::Width(width), ..Search::default() };
        let [old, new] =
            [&churned, &fresh].map(|index| recall(queries.iter().map(|query| hits(index, query, &search))));
        assert!(old >= new - 0.005, "at {width}: recall {old}, of a fresh index {new}");
    }
}
