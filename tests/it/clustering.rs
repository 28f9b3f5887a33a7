//! Clustering from outside: average linkage against kodama's matrix algorithm, and what must not change the answer.

use kodama::{Method as Linkage, linkage};
use proptest::prelude::*;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use vultus::Task;
use vultus::clustering::{Method, Partition, agreement, cluster};
use vultus::{Calibration, Embedding};

/// Unit vectors around the given number of centres; `spread` 0 is a copy of its centre, 1 and more is hardly near it.
fn people(people: usize, faces: usize, spread: f32, seed: u64) -> (Vec<Embedding>, Vec<u32>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut values = || -> Vec<f32> { (0..128).map(|_| rng.random_range(-1.0..1.0)).collect() };
    let centres: Vec<Vec<f32>> = (0..people).map(|_| values()).collect();
    let face = |label: usize, noise: Vec<f32>| {
        let near: Vec<f32> = centres[label].iter().zip(noise).map(|(c, n)| c + spread * n).collect();
        Embedding::normalized(&near).unwrap()
    };
    // Sizes as uneven as in real collections.
    let labels: Vec<usize> = (0..faces).map(|at| at % (at % people + 1)).collect();
    let embeddings = labels.iter().map(|label| face(*label, values())).collect();
    (embeddings, labels.into_iter().map(|label| label as u32).collect())
}

fn by_linkage(embeddings: &[Embedding], cut: f32) -> Partition {
    cluster(embeddings, Method::AverageLinkage { cut }).unwrap()
}

/// The textbook: a matrix of all distances in `f64`, and kodama's average linkage over it.
struct Oracle {
    faces: usize,
    /// Distance, and the two clusters; the merge at position `i` makes cluster `faces + i`.
    merges: Vec<(f64, usize, usize)>,
}

impl Oracle {
    fn new(embeddings: &[Embedding]) -> Self {
        let faces = embeddings.len();
        let distance = |a: &Embedding, b: &Embedding| -> f64 {
            a.as_slice().iter().zip(b.as_slice()).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
        };
        let mut matrix: Vec<f64> =
            (0..faces).flat_map(|i| (i + 1..faces).map(move |j| distance(&embeddings[i], &embeddings[j]))).collect();
        let steps = linkage(&mut matrix, faces, Linkage::Average);
        let merges = steps.steps().iter().map(|step| (step.dissimilarity, step.cluster1, step.cluster2)).collect();
        Self { faces, merges }
    }

    fn cut(&self, cut: f64) -> Vec<u32> {
        let mut parent: Vec<usize> = (0..self.faces + self.merges.len()).collect();
        for (at, (distance, a, b)) in self.merges.iter().enumerate() {
            if *distance <= cut {
                (parent[*a], parent[*b]) = (self.faces + at, self.faces + at);
            }
        }
        let root = |mut at: usize| {
            while parent[at] != at {
                at = parent[at];
            }
            at
        };
        let mut names = std::collections::HashMap::new();
        (0..self.faces)
            .map(|face| {
                let next = names.len() as u32;
                *names.entry(root(face)).or_insert(next)
            })
            .collect()
    }
}

/// Compares at cuts between all of the oracle's merges that `every` leaves, and at both ends.
#[track_caller]
fn check_against_kodama(embeddings: &[Embedding], every: usize) {
    let oracle = Oracle::new(embeddings);
    let mut heights: Vec<f64> = oracle.merges.iter().map(|merge| merge.0).collect();
    heights.sort_by(f64::total_cmp);
    let between = heights.windows(2).filter(|pair| pair[1] - pair[0] > 1e-5).map(|pair| (pair[0] + pair[1]) / 2.0);
    for cut in between.step_by(every).chain([0.0, 4.0]) {
        assert_eq!(by_linkage(embeddings, cut as f32).labels, oracle.cut(cut), "at cut {cut}");
    }
}

#[test]
fn linkage_finds_what_kodama_finds_on_faces_that_form_people() {
    check_against_kodama(&people(60, 500, 0.8, 1).0, 25);
    check_against_kodama(&people(9, 300, 0.3, 2).0, 15);
}

#[test]
fn linkage_finds_what_kodama_finds_on_points_without_any_order() {
    check_against_kodama(&people(400, 400, 3.0, 3).0, 20);
}

#[test]
fn a_crowd_whose_nearest_is_one_face_merges_as_kodama_says() {
    // A hub and 127 spokes at right angles to each other, each farther out: every spoke is nearest to the hub, always.
    let spoke = |at: usize| {
        let angle = 0.2 + 0.004 * at as f32;
        let mut values = [0.0; 128];
        values[0] = angle.cos();
        if at > 0 {
            values[at] = angle.sin();
        }
        Embedding::normalized(&values).unwrap()
    };
    check_against_kodama(&(0..128).map(spoke).collect::<Vec<_>>(), 4);
}

#[test]
fn ten_thousand_copies_are_one_group_at_any_cut_and_cost_nothing() {
    let (mut embeddings, _) = people(300, 3, 3.0, 4);
    let copy = embeddings[1].clone();
    embeddings.extend(std::iter::repeat_n(copy, 10_000));
    let partition = by_linkage(&embeddings, 0.0);
    assert_eq!(partition.groups(), 3);
    assert!(partition.labels[3..].iter().all(|label| *label == 1));
    assert_eq!(by_linkage(&embeddings, 4.0).groups(), 1);
}

#[test]
fn exact_ties_are_broken_by_content_so_the_order_of_the_input_changes_nothing() {
    // Corners of a cross: every face ties with many, and a cut in the middle leaves the choice to the tie rule.
    let corner = |at: usize| {
        let mut values = [0.0; 128];
        values[at % 40] = if at < 40 { 1.0 } else { -1.0 };
        values[(at + 1) % 40] = 1.0;
        Embedding::normalized(&values).unwrap()
    };
    check_order(&(0..80).map(corner).collect::<Vec<_>>(), &[0.9, 1.4, 1.7]);
    check_order(&people(30, 200, 0.7, 6).0, &[0.5, 0.8, 1.2]);
}

#[track_caller]
fn check_order(embeddings: &[Embedding], cuts: &[f32]) {
    let mut order: Vec<usize> = (0..embeddings.len()).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(9));
    let shuffled: Vec<Embedding> = order.iter().map(|at| embeddings[*at].clone()).collect();
    for cut in cuts {
        let (straight, mixed) = (by_linkage(embeddings, *cut), by_linkage(&shuffled, *cut));
        let straight: Vec<u32> = order.iter().map(|at| straight.labels[*at]).collect();
        let agreement = agreement(&mixed.labels, &straight).unwrap();
        assert_eq!((agreement.bcubed.f, agreement.pairwise.f), (1.0, 1.0), "at cut {cut}");
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let (embeddings, _) = people(80, 700, 0.9, 7);
    let with = |threads: usize, method| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| cluster(&embeddings, method)).unwrap()
    };
    for method in [Method::AverageLinkage { cut: 0.9 }, Method::KMeans { k: 80, seed: 3 }] {
        let one = with(1, method);
        assert!(one.groups() > 10);
        assert_eq!(one, with(3, method));
    }
}

#[test]
fn none_one_and_two_faces_are_grouped_without_fuss() {
    let (embeddings, _) = people(200, 2, 3.0, 8);
    assert_eq!(by_linkage(&[], 1.0).groups(), 0);
    assert_eq!(by_linkage(&embeddings[..1], 1.0).labels, [0]);
    assert_eq!(by_linkage(&embeddings, 0.5).labels, [0, 1]);
    assert_eq!(by_linkage(&embeddings, 4.0).labels, [0, 0]);
}

#[test]
fn arguments_out_of_range_are_refused() {
    let (embeddings, _) = people(2, 4, 0.1, 8);
    for cut in [-0.1, 4.1, f32::NAN] {
        assert!(cluster(&embeddings, Method::AverageLinkage { cut }).is_err());
    }
    for k in [0, 5] {
        assert!(cluster(&embeddings, Method::KMeans { k, seed: 1 }).is_err());
    }
}

#[test]
fn k_means_finds_people_who_are_far_apart_and_repeats_itself() {
    let (embeddings, truth) = people(12, 240, 0.3, 10);
    let found = cluster(&embeddings, Method::KMeans { k: 12, seed: 1 }).unwrap();
    assert!(agreement(&found.labels, &truth).unwrap().pairwise.f > 0.8);
    assert_eq!(found, cluster(&embeddings, Method::KMeans { k: 12, seed: 1 }).unwrap());
    assert_ne!(found, cluster(&people(12, 240, 2.0, 10).0, Method::KMeans { k: 12, seed: 1 }).unwrap());
}

#[test]
fn k_means_gives_every_face_a_group_of_its_own_when_asked_for_as_many() {
    let (embeddings, _) = people(30, 30, 1.0, 11);
    assert_eq!(cluster(&embeddings, Method::KMeans { k: 30, seed: 5 }).unwrap().groups(), 30);
    let copies = vec![embeddings[0].clone(); 5];
    assert_eq!(cluster(&copies, Method::KMeans { k: 3, seed: 5 }).unwrap().groups(), 1, "copies can't be told apart");
}

#[test]
fn the_default_cut_tightens_as_a_collection_grows_and_stays_in_the_measured_range() {
    let different: Vec<f32> = (1..=100_000).map(|rank| 4.0 * (rank as f32 / 100_000.0).sqrt()).collect();
    let calibration = Calibration::measure("a spread", &[0.5], &different).unwrap();
    let cuts =
        [1, 2, 10, 1000, 10_000, 10_000_000].map(|faces| calibration.default_threshold(Task::Cluster, faces).unwrap());
    assert!(cuts.windows(2).all(|pair| pair[1] <= pair[0]), "{cuts:?}");
    assert!((cuts[3] - calibration.threshold(1.0 / 999.0).unwrap()).abs() < 1e-6);
    assert_eq!(cuts[5], calibration.points[0].distance);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_smaller_cut_only_splits_groups(seed in 0u64..1000, a in 0f32..2.0, b in 0f32..2.0) {
        let (embeddings, _) = people(12, 80, 0.9, seed);
        let (fine, coarse) = (by_linkage(&embeddings, a.min(b)), by_linkage(&embeddings, a.max(b)));
        prop_assert_eq!(agreement(&fine.labels, &coarse.labels).unwrap().bcubed.precision, 1.0);
    }

    #[test]
    fn a_copy_of_a_face_joins_its_twin(seed in 0u64..1000, twin in 0usize..60, cut in 0f32..1.5) {
        let (mut embeddings, _) = people(12, 60, 0.9, seed);
        embeddings.push(embeddings[twin].clone());
        let partition = by_linkage(&embeddings, cut);
        prop_assert_eq!(partition.labels[60], partition.labels[twin]);
    }
}
