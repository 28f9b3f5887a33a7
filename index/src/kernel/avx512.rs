//! Distances sixteen floats at a time, for CPUs with AVX-512.

use std::arch::x86_64::{
    _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_reduce_add_ps, _mm512_setzero_ps, _mm512_sub_ps,
};

use super::{Kernel, prefetch, row, scalar};

const LANES: usize = 16;
/// Rows between asking for one and measuring it.
const AHEAD: usize = 3;

/// The kernel, if this CPU has the feature. Holding the pointers is the proof that they may be called.
pub(super) fn detect() -> Option<Kernel> {
    if !is_x86_feature_detected!("avx512f") {
        return None;
    }
    Some(Kernel {
        scan: |query, rows, distances| {
            // SAFETY: this closure leaves `detect` only after the feature was seen above.
            unsafe { scan(query, rows, distances) }
        },
        gather: |query, vectors, picked, distances| {
            // SAFETY: this closure leaves `detect` only after the feature was seen above.
            unsafe { gather(query, vectors, picked, distances) }
        },
    })
}

#[target_feature(enable = "avx512f")]
fn scan(query: &[f32], rows: &[f32], distances: &mut [f32]) {
    for (row, distance) in rows.chunks_exact(query.len()).zip(distances) {
        *distance = squared_distance(query, row);
    }
}

#[target_feature(enable = "avx512f")]
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
#[target_feature(enable = "avx512f")]
fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    let (a_chunks, a_tail) = a.as_chunks::<LANES>();
    let (b_chunks, b_tail) = b.as_chunks::<LANES>();
    let mut sums = [_mm512_setzero_ps(); 2];
    for (i, (a, b)) in a_chunks.iter().zip(b_chunks).enumerate() {
        // SAFETY: each chunk is exactly LANES floats, and `loadu` asks for no alignment.
        let (a, b) = unsafe { (_mm512_loadu_ps(a.as_ptr()), _mm512_loadu_ps(b.as_ptr())) };
        let difference = _mm512_sub_ps(a, b);
        sums[i % 2] = _mm512_fmadd_ps(difference, difference, sums[i % 2]);
    }
    _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1])) + scalar::squared_distance(a_tail, b_tail)
}
