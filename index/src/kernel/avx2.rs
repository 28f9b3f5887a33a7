//! Distances eight floats at a time, for CPUs with AVX2 and FMA.

use std::arch::x86_64::{
    __m256, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_movehdup_ps, _mm_movehl_ps, _mm256_add_ps,
    _mm256_castps256_ps128, _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_setzero_ps, _mm256_sub_ps,
};

use super::{Kernel, prefetch, row, scalar};

const LANES: usize = 8;
/// Rows between asking for one and measuring it.
const AHEAD: usize = 3;

/// The kernel, if this CPU has the features. Holding the pointers is the proof that they may be called.
pub(super) fn detect() -> Option<Kernel> {
    if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
        return None;
    }
    Some(Kernel {
        scan: |query, rows, distances| {
            // SAFETY: this closure leaves `detect` only after both features were seen above.
            unsafe { scan(query, rows, distances) }
        },
        gather: |query, vectors, picked, distances| {
            // SAFETY: this closure leaves `detect` only after both features were seen above.
            unsafe { gather(query, vectors, picked, distances) }
        },
    })
}

#[target_feature(enable = "avx2,fma")]
fn scan(query: &[f32], rows: &[f32], distances: &mut [f32]) {
    for (row, distance) in rows.chunks_exact(query.len()).zip(distances) {
        *distance = squared_distance(query, row);
    }
}

#[target_feature(enable = "avx2,fma")]
fn gather(query: &[f32], vectors: &[f32], picked: &[u32], distances: &mut [f32]) {
    for (i, (&now, distance)) in picked.iter().zip(distances).enumerate() {
        if let Some(&soon) = picked.get(i + AHEAD) {
            prefetch(row(vectors, query.len(), soon));
        }
        *distance = squared_distance(query, row(vectors, query.len(), now));
    }
}

/// Two running sums, because one would wait for itself: an FMA takes four cycles.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    let (a_chunks, a_tail) = a.as_chunks::<LANES>();
    let (b_chunks, b_tail) = b.as_chunks::<LANES>();
    let mut sums = [_mm256_setzero_ps(); 2];
    for (i, (a, b)) in a_chunks.iter().zip(b_chunks).enumerate() {
        // SAFETY: each chunk is exactly LANES floats, and `loadu` asks for no alignment.
        let (a, b) = unsafe { (_mm256_loadu_ps(a.as_ptr()), _mm256_loadu_ps(b.as_ptr())) };
        let difference = _mm256_sub_ps(a, b);
        sums[i % 2] = _mm256_fmadd_ps(difference, difference, sums[i % 2]);
    }
    horizontal_sum(_mm256_add_ps(sums[0], sums[1])) + scalar::squared_distance(a_tail, b_tail)
}

/// Halves are added until one lane is left.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn horizontal_sum(lanes: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}
