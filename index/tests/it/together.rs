//! Many answers at once: batches, all within a distance, the neighbours of all; and how much work an answer is worth.

use roaring::RoaringTreemap;
use tempfile::{TempDir, tempdir};
use vultus_index::{Effort, Error, Index, Neighbor, Search};

use crate::data::{clustered, exactly, numbered, options};

const DIMENSIONS: usize = 32;

/// One segment with a graph, one without, some pending, some deleted; and queries.
fn indexed(count: usize) -> (TempDir, Index, Vec<Vec<f32>>) {
    let folder = tempdir().unwrap();
    let mut vectors = clustered(11, count + 150, DIMENSIONS);
    let queries = vectors.split_off(count);
    let mut index = Index::open(folder.path(), options(DIMENSIONS, 500)).unwrap();
    for (id, vector) in vectors.iter().enumerate() {
        index.add(id as u64, vector).unwrap();
        if [count - 60, count - 20].contains(&(id + 1)) {
            index.seal(id as u64).unwrap();
            index.settle().unwrap();
        }
    }
    (0..count as u64).step_by(9).for_each(|id| assert!(index.remove(id).unwrap()));
    (folder, index, queries)
}

fn ids(found: &[Neighbor]) -> Vec<u64> {
    found.iter().map(|neighbor| neighbor.id).collect()
}

#[test]
fn a_batch_is_answered_as_its_queries_are_one_by_one() {
    let (_folder, index, queries) = indexed(2_000);
    let queries: Vec<&[f32]> = queries.iter().map(Vec::as_slice).collect();
    for search in [Search { effort: Effort::Width(24), ..Search::default() }, exactly(3)] {
        let one_by_one: Vec<_> = queries.iter().map(|query| index.search(query, &search).unwrap()).collect();
        assert_eq!(index.search_batch(&queries, &search).unwrap(), one_by_one);
    }
    assert_eq!(index.search_batch(&[], &Search::default()).unwrap(), Vec::<Vec<Neighbor>>::new());
    let mut with_one_bad = queries;
    with_one_bad[7] = &[1.0];
    let refused = index.search_batch(&with_one_bad, &Search::default());
    assert!(matches!(refused, Err(Error::Dimensions { expected: DIMENSIONS, found: 1 })));
}

#[test]
fn all_within_a_distance_are_found() {
    let (_folder, index, queries) = indexed(3_000);
    let allowed: RoaringTreemap = (0..3_000).filter(|id| id % 3 != 0).collect();
    let (mut found_in_all, mut true_in_all) = (0, 0);
    for query in &queries {
        for within in [0.0, 0.3, 0.8, 1.2] {
            for allowed in [None, Some(&allowed)] {
                let all = Search { k: usize::MAX, within: Some(within), allowed, effort: Effort::Width(16) };
                let found = index.search(query, &all).unwrap();
                assert!(found.iter().all(|neighbor| neighbor.distance <= within));
                let everything = Search { within: None, effort: Effort::Exact, ..all };
                let mut expected = index.search(query, &everything).unwrap();
                expected.retain(|neighbor| neighbor.distance <= within);
                assert_eq!(index.search(query, &Search { effort: Effort::Exact, ..all }).unwrap(), expected);
                assert!(found.iter().all(|neighbor| expected.contains(neighbor)));
                let three = index.search(query, &Search { k: 3, effort: Effort::Exact, ..all }).unwrap();
                assert_eq!(three, expected[..expected.len().min(3)]);
                found_in_all += found.len();
                true_in_all += expected.len();
            }
        }
    }
    let recall = found_in_all as f64 / true_in_all as f64;
    assert!(true_in_all > 10_000 && recall > 0.99, "{recall} of {true_in_all}");
}

#[test]
fn what_is_within_a_distance_is_found_behind_many_that_are_not_allowed() {
    let (_folder, index, queries) = indexed(3_000);
    for query in queries.iter().take(40) {
        let ranked = index.search(query, &exactly(400)).unwrap();
        let hidden: Vec<u64> = ids(&ranked[..200]);
        let allowed: RoaringTreemap = (0..3_000).filter(|id| !hidden.contains(id)).collect();
        let within = Some(ranked[300].distance);
        let all = Search { k: usize::MAX, within, allowed: Some(&allowed), effort: Effort::Width(16) };
        let found = index.search(query, &all).unwrap();
        assert!(found.len() >= 95, "{} of the 101 behind the first 200", found.len());
    }
}

#[test]
fn the_neighbours_of_all_are_those_of_each_without_itself() {
    let (_folder, index, _) = indexed(1_500);
    let graph = index.neighbors_of_all(&exactly(4)).unwrap();
    let mut of = graph.iter().map(|(id, _)| *id).collect::<Vec<u64>>();
    of.sort_unstable();
    assert_eq!(of, index.scroll(0, usize::MAX).unwrap());
    for (id, neighbors) in &graph {
        let mut expected = index.search(&index.vector(*id).unwrap().unwrap(), &exactly(5)).unwrap();
        expected.retain(|neighbor| neighbor.id != *id);
        assert_eq!(neighbors, &expected, "of {id}");
    }
    let walked = index.neighbors_of_all(&Search { k: 4, effort: Effort::Width(32), ..Search::default() }).unwrap();
    type Neighbors = (u64, Vec<Neighbor>);
    let hits = |((id, exact), (of, found)): (&Neighbors, &Neighbors)| {
        assert_eq!((id, exact.len()), (of, found.len()));
        ids(found).iter().filter(|id| ids(exact).contains(id)).count()
    };
    let hits: usize = graph.iter().zip(&walked).map(hits).sum();
    assert!(hits as f64 > 0.97 * 4.0 * graph.len() as f64, "{hits} of {}", 4 * graph.len());
}

#[test]
fn copies_are_neighbours_of_each_other_and_not_of_themselves() {
    let folder = tempdir().unwrap();
    let mut index = Index::open(folder.path(), options(4, 500)).unwrap();
    (0..9).for_each(|id| index.add(id, &numbered(1, 4)).unwrap());
    for (id, neighbors) in index.neighbors_of_all(&exactly(3)).unwrap() {
        assert!(neighbors.len() == 3 && !ids(&neighbors).contains(&id), "{id}: {neighbors:?}");
    }
}

#[test]
fn a_recall_that_is_asked_for_is_reached_and_costs_less_than_a_higher_one() {
    let folder = tempdir().unwrap();
    let mut vectors = clustered(12, 6_000, DIMENSIONS);
    let queries = vectors.split_off(5_600);
    let mut index = Index::open(folder.path(), options(DIMENSIONS, 500)).unwrap();
    vectors.iter().zip(0..).for_each(|(vector, id)| index.add(id, vector).unwrap());
    index.seal(1).unwrap();
    index.settle().unwrap();
    let recall = |effort| {
        let hits = queries.iter().map(|query| {
            let exact = ids(&index.search(query, &exactly(10)).unwrap());
            let found = index.search(query, &Search { effort, ..Search::default() }).unwrap();
            ids(&found).iter().filter(|id| exact.contains(id)).count()
        });
        hits.sum::<usize>() as f64 / (10 * queries.len()) as f64
    };
    let reached = [0.8, 0.95, 0.99].map(|wanted| recall(Effort::Recall(wanted)));
    // What a sample of the rows promises, for other queries.
    for (wanted, reached) in [0.8, 0.95, 0.99].into_iter().zip(reached) {
        assert!(reached >= wanted - 0.02, "{reached} where {wanted} was asked for");
    }
    assert!(reached.is_sorted() && reached[0] < 0.99, "{reached:?}: is anything saved where less is asked for?");
    assert_eq!(recall(Effort::Recall(1.0)), 1.0, "no walk promises that, so everything is compared");
}
