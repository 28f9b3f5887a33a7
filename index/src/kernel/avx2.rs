//! Eight floats or 32 codes at a time, for CPUs with AVX2 and FMA.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _mm_add_epi32, _mm_add_ps, _mm_add_ss, _mm_cvtsi128_si32, _mm_cvtss_f32, _mm_loadu_si128,
    _mm_movehdup_ps, _mm_movehl_ps, _mm_shuffle_epi32, _mm256_add_epi16, _mm256_add_epi32, _mm256_add_ps,
    _mm256_and_si256, _mm256_castps256_ps128, _mm256_castsi256_si128, _mm256_cvtepi8_epi16, _mm256_cvtepu8_epi16,
    _mm256_extractf128_ps, _mm256_extracti128_si256, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256,
    _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_setzero_ps,
    _mm256_setzero_si256, _mm256_srli_epi16, _mm256_storeu_si256, _mm256_sub_ps,
};

use super::{COLUMN, Kernel, prefetch, row, scalar};

const LANES: usize = 8;
/// Rows between asking for one and measuring it.
const AHEAD: usize = 6;

pub(super) fn detect() -> Option<Kernel> {
    kernel_if!(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"))
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

/// Bytes are widened first: products of two of them, added in pairs, don't fit in 16 bits.
#[target_feature(enable = "avx2,fma")]
fn bytes(query: &[i8], codes: &[u8], picked: &[u32], dots: &mut [i32]) {
    for (&picked, dot) in picked.iter().zip(dots) {
        let mut sum = _mm256_setzero_si256();
        for (codes, query) in row(codes, query.len(), picked).as_chunks::<16>().0.iter().zip(query.as_chunks::<16>().0)
        {
            // SAFETY: sixteen bytes each, and `loadu` asks for no alignment.
            let (codes, query) =
                unsafe { (_mm_loadu_si128(codes.as_ptr().cast()), _mm_loadu_si128(query.as_ptr().cast())) };
            let products = _mm256_madd_epi16(_mm256_cvtepu8_epi16(codes), _mm256_cvtepi8_epi16(query));
            sum = _mm256_add_epi32(sum, products);
        }
        *dot = sum_of_lanes(sum);
    }
}

#[target_feature(enable = "avx2,fma")]
fn nibbles(query: &[i8], codes: &[u8], picked: &[u32], dots: &mut [i32]) {
    let width = query.len() / 2;
    let (low, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
    for (&picked, dot) in picked.iter().zip(dots) {
        let mut sum = _mm256_setzero_si256();
        for (codes, query) in row(codes, width, picked).as_chunks::<64>().0.iter().zip(query.as_chunks::<128>().0) {
            let query = query.as_chunks::<32>().0;
            // At most 4 x 2 x 15 x 127: it fits in 16 bits.
            let mut products = _mm256_setzero_si256();
            for (at, codes) in codes.as_chunks::<32>().0.iter().enumerate() {
                let codes = load(codes);
                let [first, second] = [at, at + 2].map(|at| load(bytemuck::cast_ref(&query[at])));
                let high = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), low);
                let both = [(_mm256_and_si256(codes, low), first), (high, second)];
                for (codes, query) in both {
                    products = _mm256_add_epi16(products, _mm256_maddubs_epi16(codes, query));
                }
            }
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(products, ones));
        }
        *dot = sum_of_lanes(sum);
    }
}

/// Every second byte is widened by taking its neighbour away, and so is the query.
#[target_feature(enable = "avx2,fma")]
fn columns(query: &[i8], blocks: &[u8], dots: &mut [i32]) {
    let lower = _mm256_set1_epi16(255);
    for (block, dots) in blocks.chunks_exact(COLUMN * query.len()).zip(dots.as_chunks_mut::<COLUMN>().0) {
        let mut sums = [_mm256_setzero_si256(); 2];
        for (rows, query) in block.as_chunks::<{ 4 * COLUMN }>().0.iter().zip(query.as_chunks::<4>().0) {
            let pair = |a: i8, b: i8| _mm256_set1_epi32(i32::from(b) << 16 | i32::from(i16::from(a).cast_unsigned()));
            let (even, odd) = (pair(query[0], query[2]), pair(query[1], query[3]));
            for (sum, rows) in sums.iter_mut().zip(rows.as_chunks::<32>().0) {
                let codes = load(rows);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(_mm256_and_si256(codes, lower), even));
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(_mm256_srli_epi16::<8>(codes), odd));
            }
        }
        store(sums, dots);
    }
}

#[target_feature(enable = "avx2,fma")]
fn nibble_columns(query: &[i8], blocks: &[u8], dots: &mut [i32]) {
    let (low, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
    for (block, dots) in blocks.chunks_exact(COLUMN * query.len() / 2).zip(dots.as_chunks_mut::<COLUMN>().0) {
        let mut sums = [_mm256_setzero_si256(); 2];
        for (rows, query) in block.as_chunks::<{ 4 * COLUMN }>().0.iter().zip(scalar::fours(query)) {
            let query = query.map(|four| _mm256_set1_epi32(i32::from_le_bytes(four.map(i8::cast_unsigned))));
            for (sum, rows) in sums.iter_mut().zip(rows.as_chunks::<32>().0) {
                let codes = load(rows);
                let halves = [codes, _mm256_srli_epi16::<4>(codes)].map(|half| _mm256_and_si256(half, low));
                // At most 2 x 2 x 15 x 127: it fits in 16 bits.
                let [first, second] = [0, 1].map(|half| _mm256_maddubs_epi16(halves[half], query[half]));
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(_mm256_add_epi16(first, second), ones));
            }
        }
        store(sums, dots);
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn store(sums: [__m256i; 2], dots: &mut [i32; COLUMN]) {
    for (sum, dots) in sums.into_iter().zip(dots.as_chunks_mut::<8>().0) {
        // SAFETY: eight `i32` are 32 bytes, and `storeu` asks for no alignment.
        unsafe { _mm256_storeu_si256(dots.as_mut_ptr().cast(), sum) };
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: the array is as long as a register, and `loadu` asks for no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn sum_of_lanes(lanes: __m256i) -> i32 {
    let four: __m128i = _mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256::<1>(lanes));
    let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
    _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
}

#[target_feature(enable = "avx2,fma")]
fn select(rows: &[u32], scores: &[i32], least: u64, selected: &mut [u64]) -> usize {
    scalar::select(rows, scores, least, selected)
}

#[target_feature(enable = "avx2,fma")]
fn insert(sorted: &mut [u64], more: &mut [u64]) -> usize {
    scalar::insert(sorted, more)
}
