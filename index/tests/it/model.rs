//! The index against a `BTreeMap` that is given the same operations.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{TestRng, TestRunner};
use roaring::RoaringTreemap;
use vultus_index::{Effort, Index, Neighbor, Options, Search, Snapshot};

use crate::data::{numbered, options};
use crate::simulated::Simulated;

const DIMENSIONS: usize = 6;
const VECTORS: u64 = 250;
/// Of the long run.
const STEPS: usize = 100_000;

#[derive(Clone, Debug)]
enum Operation {
    Add {
        id: u64,
        vector: u64,
    },
    AddMany {
        from: u64,
        count: u64,
    },
    Remove {
        id: u64,
    },
    RemoveMany {
        from: u64,
        count: u64,
    },
    Seal,
    /// Waits for the merges that seals begin.
    Settle,
    Reopen,
    Publish,
    /// Keeps what readers see now, to be looked at later.
    Keep,
    Search {
        query: u64,
        k: usize,
        exact: bool,
        allowed: Option<Vec<u64>>,
        within: Option<f32>,
    },
    SearchKept {
        query: u64,
        k: usize,
    },
    Scroll {
        from: u64,
        limit: usize,
    },
}

fn operation() -> impl Strategy<Value = Operation> {
    // Few ids, so that they are replaced and removed; fewer vectors, so that there are ties.
    let id = || prop_oneof![9 => 0u64..700, 1 => Just(u64::MAX)];
    let allowed = || prop::option::of(prop::collection::vec(id(), 0..300));
    let within = prop::option::of(0.0f32..3.0);
    prop_oneof![
        18 => (id(), 0u64..VECTORS).prop_map(|(id, vector)| Operation::Add { id, vector }),
        1 => (id(), 1u64..500).prop_map(|(from, count)| Operation::AddMany { from, count }),
        12 => id().prop_map(|id| Operation::Remove { id }),
        1 => (id(), 1u64..200).prop_map(|(from, count)| Operation::RemoveMany { from, count }),
        1 => Just(Operation::Seal),
        1 => Just(Operation::Settle),
        1 => Just(Operation::Reopen),
        4 => Just(Operation::Publish),
        1 => Just(Operation::Keep),
        18 => (0u64..VECTORS, 0usize..8, any::<bool>(), allowed(), within)
            .prop_map(|(query, k, exact, allowed, within)| Operation::Search { query, k, exact, allowed, within }),
        4 => (0u64..VECTORS, 0usize..8).prop_map(|(query, k)| Operation::SearchKept { query, k }),
        3 => (id(), 0usize..30).prop_map(|(from, limit)| Operation::Scroll { from, limit }),
    ]
}

/// The number of each id's vector.
type Held = BTreeMap<u64, u64>;

/// The vectors that there are, and how far each is from each.
struct Vectors {
    vectors: Vec<Vec<f32>>,
    distances: Vec<Vec<f64>>,
}

static VECTORS_USED: LazyLock<Vectors> = LazyLock::new(|| {
    let vectors: Vec<Vec<f32>> = (0..VECTORS).map(|number| numbered(number, DIMENSIONS)).collect();
    let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    let distances = vectors.iter().map(|a| vectors.iter().map(|b| distance(a, b)).collect()).collect();
    Vectors { vectors, distances }
});

fn vector(number: u64) -> &'static [f32] {
    &VECTORS_USED.vectors[number as usize]
}

/// An index and what it must hold.
struct Model {
    folder: Simulated,
    options: Options,
    index: Option<Index>,
    held: Held,
    /// What is in the folder: the state that a reopened index has.
    sealed: (Held, u64),
    /// What readers see.
    published: Held,
    kept: Option<(Arc<Snapshot>, Held)>,
    step: u64,
}

impl Model {
    fn new(graph_vectors_min: usize) -> Self {
        let folder = Simulated::default();
        let options = options(DIMENSIONS, graph_vectors_min);
        let index = Some(Index::open_in(folder.clone(), options).unwrap());
        let (held, published, sealed) = (Held::new(), Held::new(), (Held::new(), 0));
        Self { folder, options, index, held, sealed, published, kept: None, step: 0 }
    }

    fn index(&mut self) -> &mut Index {
        self.index.as_mut().unwrap()
    }

    fn add(&mut self, id: u64, number: u64) {
        self.index().add(id, vector(number)).unwrap();
        self.held.insert(id, number);
    }

    fn remove(&mut self, id: u64) -> Result<(), TestCaseError> {
        let was_there = self.held.remove(&id).is_some();
        prop_assert_eq!(self.index().remove(id).unwrap(), was_there);
        Ok(())
    }

    /// Does one thing to both and compares what they say.
    fn apply(&mut self, operation: Operation) -> Result<(), TestCaseError> {
        self.step += 1;
        let step = self.step;
        match operation {
            Operation::Add { id, vector } => self.add(id, vector),
            Operation::AddMany { from, count } => {
                (from..from.saturating_add(count)).for_each(|id| self.add(id, id % VECTORS));
            }
            Operation::Remove { id } => self.remove(id)?,
            Operation::RemoveMany { from, count } => {
                (from..from.saturating_add(count)).try_for_each(|id| self.remove(id))?;
            }
            Operation::Seal => {
                self.index().seal(step).unwrap();
                prop_assert_eq!(self.index().pending(), 0);
                self.sealed = (self.held.clone(), step);
                self.published.clone_from(&self.held);
            }
            Operation::Settle => {
                let sequence = self.sealed.1;
                self.index().settle().unwrap();
                self.sealed = (self.held.clone(), sequence);
                // Where nothing was new, nothing was published either.
                self.index().publish();
                self.published.clone_from(&self.held);
            }
            Operation::Reopen => {
                self.index = None;
                self.index = Some(Index::open_in(self.folder.clone(), self.options).unwrap());
                self.held.clone_from(&self.sealed.0);
                self.published.clone_from(&self.held);
            }
            Operation::Publish => {
                let before = self.index().reader().snapshot().generation();
                self.index().publish();
                prop_assert!(self.index().reader().snapshot().generation() > before);
                self.published.clone_from(&self.held);
            }
            Operation::Keep => {
                let snapshot = self.index().reader().snapshot();
                prop_assert_eq!(snapshot.count(), self.published.len());
                self.kept = Some((snapshot, self.published.clone()));
            }
            Operation::Search { query, k, exact, allowed, within } => {
                let allowed: Option<RoaringTreemap> = allowed.map(|ids| ids.into_iter().collect());
                let effort = if exact { Effort::Exact } else { Effort::Width(8) };
                let search = Search { k, effort, allowed: allowed.as_ref(), within };
                check(self.index.as_ref().unwrap(), &self.held, query, &search)?;
            }
            Operation::SearchKept { query, k } => {
                if let Some((snapshot, held)) = &self.kept {
                    check(snapshot, held, query, &Search { k, effort: Effort::Exact, ..Search::default() })?;
                    prop_assert_eq!(snapshot.count(), held.len());
                }
            }
            Operation::Scroll { from, limit } => {
                let expected: Vec<u64> = self.held.range(from..).map(|(id, _)| *id).take(limit).collect();
                prop_assert_eq!(self.index().scroll(from, limit).unwrap(), expected);
            }
        }
        let (count, sequence) = (self.held.len(), self.sealed.1);
        prop_assert_eq!(self.index().count(), count);
        prop_assert_eq!(self.index().sequence(), sequence);
        Ok(())
    }

    fn compare_all(&self) -> Result<(), TestCaseError> {
        let index = self.index.as_ref().unwrap();
        for (id, number) in &self.held {
            let found = index.vector(*id).unwrap();
            prop_assert_eq!(found.as_deref(), Some(vector(*number)));
        }
        prop_assert_eq!(index.vector(149).unwrap().is_some(), self.held.contains_key(&149));
        prop_assert!(index.verify().is_empty());
        prop_assert_eq!(index.merge_failure(), None);
        Ok(())
    }
}

/// An exact answer is the one expected. Any other is as long (where no distance limits it), in order, without repeats, and of candidates at
/// their distances.
fn check(index: &Snapshot, held: &Held, query: u64, search: &Search<'_>) -> Result<(), TestCaseError> {
    let found = index.search(vector(query), search).unwrap();
    let distance = |number: u64| VECTORS_USED.distances[query as usize][number as usize];
    let candidates = held.iter().filter(|(id, _)| search.allowed.is_none_or(|allowed| allowed.contains(**id)));
    let mut expected: Vec<(u64, f64)> = candidates.map(|(id, number)| (*id, distance(*number))).collect();
    expected.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    // Away from what rounding decides.
    let is_within = |distance: f64| search.within.is_none_or(|within| distance <= f64::from(within) + 1e-5);
    expected.retain(|(_, distance)| is_within(*distance));
    prop_assert!(found.len() <= expected.len().min(search.k));
    prop_assert!(found.is_sorted_by(|a, b| (a.distance, a.id) < (b.distance, b.id)));
    if search.within.is_none() {
        prop_assert_eq!(found.len(), expected.len().min(search.k));
    }
    if search.effort == Effort::Exact {
        let surely = expected
            .iter()
            .take(search.k)
            .filter(|pair| search.within.is_none_or(|within| pair.1 <= f64::from(within) - 1e-5));
        let surely: Vec<u64> = surely.map(|pair| pair.0).collect();
        let ids: Vec<u64> = found.iter().map(|neighbor| neighbor.id).collect();
        prop_assert!(ids.starts_with(&surely), "{found:?} instead of {expected:?}");
    }
    for Neighbor { id, distance } in found {
        let candidate = expected.iter().find(|pair| pair.0 == id);
        let expected = candidate.ok_or_else(|| TestCaseError::fail(format!("{id} is no candidate")))?.1;
        prop_assert!((f64::from(distance) - expected).abs() < 1e-5);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn the_index_does_what_a_map_does(
        operations in prop::collection::vec(operation(), 1..60),
        graph_vectors_min in prop_oneof![Just(20usize), Just(1000)],
    ) {
        let mut model = Model::new(graph_vectors_min);
        operations.into_iter().try_for_each(|operation| model.apply(operation))?;
        model.compare_all()?;
    }
}

/// Long histories, which the short ones of the test above, made to be shrunk, do not have.
#[test]
fn the_index_does_what_a_map_does_for_a_hundred_thousand_steps() {
    for (seed, graph_vectors_min) in [(1, 20), (2, 300)] {
        let rng = TestRng::from_seed(prop::test_runner::RngAlgorithm::ChaCha, &[seed; 32]);
        let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
        let mut model = Model::new(graph_vectors_min);
        for step in 0..STEPS / 2 {
            let operation = operation().new_tree(&mut runner).unwrap().current();
            let outcome = model.apply(operation.clone());
            assert!(outcome.is_ok(), "seed {seed}, step {step}, {operation:?}: {outcome:?}");
        }
        model.compare_all().unwrap();
    }
}
