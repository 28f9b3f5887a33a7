//! Squared Euclidean distances, as fast as this CPU can.
//!
//! `scalar` is the definition; the others compute the same within rounding, and one property test holds them to it. Inside one
//! kernel, `scan` and `gather` give bit for bit the same distance for the same two vectors, so an answer does not depend on the
//! way it was found.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

use std::sync::OnceLock;

/// Ways to measure. A vector is `query.len()` floats, and rows stand one behind the other.
#[derive(Clone, Copy)]
pub(crate) struct Kernel {
    pub(crate) scan: Scan,
    pub(crate) gather: Gather,
}

/// `(query, rows, distances)`: sets `distances[i]` to that of row `i`.
type Scan = fn(&[f32], &[f32], &mut [f32]);

/// `(query, vectors, picked, distances)`: sets `distances[i]` to that of row `picked[i]`, and panics where that row lies outside
/// of `vectors`.
type Gather = fn(&[f32], &[f32], &[u32], &mut [f32]);

/// The fastest kernel of this CPU, found out once.
pub(crate) fn best() -> Kernel {
    static BEST: OnceLock<Kernel> = OnceLock::new();
    *BEST.get_or_init(|| available().next().map_or(scalar::KERNEL, |(_, kernel)| kernel))
}

/// The kernels this CPU has, by name, fastest first.
fn available() -> impl Iterator<Item = (&'static str, Kernel)> {
    #[cfg(target_arch = "x86_64")]
    let special = [("avx512", avx512::detect()), ("avx2", avx2::detect())];
    #[cfg(not(target_arch = "x86_64"))]
    let special: [(&str, Option<Kernel>); 0] = [];
    special.into_iter().filter_map(|(name, kernel)| Some((name, kernel?))).chain([("scalar", scalar::KERNEL)])
}

/// Row `row` of `vectors`.
#[inline(always)]
fn row(vectors: &[f32], dimensions: usize, row: u32) -> &[f32] {
    &vectors[row as usize * dimensions..][..dimensions]
}

/// Asks for a row that is measured soon: a walk jumps, and no hardware foresees where to.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn prefetch(row: &[f32]) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    for line in row.chunks(16) {
        // SAFETY: a hint, and the address is that of a live slice; every x86-64 has SSE.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vectors() -> impl Strategy<Value = (usize, Vec<f32>)> {
        (1usize..200, 1usize..6).prop_flat_map(|(dimensions, rows)| {
            (Just(dimensions), prop::collection::vec(-1.0f32..1.0, dimensions * (rows + 1)))
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
}
