//! What one register of channels does in the tiles of bytes, for each kind of instructions.
//!
//! VNNI multiplies four unsigned with four signed bytes and adds all to a 32-bit sum. Without it, pairs of 16-bit products do, which cannot
//! overflow either: the sums are the same on every CPU. So is what becomes of them, since nothing is fused and all rounds to even.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::int8_tile::{Addend, Job, Place, QUAD, Store};

/// What the loops need of a path, inlined into a function that has its features.
///
/// # Safety
/// The CPU must have the features that the intrinsics want, and pointers be valid for a register.
#[expect(unsafe_code, reason = "see `int8_tile::run`")]
pub(super) unsafe trait Registers {
    /// 32-bit sums, weights of as many channels, and one quad for all of these.
    type Sums: Copy;
    type Weights: Copy;
    type Quad: Copy;
    const LANES: usize;

    unsafe fn zero() -> Self::Sums;
    unsafe fn weights(from: *const i8) -> Self::Weights;
    unsafe fn quad(quad: [u8; QUAD]) -> Self::Quad;
    unsafe fn add(sums: Self::Sums, quad: Self::Quad, weights: Self::Weights) -> Self::Sums;
    /// Finishes the sums of some channels of one pixel, from channel `first` of the tile.
    unsafe fn finish(job: &Job<'_>, place: Place, pixel: usize, first: usize, sums: Self::Sums);
}

/// One block of channels without special instructions.
pub(super) struct Plain;

// SAFETY: needs no features.
#[expect(unsafe_code, reason = "see `int8_tile::run`")]
unsafe impl Registers for Plain {
    type Sums = [i32; 8];
    type Weights = [[i8; QUAD]; 8];
    type Quad = [u8; QUAD];
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> Self::Sums {
        [0; 8]
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> Self::Weights {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<Self::Weights>().read() }
    }

    #[inline(always)]
    unsafe fn quad(quad: [u8; QUAD]) -> Self::Quad {
        quad
    }

    #[inline(always)]
    unsafe fn add(mut sums: Self::Sums, quad: Self::Quad, weights: Self::Weights) -> Self::Sums {
        for (sum, weights) in sums.iter_mut().zip(weights) {
            for (a, weight) in quad.into_iter().zip(weights) {
                *sum += i32::from(a) * i32::from(weight);
            }
        }
        sums
    }

    #[inline(always)]
    unsafe fn finish(job: &Job<'_>, place: Place, pixel: usize, first: usize, sums: Self::Sums) {
        // SAFETY: the caller's promise.
        unsafe { finish(job, place, pixel, first, sums) }
    }
}

/// AVX2 without VNNI: bytes widened to 16 bits, so that no sum of two products saturates.
#[cfg(target_arch = "x86_64")]
pub(super) struct Pairs;

#[cfg(target_arch = "x86_64")]
// SAFETY: only `avx2` uses it.
#[expect(unsafe_code, reason = "see `int8_tile::run`")]
unsafe impl Registers for Pairs {
    type Sums = __m256i;
    /// The even and the odd bytes.
    type Weights = [__m256i; 2];
    type Quad = [__m256i; 2];
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> Self::Sums {
        // SAFETY: the caller has the feature.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> Self::Weights {
        // SAFETY: the caller has the feature, and promised a register of weights.
        unsafe {
            let weights = _mm256_loadu_si256(from.cast());
            [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(weights)), _mm256_srai_epi16::<8>(weights)]
        }
    }

    #[inline(always)]
    unsafe fn quad(quad: [u8; QUAD]) -> Self::Quad {
        // SAFETY: the caller has the feature.
        unsafe {
            let quad = _mm256_set1_epi32(i32::from_le_bytes(quad));
            [_mm256_and_si256(quad, _mm256_set1_epi16(0xff)), _mm256_srli_epi16::<8>(quad)]
        }
    }

    #[inline(always)]
    unsafe fn add(sums: Self::Sums, quad: Self::Quad, weights: Self::Weights) -> Self::Sums {
        // SAFETY: the caller has the feature.
        unsafe {
            let (even, odd) = (_mm256_madd_epi16(quad[0], weights[0]), _mm256_madd_epi16(quad[1], weights[1]));
            _mm256_add_epi32(sums, _mm256_add_epi32(even, odd))
        }
    }

    #[inline(always)]
    unsafe fn finish(job: &Job<'_>, place: Place, pixel: usize, first: usize, sums: Self::Sums) {
        // SAFETY: the caller's promise; eight integers are a register.
        unsafe { finish(job, place, pixel, first, std::mem::transmute::<__m256i, [i32; 8]>(sums)) }
    }
}

/// AVX-VNNI.
#[cfg(target_arch = "x86_64")]
pub(super) struct Quads;

#[cfg(target_arch = "x86_64")]
// SAFETY: only `avx_vnni` uses it.
#[expect(unsafe_code, reason = "see `int8_tile::run`")]
unsafe impl Registers for Quads {
    type Sums = __m256i;
    type Weights = __m256i;
    type Quad = __m256i;
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> Self::Sums {
        // SAFETY: the caller has the feature.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> Self::Weights {
        // SAFETY: the caller has the feature, and promised a register of weights.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn quad(quad: [u8; QUAD]) -> Self::Quad {
        // SAFETY: the caller has the feature.
        unsafe { _mm256_set1_epi32(i32::from_le_bytes(quad)) }
    }

    #[inline(always)]
    unsafe fn add(sums: Self::Sums, quad: Self::Quad, weights: Self::Weights) -> Self::Sums {
        // SAFETY: the caller has the feature.
        unsafe { _mm256_dpbusd_avx_epi32(sums, quad, weights) }
    }

    #[inline(always)]
    unsafe fn finish(job: &Job<'_>, place: Place, pixel: usize, first: usize, sums: Self::Sums) {
        // SAFETY: the caller's promise; eight integers are a register.
        unsafe { finish(job, place, pixel, first, std::mem::transmute::<__m256i, [i32; 8]>(sums)) }
    }
}

/// AVX-512 VNNI.
#[cfg(target_arch = "x86_64")]
pub(super) struct WideQuads;

#[cfg(target_arch = "x86_64")]
// SAFETY: only `avx512_vnni` uses it.
#[expect(unsafe_code, reason = "see `int8_tile::run`")]
unsafe impl Registers for WideQuads {
    type Sums = __m512i;
    type Weights = __m512i;
    type Quad = __m512i;
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn zero() -> Self::Sums {
        // SAFETY: the caller has the feature.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> Self::Weights {
        // SAFETY: the caller has the feature, and promised a register of weights.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn quad(quad: [u8; QUAD]) -> Self::Quad {
        // SAFETY: the caller has the feature.
        unsafe { _mm512_set1_epi32(i32::from_le_bytes(quad)) }
    }

    #[inline(always)]
    unsafe fn add(sums: Self::Sums, quad: Self::Quad, weights: Self::Weights) -> Self::Sums {
        // SAFETY: the caller has the feature.
        unsafe { _mm512_dpbusd_epi32(sums, quad, weights) }
    }

    #[inline(always)]
    unsafe fn finish(job: &Job<'_>, place: Place, pixel: usize, first: usize, sums: Self::Sums) {
        let count = (job.columns - first).min(Self::LANES);
        let mask = ((1u32 << count) - 1) as __mmask16;
        let (out, residual) = (place.out + pixel * job.out_pixel, place.residual + pixel * job.residual_pixel);
        let (out, residual) = (out + first, residual + first);
        // SAFETY: the caller has the features, and promised `columns` channels of scale and bias, and of outputs and residuals at each pixel.
        unsafe {
            let zero = _mm512_setzero_ps();
            let scale = _mm512_maskz_loadu_ps(mask, job.scale.add(first));
            let bias = _mm512_maskz_loadu_ps(mask, job.bias.add(first));
            let mut y = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sums), scale), bias);
            match job.residual {
                Addend::None => {}
                Addend::Floats(values) => y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask, values.add(residual))),
                Addend::Bytes { values, scale } => {
                    let bytes = _mm_maskz_loadu_epi8(mask, values.add(residual).cast());
                    let floats = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
                    y = _mm512_add_ps(y, _mm512_mul_ps(floats, _mm512_set1_ps(scale)));
                }
            }
            if job.relu {
                y = _mm512_max_ps(y, zero);
            }
            match job.out {
                Store::Floats(to) => _mm512_mask_storeu_ps(to.add(out), mask, y),
                Store::Bytes { values, inverse_scale } => {
                    let y = _mm512_max_ps(_mm512_mul_ps(y, _mm512_set1_ps(inverse_scale)), zero);
                    let bytes = _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(y));
                    _mm_mask_storeu_epi8(values.add(out).cast(), mask, bytes);
                }
            }
        }
    }
}

/// Finishes `sums` in plain Rust: what `WideQuads` does in registers.
#[inline(always)]
#[expect(unsafe_code, reason = "see `int8_tile::run`")]
unsafe fn finish<const N: usize>(job: &Job<'_>, place: Place, pixel: usize, first: usize, sums: [i32; N]) {
    let count = (job.columns - first).min(N);
    let (out, residual) = (place.out + pixel * job.out_pixel, place.residual + pixel * job.residual_pixel);
    let (out, residual) = (out + first, residual + first);
    let rectified = |y: f32| if y > 0.0 { y } else { 0.0 };
    let mut y = [0.0f32; N];
    // SAFETY: the caller promised `columns` channels of scale and bias, and of outputs and residuals at each pixel.
    unsafe {
        for c in 0..count {
            y[c] = sums[c] as f32 * *job.scale.add(first + c) + *job.bias.add(first + c);
        }
        match job.residual {
            Addend::None => {}
            Addend::Floats(values) => (0..count).for_each(|c| y[c] += *values.add(residual + c)),
            Addend::Bytes { values, scale } => {
                (0..count).for_each(|c| y[c] += f32::from(*values.add(residual + c)) * scale);
            }
        }
        if job.relu {
            y.iter_mut().for_each(|y| *y = rectified(*y));
        }
        match job.out {
            Store::Floats(to) => (0..count).for_each(|c| *to.add(out + c) = y[c]),
            Store::Bytes { values, inverse_scale } => {
                /// Added to a small number, it leaves the number's nearest integer, ties to even, in the lowest bits.
                const ROUND: f32 = 12_582_912.0;
                for c in 0..count {
                    let q = rectified(y[c] * inverse_scale);
                    let q = if q < 255.0 { q } else { 255.0 };
                    *values.add(out + c) = (q + ROUND).to_bits() as u8;
                }
            }
        }
    }
}
