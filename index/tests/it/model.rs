//! The index against a `BTreeMap` that is given the same operations.

use std::collections::BTreeMap;

use proptest::prelude::*;
use roaring::RoaringTreemap;
use tempfile::tempdir;
use vultus_index::{Index, Neighbor, Search};

use crate::data::{brute_force, numbered, options};

const DIMENSIONS: usize = 6;
const VECTORS: u64 = 250;

#[derive(Clone, Debug)]
enum Operation {
    Add { id: u64, vector: u64 },
    AddMany { from: u64, count: u64 },
    Remove { id: u64 },
    RemoveMany { from: u64, count: u64 },
    Seal,
    Reopen,
    Search { query: u64, k: usize, exact: bool, allowed: Option<Vec<u64>> },
    Scroll { from: u64, limit: usize },
}

fn operation() -> impl Strategy<Value = Operation> {
    // Few ids, so that they are replaced and removed; fewer vectors, so that there are ties.
    let id = || prop_oneof![9 => 0u64..700, 1 => Just(u64::MAX)];
    let allowed = || prop::option::of(prop::collection::vec(id(), 0..300));
    prop_oneof![
        3 => (id(), 0u64..VECTORS).prop_map(|(id, vector)| Operation::Add { id, vector }),
        2 => (id(), 1u64..500).prop_map(|(from, count)| Operation::AddMany { from, count }),
        2 => id().prop_map(|id| Operation::Remove { id }),
        1 => (id(), 1u64..100).prop_map(|(from, count)| Operation::RemoveMany { from, count }),
        2 => Just(Operation::Seal),
        1 => Just(Operation::Reopen),
        4 => (0u64..VECTORS, 0usize..8, any::<bool>(), allowed())
            .prop_map(|(query, k, exact, allowed)| Operation::Search { query, k, exact, allowed }),
        1 => (id(), 0usize..30).prop_map(|(from, limit)| Operation::Scroll { from, limit }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn the_index_does_what_a_map_does(
        operations in prop::collection::vec(operation(), 1..60),
        graph_vectors_min in prop_oneof![Just(20usize), Just(1000)],
    ) {
        let folder = tempdir().unwrap();
        let options = options(DIMENSIONS, graph_vectors_min);
        let mut index = Index::open(folder.path(), options).unwrap();
        let mut held = BTreeMap::new();
        // What is in the folder: the state that a reopened index has.
        let (mut sealed, mut sequence) = (BTreeMap::new(), 0);
        for (step, operation) in operations.into_iter().enumerate() {
            match operation {
                Operation::Add { id, vector } => {
                    index.add(id, &numbered(vector, DIMENSIONS)).unwrap();
                    held.insert(id, numbered(vector, DIMENSIONS));
                }
                Operation::AddMany { from, count } => for id in from..from.saturating_add(count) {
                    index.add(id, &numbered(id % VECTORS, DIMENSIONS)).unwrap();
                    held.insert(id, numbered(id % VECTORS, DIMENSIONS));
                },
                Operation::Remove { id } => prop_assert_eq!(index.remove(id), held.remove(&id).is_some()),
                Operation::RemoveMany { from, count } => for id in from..from.saturating_add(count) {
                    prop_assert_eq!(index.remove(id), held.remove(&id).is_some());
                },
                Operation::Seal => {
                    index.seal(step as u64).unwrap();
                    prop_assert_eq!(index.pending(), 0);
                    (sealed, sequence) = (held.clone(), step as u64);
                }
                Operation::Reopen => {
                    drop(index);
                    index = Index::open(folder.path(), options).unwrap();
                    held.clone_from(&sealed);
                }
                Operation::Search { query, k, exact, allowed } => {
                    let query = numbered(query, DIMENSIONS);
                    let allowed: Option<RoaringTreemap> = allowed.map(|ids| ids.into_iter().collect());
                    let search = Search { k, ef: 8, exact, allowed: allowed.as_ref() };
                    let found = index.search(&query, &search).unwrap();
                    let mut candidates = held.clone();
                    candidates.retain(|id, _| allowed.as_ref().is_none_or(|allowed| allowed.contains(*id)));
                    check(&found, &brute_force(&candidates, &query, usize::MAX), k, exact)?;
                }
                Operation::Scroll { from, limit } => {
                    let expected: Vec<u64> = held.range(from..).map(|(id, _)| *id).take(limit).collect();
                    prop_assert_eq!(index.scroll(from, limit), expected);
                }
            }
            prop_assert_eq!(index.count(), held.len());
            prop_assert_eq!(index.sequence(), sequence);
        }
        for (id, vector) in &held {
            prop_assert_eq!(index.vector(*id), Some(vector.as_slice()));
        }
        prop_assert_eq!(index.vector(149).is_some(), held.contains_key(&149));
    }
}

/// An exact answer is the one expected. Any other is as long, in order, without repeats, and of candidates at their distances.
fn check(found: &[Neighbor], expected: &[(u64, f64)], k: usize, exact: bool) -> Result<(), TestCaseError> {
    prop_assert_eq!(found.len(), expected.len().min(k));
    prop_assert!(found.is_sorted_by(|a, b| (a.distance, a.id) < (b.distance, b.id)));
    if exact {
        let ids = found.iter().map(|neighbor| neighbor.id);
        prop_assert!(ids.eq(expected.iter().take(k).map(|pair| pair.0)), "{found:?} instead of {expected:?}");
    }
    for neighbor in found {
        let candidate = expected.iter().find(|pair| pair.0 == neighbor.id);
        let distance = candidate.ok_or_else(|| TestCaseError::fail(format!("{} is no candidate", neighbor.id)))?.1;
        prop_assert!((f64::from(neighbor.distance) - distance).abs() < 1e-5);
    }
    Ok(())
}
