//! Graphs of a few hundred points on a circle and elsewhere.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::quantiser::{Quantiser, fit};
use crate::stop::Stop;

/// A graph section, the codes of its rows in their order, the quantiser's numbers and which vector each row is.
struct Made {
    section: Vec<u32>,
    codes: Vec<u8>,
    quantiser: Vec<f32>,
    order: Vec<u32>,
}

/// The quantiser's numbers for some vectors, and their codes.
fn coded(vectors: &[&[f32]]) -> (Vec<f32>, Vec<u8>) {
    let quantiser = fit(vectors);
    let width = code_bytes(vectors[0].len());
    let mut codes = vec![0; width * vectors.len()];
    let each = vectors.iter().zip(codes.chunks_mut(width));
    each.for_each(|(vector, codes)| Quantiser::view(&quantiser).encode(vector, codes));
    (quantiser, codes)
}

fn make(vectors: &[Vec<f32>]) -> Made {
    let slices: Vec<&[f32]> = vectors.iter().map(Vec::as_slice).collect();
    let (quantiser, codes) = coded(&slices);
    let built = build(&slices, Quantiser::view(&quantiser), &codes, Progress::NONE, &Stop::default()).unwrap();
    let entry_codes = built.entry_codes(&built.halves, code_bytes(slices[0].len()));
    let section = built.graph(&entry_codes).encode(&Measured::NOTHING);
    Made { section, codes: built.halves, quantiser, order: built.order }
}

impl Made {
    fn graph(&self, dimensions: usize) -> Graph<'_> {
        Graph::view(bytemuck::cast_slice(&self.section), self.order.len(), dimensions).unwrap()
    }

    fn query(&self, vector: &[f32]) -> Query {
        Quantiser::view(&self.quantiser).query(vector, Query::default())
    }

    /// The entries most like the query, best first.
    fn found(&self, vector: &[f32], reach: &Reach) -> Vec<Entry> {
        let mut scratch = Scratch::default();
        let (graph, query) = (self.graph(vector.len()), self.query(vector));
        let Ok(found) = graph.search(&query, &self.codes, None, reach, &mut scratch, &Trusted);
        assert!(found.is_sorted_by_key(|entry| std::cmp::Reverse(entry.score())));
        found.to_vec()
    }

    /// The vectors most like the query, best first.
    fn search(&self, query: &[f32], ef: usize) -> Vec<u32> {
        self.found(query, &Reach::width(ef)).iter().map(|entry| self.order[entry.row() as usize]).collect()
    }
}

fn random(count: usize, dimensions: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut vector = || {
        let numbers: Vec<f32> = (0..dimensions).map(|_| rng.random_range(-1.0..1.0)).collect();
        let length = numbers.iter().map(|x| x * x).sum::<f32>().sqrt();
        numbers.iter().map(|x| x / length).collect()
    };
    (0..count).map(|_| vector()).collect()
}

#[test]
fn every_row_is_once_in_the_order_and_finds_itself() {
    let vectors = random(900, 24, 3);
    let made = make(&vectors);
    let mut sorted = made.order.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..900).collect::<Vec<u32>>());
    let lost: Vec<usize> = (0..900).filter(|at| !made.search(&vectors[*at], 24)[..8].contains(&(*at as u32))).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

#[test]
fn a_wide_beam_finds_every_row_even_where_hundreds_are_identical() {
    let mut vectors = random(200, 24, 4);
    vectors.extend(vec![vectors[0].clone(); 400]);
    let made = make(&vectors);
    let mut found = made.search(&vectors[77], 600);
    found.sort_unstable();
    assert_eq!(found, (0..600).collect::<Vec<u32>>());
}

#[test]
fn a_build_that_was_cut_off_ends_as_if_it_had_not_been() {
    // Copies are not inserted, and rows behind them are linked to.
    let mut vectors = random(800, 24, 13);
    vectors.extend(vec![vectors[0].clone(); 100]);
    let slices: Vec<&[f32]> = vectors.iter().map(Vec::as_slice).collect();
    let (quantiser, codes) = coded(&slices);
    let built = |begun: Option<Begun>| {
        let told = std::cell::RefCell::new(Vec::new());
        let tell = |begun: &Begun| told.borrow_mut().push(begun.clone());
        let progress = Progress { begun, every: 1, tell: &tell };
        let built = build(&slices, Quantiser::view(&quantiser), &codes, progress, &Stop::default()).unwrap();
        (built.lists().to_vec(), told.into_inner())
    };
    let (whole, told) = built(None);
    let inserted: Vec<usize> = told.iter().map(|begun| begun.inserted).collect();
    assert!(inserted.len() == 3 && inserted.is_sorted() && inserted[0] >= 200, "{inserted:?}");
    for (at, begun) in told.iter().enumerate() {
        assert_eq!(built(Some(begun.clone())), (whole.clone(), told[at + 1..].to_vec()));
    }
    // It is what it goes on from, and nothing else is.
    let emptied = Begun { links: vec![NONE; told[1].links.len()], ..told[1].clone() };
    assert_ne!(built(Some(emptied)).0, whole);
    let strange = |change: &dyn Fn(&mut Begun)| {
        let mut begun = told[1].clone();
        change(&mut begun);
        assert_eq!(built(Some(begun)), (whole.clone(), told.clone()));
    };
    strange(&|begun| begun.rows_crc ^= 1);
    strange(&|begun| begun.inserted = 901);
    strange(&|begun| begun.inserted = 0);
    strange(&|begun| begun.links[77] = 900);
    strange(&|begun| begun.links.truncate(900));
}

#[test]
fn a_slack_keeps_what_is_farther_than_the_kth_by_no_more_than_its_share() {
    let vectors = random(900, 24, 9);
    let made = make(&vectors);
    for (vector, beyond) in vectors.iter().step_by(90).zip([0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9]) {
        let query = made.query(vector);
        let squared = |entry: &Entry| 2.0 - 2.0 * (query.scale * entry.score() as f32 + query.origin);
        let all = made.found(vector, &Reach::width(900));
        assert_eq!(all.len(), 900);
        // A row that looks for itself is as far away as its code is wrong.
        let most = ((1.0f32 + beyond).powi(2) * squared(&all[9])).max(squared(&all[9])) + 2.0 * query.error;
        let within = all.iter().filter(|entry| squared(entry) <= most).count();
        let found = made.found(vector, &Reach::slack(10, beyond, &query)).len();
        // A walk may miss a few, and a score be rounded.
        let is_right = (within - within.div_ceil(10)..=within + 1).contains(&found);
        assert!(found >= 10 && is_right, "{found} of {within} within {beyond}");
    }
}

#[test]
fn what_is_beyond_a_distance_is_let_go_but_for_a_few() {
    let vectors = random(900, 24, 9);
    let made = make(&vectors);
    for (vector, rank) in vectors.iter().step_by(90).zip([0, 1, 2, 4, 8, 9, 10, 20, 50, 100]) {
        let query = made.query(vector);
        let squared = |entry: &Entry| 2.0 - 2.0 * (query.scale * entry.score() as f32 + query.origin);
        let slack = Reach::slack(10, 0.05, &query);
        let without = made.found(vector, &slack);
        let distance = squared(&made.found(vector, &Reach::width(900))[rank]);
        let found = made.found(vector, &slack.within(distance, 3, &query));
        let wanted = without.iter().take_while(|entry| squared(entry) < distance).count();
        let met = found.iter().filter(|entry| without.contains(entry)).count();
        assert!(met >= wanted - wanted.div_ceil(10), "{met} of {wanted} within the {rank}th");
        assert!((3..=without.len() + 3).contains(&found.len()), "{} found", found.len());
        // A slack of 5 %, and what codes are wrong by.
        let near = |entry: &Entry| squared(entry) <= 1.05f32.powi(2) * distance + 2.0 * query.error;
        assert!(found[3..].iter().all(near), "beyond the {rank}th");
    }
}

#[test]
fn a_slack_is_bounded_where_all_rows_are_alike() {
    let vectors = random(2000, 64, 10);
    let made = make(&vectors);
    let query: Vec<f32> = vectors[0].iter().map(|x| -x).collect();
    let found = made.found(&query, &Reach::slack(2, 0.9, &made.query(&query)));
    assert_eq!(found.len(), 2 * pool::MOST);
}

#[test]
fn widths_between_those_that_were_measured_have_slacks_between() {
    let made = make(&random(300, 8, 11));
    let mut graph = made.graph(8);
    assert_eq!(graph.slack_of(50.0), None, "nothing was measured");
    graph.measured.reached[..3].copy_from_slice(&[12.0, 16.0, 30.0].map(Some));
    let slacks = [5.0, 10.0, 11.0, 12.0, 14.0, 23.0, 30.0, 30.5].map(|width| graph.slack_of(width));
    let between = |a: usize| (Graph::SLACKS[a] + Graph::SLACKS[a + 1]) / 2.0;
    let expected = [0.0, 0.0, 0.0, 0.0, between(0), between(1), Graph::SLACKS[2]];
    assert_eq!(slacks[..7], expected.map(Some));
    assert_eq!(slacks[7], None, "wider than what was measured");
}

#[test]
fn every_entry_is_in_one_group_and_most_searches_begin_at_the_nearest() {
    let vectors = random(900, 24, 12);
    let made = make(&vectors);
    let graph = made.graph(24);
    let mut rows: Vec<u32> = graph.entries.rows.iter().copied().filter(|row| *row != NONE).collect();
    let count = rows.len();
    rows.sort_unstable();
    rows.dedup();
    assert_eq!((count, rows.len()), (256, 256));
    assert_eq!((graph.entries.pivots, graph.entries.ends.len()), (32, 32));
    let mut scores = Vec::new();
    let begin_best = vectors.iter().filter(|vector| {
        let query = made.query(vector);
        Scorer::nibbles(&query.numbers, &made.codes).score(&rows, &mut scores);
        let seeds = graph.entries.seeds(&query.numbers, &mut Scratch::default());
        let best = rows.iter().zip(&scores).max_by_key(|(row, score)| (**score, std::cmp::Reverse(**row)));
        best.is_some_and(|(row, _)| *row == seeds[0])
    });
    let share = begin_best.count() as f64 / 900.0;
    assert!(share > 0.5, "{share}");
}

#[test]
fn the_graph_does_not_depend_on_the_number_of_threads() {
    let vectors = random(1500, 16, 5);
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| make(&vectors).section)
    };
    assert_eq!(with(1), with(3));
}

#[test]
fn a_build_that_is_told_to_stop_does() {
    let vectors = random(700, 16, 6);
    let slices: Vec<&[f32]> = vectors.iter().map(Vec::as_slice).collect();
    let stop = Stop::default();
    stop.set();
    let (quantiser, codes) = coded(&slices);
    assert!(build(&slices, Quantiser::view(&quantiser), &codes, Progress::NONE, &stop).is_err());
}

#[test]
fn links_that_lead_nowhere_are_not_followed() {
    let vectors = random(700, 16, 6);
    let mut made = make(&vectors);
    let healthy = made.search(&vectors[9], 16);
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let words = made.section.len();
    for _ in 0..2000 {
        let at = rng.random_range(HEAD_BYTES / 4..words);
        made.section[at] = rng.random();
    }
    // Whatever it finds, it comes back; and a healthy graph finds itself.
    let _ = made.search(&vectors[9], 16);
    assert_eq!(healthy[0], 9);
}

proptest! {
    #[test]
    fn a_header_that_lies_is_refused(words in prop::array::uniform4(prop_oneof![0u32..400, any::<u32>()]), cut in 0usize..2000) {
        let made = make(&random(300, 4, 8));
        let mut section = made.section.clone();
        prop_assume!(section[..4] != words);
        section[..4].copy_from_slice(&words);
        // No more than a refusal or a graph whose sizes happen to fit.
        if let Ok(graph) = Graph::view(bytemuck::cast_slice(&section), 300, 4) {
            prop_assert!(graph.entries.pivots >= 1 && graph.entries.pivots == graph.entries.ends.len());
        }
        let bytes: &[u8] = bytemuck::cast_slice(&made.section);
        let shorter = Graph::view(&bytes[..bytes.len() - 64 - cut], 300, 4);
        prop_assert!(shorter.is_err());
    }
}
