//! Every kernel against the definition.

use proptest::prelude::*;

use super::*;

fn vectors() -> impl Strategy<Value = (usize, Vec<f32>)> {
    (1usize..200, 1usize..6).prop_flat_map(|(dimensions, rows)| {
        (Just(dimensions), prop::collection::vec(-1.0f32..1.0, dimensions * (rows + 1)))
    })
}

/// A query and rows of codes, the largest and smallest numbers among them.
fn codes() -> impl Strategy<Value = (Vec<i8>, Vec<u8>)> {
    let extreme = prop_oneof![Just(-127i8), Just(127), -127i8..=127];
    let byte = prop_oneof![Just(255u8), Just(0), any::<u8>()];
    (1usize..4, 0usize..40).prop_flat_map(move |(blocks, rows)| {
        let query = prop::collection::vec(extreme.clone(), blocks * 128);
        (query, prop::collection::vec(byte.clone(), blocks * 128 * rows))
    })
}

proptest! {
    #[test]
    fn every_kernel_measures_what_the_definition_says((dimensions, floats) in vectors()) {
        let (query, rows) = floats.split_at(dimensions);
        let count = rows.len() / dimensions;
        for (name, kernel) in available() {
            let mut scanned = vec![f32::NAN; count];
            (kernel.scan)(query, rows, &mut scanned);
            let picked: Vec<u32> = (0..count as u32).rev().collect();
            let mut gathered = vec![f32::NAN; count];
            (kernel.gather)(query, rows, &picked, &mut gathered);
            gathered.reverse();
            prop_assert_eq!(&scanned, &gathered, "{}: two ways, two distances", name);
            for (row, &distance) in rows.chunks(dimensions).zip(&scanned) {
                let exact: f64 = query.iter().zip(row).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
                // A difference is rounded once and enters squared; a square is rounded once; so is each of the sums.
                let bound = (dimensions + 3) as f64 * f64::from(f32::EPSILON) * exact;
                let error = (f64::from(distance) - exact).abs();
                prop_assert!(error <= bound, "{name} is off by {error:e}, allowed {bound:e}");
            }
        }
    }

    #[test]
    fn every_kernel_multiplies_codes_exactly((query, codes) in codes()) {
        let (width, half) = (query.len(), query.len() / 2);
        let bytes: Vec<i32> = codes
            .chunks(width)
            .map(|row| row.iter().zip(&query).map(|(code, q)| i32::from(*code) * i32::from(*q)).sum())
            .collect();
        let nibbles: Vec<i32> = codes
            .chunks(half)
            .map(|row| {
                let number = |at: usize| {
                    let byte = row[at / 128 * 64 + at % 64];
                    i32::from(if at % 128 < 64 { byte & 15 } else { byte >> 4 })
                };
                (0..width).map(|at| number(at) * i32::from(query[at])).sum()
            })
            .collect();
        let in_columns = |width: usize| {
            let mut blocks = vec![0; columns_bytes(codes.len() / width, width)];
            codes.chunks(width).enumerate().for_each(|(at, row)| put_in_column(&mut blocks, at, row));
            blocks
        };
        let [blocks, half_blocks] = [width, half].map(in_columns);
        for (name, kernel) in available() {
            for (what, expected, blocks, columns) in
                [("bytes", &bytes, &blocks, kernel.columns), ("nibbles", &nibbles, &half_blocks, kernel.nibble_columns)]
            {
                let mut found = vec![-1; expected.len().next_multiple_of(COLUMN)];
                columns(&query, blocks, &mut found);
                prop_assert_eq!(&found[..expected.len()], expected, "columns of {} of {}", what, name);
            }
            for (what, expected, dots) in [("bytes", &bytes, kernel.bytes), ("nibbles", &nibbles, kernel.nibbles)] {
                let picked: Vec<u32> = (0..expected.len() as u32).rev().collect();
                let mut found = vec![0; expected.len()];
                dots(&query, &codes, &picked, &mut found);
                found.reverse();
                prop_assert_eq!(&found, expected, "{} of {}", what, name);
            }
        }
    }
}

/// Rows and scores that are often the same, and extreme ones.
fn scored() -> impl Strategy<Value = Vec<(u32, i32)>> {
    let score = prop_oneof![-3i32..4, Just(i32::MIN), Just(i32::MAX), any::<i32>()];
    prop::collection::vec((prop_oneof![0u32..9, 0u32..(1 << 31) - 1], score), 0..70)
}

/// In pairs that sort as ranks should.
fn order((row, score): (u32, i32)) -> (i32, std::cmp::Reverse<u32>) {
    (score, std::cmp::Reverse(row))
}

proptest! {
    #[test]
    fn ranks_sort_by_score_and_then_by_row(pairs in scored()) {
        for pair in pairs.windows(2) {
            let [a, b] = [pair[0], pair[1]];
            prop_assert_eq!(rank(a.1, a.0).cmp(&rank(b.1, b.0)), order(a).cmp(&order(b)));
        }
    }

    #[test]
    fn every_kernel_selects_the_rows_that_rank_before_another(pairs in scored(), least in (0u32..9, -3i32..4)) {
        let is_row = |pair: &(u32, i32)| pair.0 % 7 != 6;
        let (rows, scores): (Vec<u32>, Vec<i32>) =
            pairs.iter().map(|pair| if is_row(pair) { *pair } else { (u32::MAX, pair.1) }).unzip();
        let better = pairs.into_iter().filter(|pair| is_row(pair) && order(*pair) > order(least));
        let expected: Vec<u64> = better.map(|(row, score)| rank(score, row)).collect();
        for (name, kernel) in available() {
            let mut selected = vec![0; rows.len() + RANKS];
            let count = (kernel.select)(&rows, &scores, rank(least.1, least.0), &mut selected);
            prop_assert_eq!(&selected[..count], &expected, "{}", name);
        }
    }

    #[test]
    fn every_kernel_inserts_where_ranks_belong(
        mut sorted in prop::collection::vec(prop_oneof![1u64..9, 1..u64::MAX], 0..200),
        more in prop::collection::vec(prop_oneof![1u64..9, 1..u64::MAX], 1..70),
        room in 0usize..100,
    ) {
        sorted.sort_unstable_by(|a, b| b.cmp(a));
        let first = sorted.iter().filter(|rank| more.iter().all(|more| *rank > more)).count();
        let places = (sorted.len() + room).next_multiple_of(RANKS);
        let mut expected = [&sorted[..], &more].concat();
        expected.sort_unstable_by(|a, b| b.cmp(a));
        expected.resize(places, 0);
        sorted.resize(places, 0);
        for (name, kernel) in available() {
            let mut sorted = sorted.clone();
            prop_assert_eq!((kernel.insert)(&mut sorted, &mut more.clone()), first, "{}", name);
            prop_assert_eq!(&sorted, &expected, "{}", name);
        }
    }
}

#[test]
fn a_vector_is_at_distance_zero_from_itself() {
    let vector: Vec<f32> = (0..131).map(|i| (i as f32).sin()).collect();
    for (name, kernel) in available() {
        let mut distance = [f32::NAN];
        (kernel.scan)(&vector, &vector, &mut distance);
        assert_eq!(distance, [0.0], "{name}");
    }
}
