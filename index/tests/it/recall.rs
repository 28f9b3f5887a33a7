//! Approximate search held to exact search.

use roaring::RoaringTreemap;
use tempfile::tempdir;
use vultus_index::{Effort, Index, Search};

use crate::data::{clustered, exactly, options, unit};

const DIMENSIONS: usize = 32;

/// An index of one segment with a graph, and queries from the same people.
fn indexed(folder: &std::path::Path, count: usize) -> (Index, Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let mut vectors = clustered(5, count + 200, DIMENSIONS);
    let queries = vectors.split_off(count);
    let mut index = Index::open(folder, options(DIMENSIONS, 500)).unwrap();
    for (id, vector) in vectors.iter().enumerate() {
        index.add(id as u64, vector).unwrap();
    }
    index.seal(1).unwrap();
    index.settle().unwrap();
    (index, vectors, queries)
}

/// The share of the exact answers that the search finds. Panics where it returns fewer, or ones at another distance.
#[track_caller]
fn recall(index: &Index, queries: &[Vec<f32>], search: &Search<'_>) -> f64 {
    let mut found_of_exact = 0;
    let mut all = 0;
    for query in queries {
        let exact = index.search(query, &Search { effort: Effort::Exact, ..*search }).unwrap();
        let found = index.search(query, search).unwrap();
        assert_eq!(found.len(), exact.len());
        found_of_exact += exact.iter().filter(|neighbor| found.contains(neighbor)).count();
        all += exact.len();
    }
    found_of_exact as f64 / all as f64
}

#[test]
fn what_is_sealed_beside_a_large_segment_is_found_as_well() {
    let folder = tempdir().unwrap();
    let (mut index, vectors, queries) = indexed(folder.path(), 5_300);
    let more = clustered(5, vectors.len() + 200 + 900, DIMENSIONS).split_off(vectors.len() + 200);
    let search = Search { k: 10, effort: Effort::Recall(0.95), ..Search::default() };
    // Too few for a graph, then enough for one.
    for (sealed, count) in [(2, 300), (3, 600)] {
        let ids = (10_000 * sealed..).take(count);
        for (id, vector) in ids.clone().zip(&more[more.len() - count..]) {
            index.add(id, vector).unwrap();
        }
        index.seal(sealed).unwrap();
        index.settle().unwrap();
        let all = recall(&index, &queries, &search);
        assert!(all >= 0.93, "recall {all} beside {count}");
        let lost = ids.zip(&more[more.len() - count..]).filter(|(id, vector)| {
            let itself = index.search(vector, &Search { k: 1, ..search }).unwrap()[0];
            itself.distance > 1e-6 && itself.id != *id
        });
        assert_eq!(lost.count(), 0, "vectors that do not find themselves beside {count}");
    }
}

#[test]
fn the_graph_finds_what_an_exact_search_finds() {
    let folder = tempdir().unwrap();
    // More than the builder inserts one by one.
    let (mut index, vectors, queries) = indexed(folder.path(), 5_300);
    let search = Search { k: 10, effort: Effort::Width(128), ..Search::default() };
    let all = recall(&index, &queries, &search);
    assert!(all >= 0.99, "recall {all}");
    let narrow = recall(&index, &queries, &Search { effort: Effort::Width(10), ..search });
    assert!(narrow >= 0.85, "recall {narrow} with the narrowest beam: the ten of the best codes");
    let wider = recall(&index, &queries, &Search { effort: Effort::Width(20), ..search });
    assert!(wider >= 0.95, "recall {wider} with a beam of 20");
    assert!(narrow < 1.0, "a beam as narrow as the answer misses some: was this a scan?");

    let lost = (0..vectors.len()).filter(|id| {
        let itself = index.search(&vectors[*id], &Search { k: 1, ..search }).unwrap()[0];
        itself.id != *id as u64
    });
    assert_eq!(lost.count(), 0, "vectors that do not find themselves");

    let half: RoaringTreemap = (0..5_300).filter(|id| id % 2 == 0).collect();
    let of_half = recall(&index, &queries, &Search { effort: Effort::Width(40), allowed: Some(&half), ..search });
    assert!(of_half >= 0.95, "recall {of_half} among half of the ids");

    for id in (0..5_300).filter(|id| id % 5 == 0) {
        assert!(index.remove(id).unwrap());
    }
    let without_deleted = recall(&index, &queries, &search);
    assert!(without_deleted >= 0.95, "recall {without_deleted} with a fifth deleted");
}

#[test]
fn a_small_segment_that_has_all_of_the_neighbours_is_walked_as_wide_as_a_large_one() {
    let folder = tempdir().unwrap();
    let (mut index, _, of_all) = indexed(folder.path(), 6_000);
    // People who are new: too few of them to be merged with the others.
    let mut new = clustered(99, 700, DIMENSIONS);
    let of_new = new.split_off(600);
    new.iter().zip(6_000..).for_each(|(vector, id)| index.add(id, vector).unwrap());
    index.seal(2).unwrap();
    index.settle().unwrap();
    assert_eq!((index.merges(), index.is_merging()), (2, false), "of each of the two");
    let search = Search { effort: Effort::Width(40), ..Search::default() };
    let found = recall(&index, &of_new, &search);
    assert!(found >= 0.97, "recall {found} of new people");
    let found = recall(&index, &of_all, &search);
    assert!(found >= 0.97, "recall {found} of the people before");
}

#[test]
fn a_filter_of_any_width_is_answered_in_full() {
    let folder = tempdir().unwrap();
    let (index, _, queries) = indexed(folder.path(), 2_000);
    for count in [1, 5, 20, 100, 500, 1_000, 1_900, 2_000] {
        // Neighbours in id order, and so of many people: some near the query, most not.
        let allowed: RoaringTreemap = (0..count).collect();
        let found = recall(
            &index,
            &queries,
            &Search { k: 10, effort: Effort::Width(16), allowed: Some(&allowed), ..Search::default() },
        );
        assert!(found >= 0.85, "recall {found} among {count}");
    }
}

#[test]
fn a_filter_of_ids_that_are_mostly_not_there_lets_no_other_through() {
    let folder = tempdir().unwrap();
    let mut index = Index::open(folder.path(), options(DIMENSIONS, 500)).unwrap();
    let vectors = clustered(7, 800, DIMENSIONS);
    vectors.iter().zip(0..).for_each(|(vector, at)| index.add(2 * at, vector).unwrap());
    index.seal(1).unwrap();
    index.settle().unwrap();
    // As many ids as there are vectors, between the first and the last of them.
    let allowed: RoaringTreemap = (0..400).map(|at| 2 * at).chain((0..400).map(|at| 2 * at + 1)).collect();
    for query in vectors.iter().step_by(40) {
        let found = index
            .search(query, &Search { effort: Effort::Width(20), allowed: Some(&allowed), ..Search::default() })
            .unwrap();
        assert!(found.len() == 10 && found.iter().all(|found| allowed.contains(found.id)), "{found:?}");
    }
}

#[test]
fn searches_at_the_same_time_do_not_disturb_each_other() {
    let folder = tempdir().unwrap();
    let (index, _, queries) = indexed(folder.path(), 1_500);
    let search = Search { k: 10, effort: Effort::Width(16), ..Search::default() };
    let alone: Vec<_> = queries.iter().map(|query| index.search(query, &search).unwrap()).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for (query, alone) in queries.iter().zip(&alone) {
                    assert_eq!(&index.search(query, &search).unwrap(), alone);
                }
            });
        }
    });
}

#[test]
fn identical_vectors_are_all_found() {
    let folder = tempdir().unwrap();
    let mut index = Index::open(folder.path(), options(DIMENSIONS, 500)).unwrap();
    let vector = &clustered(1, 1, DIMENSIONS)[0];
    let others = clustered(2, 800, DIMENSIONS);
    for id in 0..400 {
        index.add(id, vector).unwrap();
    }
    for (id, vector) in (400..).zip(&others) {
        index.add(id, vector).unwrap();
    }
    index.seal(1).unwrap();
    index.settle().unwrap();
    let found = index.search(vector, &Search { k: 30, effort: Effort::Width(32), ..Search::default() }).unwrap();
    assert!(found.iter().all(|neighbor| neighbor.distance == 0.0), "{found:?}");
    assert_eq!(found.len(), 30);
    assert_eq!(index.search(vector, &exactly(30)).unwrap().len(), 30);
}

#[test]
fn numbers_that_are_nothing_like_normally_distributed_are_found_as_well() {
    let folder = tempdir().unwrap();
    // None below zero, most near it and a few large, as in histograms.
    let skewed = |vector: Vec<f32>| unit(&vector.iter().map(|x| x.max(0.0).powi(3)).collect::<Vec<f32>>());
    let mut vectors: Vec<Vec<f32>> = clustered(8, 4_200, 64).into_iter().map(skewed).collect();
    let queries = vectors.split_off(4_000);
    let mut index = Index::open(folder.path(), options(64, 500)).unwrap();
    vectors.iter().zip(0..).for_each(|(vector, id)| index.add(id, vector).unwrap());
    index.seal(1).unwrap();
    index.settle().unwrap();
    let wide = recall(&index, &queries, &Search { effort: Effort::Width(160), ..Search::default() });
    assert!(wide >= 0.995, "recall {wide}");
}
