//! Four floats or sixteen codes at a time, for ARM's 64-bit CPUs.

use std::arch::aarch64::{
    int8x16_t, int16x8_t, vaddq_f32, vaddvq_f32, vaddvq_s32, vandq_u8, vdupq_n_f32, vdupq_n_s16, vdupq_n_s32,
    vdupq_n_u8, vfmaq_f32, vget_high_s8, vget_high_s16, vget_high_u8, vget_low_s8, vget_low_s16, vget_low_u8,
    vld1q_f32, vld1q_s8, vld1q_u8, vmlal_s8, vmlal_s16, vmovl_s8, vmovl_u8, vpadalq_s16, vreinterpretq_s8_u8,
    vreinterpretq_s16_u16, vshrq_n_u8, vsubq_f32,
};

use super::{Kernel, row, scalar};

const LANES: usize = 4;

pub(super) fn detect() -> Option<Kernel> {
    kernel_if!(std::arch::is_aarch64_feature_detected!("neon"))
}

#[target_feature(enable = "neon")]
fn scan(query: &[f32], rows: &[f32], distances: &mut [f32]) {
    for (row, distance) in rows.chunks_exact(query.len()).zip(distances) {
        *distance = squared_distance(query, row);
    }
}

#[target_feature(enable = "neon")]
fn gather(query: &[f32], vectors: &[f32], picked: &[u32], distances: &mut [f32]) {
    for (&picked, distance) in picked.iter().zip(distances) {
        *distance = squared_distance(query, row(vectors, query.len(), picked));
    }
}

/// Four running sums, because one would wait for itself.
#[inline]
#[target_feature(enable = "neon")]
fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    let (a_chunks, a_tail) = a.as_chunks::<LANES>();
    let (b_chunks, b_tail) = b.as_chunks::<LANES>();
    let mut sums = [vdupq_n_f32(0.0); 4];
    for (i, (a, b)) in a_chunks.iter().zip(b_chunks).enumerate() {
        // SAFETY: each chunk is exactly LANES floats, and `vld1q` asks for no alignment beyond theirs.
        let (a, b) = unsafe { (vld1q_f32(a.as_ptr()), vld1q_f32(b.as_ptr())) };
        let difference = vsubq_f32(a, b);
        sums[i % 4] = vfmaq_f32(sums[i % 4], difference, difference);
    }
    let sum = vaddq_f32(vaddq_f32(sums[0], sums[1]), vaddq_f32(sums[2], sums[3]));
    vaddvq_f32(sum) + scalar::squared_distance(a_tail, b_tail)
}

/// Bytes are widened first: a product of two does not fit in 16 bits.
#[target_feature(enable = "neon")]
fn bytes(query: &[i8], codes: &[u8], picked: &[u32], dots: &mut [i32]) {
    for (&picked, dot) in picked.iter().zip(dots) {
        let mut sums = [vdupq_n_s32(0); 2];
        for (codes, query) in row(codes, query.len(), picked).as_chunks::<16>().0.iter().zip(query.as_chunks::<16>().0)
        {
            // SAFETY: sixteen bytes each, which need no alignment.
            let (codes, query) = unsafe { (vld1q_u8(codes.as_ptr()), vld1q_s8(query.as_ptr())) };
            let halves = [
                (vmovl_u8(vget_low_u8(codes)), vmovl_s8(vget_low_s8(query))),
                (vmovl_u8(vget_high_u8(codes)), vmovl_s8(vget_high_s8(query))),
            ];
            for (codes, query) in halves {
                let codes = vreinterpretq_s16_u16(codes);
                sums[0] = vmlal_s16(sums[0], vget_low_s16(codes), vget_low_s16(query));
                sums[1] = vmlal_s16(sums[1], vget_high_s16(codes), vget_high_s16(query));
            }
        }
        *dot = vaddvq_s32(sums[0]) + vaddvq_s32(sums[1]);
    }
}

/// What the compiler makes of the definition has NEON in it already.
#[target_feature(enable = "neon")]
fn columns(query: &[i8], blocks: &[u8], dots: &mut [i32]) {
    scalar::columns(query, blocks, dots);
}

#[target_feature(enable = "neon")]
fn nibble_columns(query: &[i8], blocks: &[u8], dots: &mut [i32]) {
    scalar::nibble_columns(query, blocks, dots);
}

#[target_feature(enable = "neon")]
fn nibbles(query: &[i8], codes: &[u8], picked: &[u32], dots: &mut [i32]) {
    for (&picked, dot) in picked.iter().zip(dots) {
        let mut sum = vdupq_n_s32(0);
        for (codes, query) in
            row(codes, query.len() / 2, picked).as_chunks::<64>().0.iter().zip(query.as_chunks::<128>().0)
        {
            let query = query.as_chunks::<16>().0;
            // At most 16 x 15 x 127: it fits in 16 bits.
            let mut products = vdupq_n_s16(0);
            for (at, codes) in codes.as_chunks::<16>().0.iter().enumerate() {
                // SAFETY: sixteen bytes each, which need no alignment.
                let (codes, low, high) = unsafe {
                    (vld1q_u8(codes.as_ptr()), vld1q_s8(query[at].as_ptr()), vld1q_s8(query[at + 4].as_ptr()))
                };
                products = multiplied(products, vreinterpretq_s8_u8(vandq_u8(codes, vdupq_n_u8(15))), low);
                products = multiplied(products, vreinterpretq_s8_u8(vshrq_n_u8::<4>(codes)), high);
            }
            sum = vpadalq_s16(sum, products);
        }
        *dot = vaddvq_s32(sum);
    }
}

/// Adds products of sixteen bytes, two to a lane.
#[inline]
#[target_feature(enable = "neon")]
fn multiplied(sum: int16x8_t, a: int8x16_t, b: int8x16_t) -> int16x8_t {
    vmlal_s8(vmlal_s8(sum, vget_low_s8(a), vget_low_s8(b)), vget_high_s8(a), vget_high_s8(b))
}

#[target_feature(enable = "neon")]
fn select(rows: &[u32], scores: &[i32], least: u64, selected: &mut [u64]) -> usize {
    scalar::select(rows, scores, least, selected)
}

#[target_feature(enable = "neon")]
fn insert(sorted: &mut [u64], more: &mut [u64]) -> usize {
    scalar::insert(sorted, more)
}
