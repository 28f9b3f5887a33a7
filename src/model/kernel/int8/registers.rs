//! What one register of channels does in the tiles of bytes, for each kind of instructions.
//!
//! VNNI multiplies four unsigned with four signed bytes and adds all to a 32-bit sum. Without it, pairs of 16-bit products do, which cannot
//! overflow either: the sums are the same on every CPU. So is what becomes of them, since nothing is fused and all rounds to even.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::nearest_byte;
use super::tile::{Addend, Job, QUAD, Store};

/// What the loops need of a path, inlined into a function that has its features.
///
/// # Safety
/// The CPU must have the features that the intrinsics want, and pointers be valid for a register.
#[expect(unsafe_code, reason = "see `tile::run`")]
pub(super) unsafe trait Registers {
    /// 32-bit sums, weights of as many channels, and one quad for all of these.
    type Sums: Copy;
    type Weights: Copy;
    type Quad: Copy;
    /// What the sums of some channels become, whatever the pixel.
    type Channels: Copy;
    const LANES: usize;

    unsafe fn zero() -> Self::Sums;
    unsafe fn weights(from: *const i8) -> Self::Weights;
    unsafe fn quad(quad: [u8; QUAD]) -> Self::Quad;
    unsafe fn add(sums: Self::Sums, quad: Self::Quad, weights: Self::Weights) -> Self::Sums;
    /// Of the tile's channels from `first` on.
    unsafe fn channels(job: &Job<'_>, first: usize) -> Self::Channels;
    /// Finishes the sums of these channels of one pixel, whose first output and residual are at `out` and `residual`.
    unsafe fn finish(job: &Job<'_>, channels: Self::Channels, out: usize, residual: usize, sums: Self::Sums);
}

/// One block of channels without special instructions.
pub(super) struct Plain;

// SAFETY: needs no features.
#[expect(unsafe_code, reason = "see `tile::run`")]
unsafe impl Registers for Plain {
    type Sums = [i32; 8];
    type Weights = [[i8; QUAD]; 8];
    type Quad = [u8; QUAD];
    type Channels = Some8;
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
    unsafe fn channels(job: &Job<'_>, first: usize) -> Self::Channels {
        // SAFETY: the caller's promise.
        unsafe { channels(job, first) }
    }

    #[inline(always)]
    unsafe fn finish(job: &Job<'_>, channels: Self::Channels, out: usize, residual: usize, sums: Self::Sums) {
        // SAFETY: the caller's promise.
        unsafe { finish(job, channels, out, residual, sums) }
    }
}

/// AVX2 without VNNI: bytes widened to 16 bits, so that no sum of two products saturates.
#[cfg(target_arch = "x86_64")]
pub(super) struct Pairs;

#[cfg(target_arch = "x86_64")]
// SAFETY: only `avx2` uses it.
#[expect(unsafe_code, reason = "see `tile::run`")]
unsafe impl Registers for Pairs {
    type Sums = __m256i;
    /// The even and the odd bytes.
    type Weights = [__m256i; 2];
    type Quad = [__m256i; 2];
    type Channels = Some8;
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
    unsafe fn channels(job: &Job<'_>, first: usize) -> Self::Channels {
        // SAFETY: the caller's promise.
        unsafe { channels(job, first) }
    }

    #[inline(always)]
    unsafe fn finish(job: &Job<'_>, channels: Self::Channels, out: usize, residual: usize, sums: Self::Sums) {
        // SAFETY: the caller's promise; eight integers are a register.
        unsafe { finish(job, channels, out, residual, std::mem::transmute::<__m256i, [i32; 8]>(sums)) }
    }
}

/// AVX-VNNI.
#[cfg(target_arch = "x86_64")]
pub(super) struct Quads;

#[cfg(target_arch = "x86_64")]
// SAFETY: only `avx_vnni` uses it.
#[expect(unsafe_code, reason = "see `tile::run`")]
unsafe impl Registers for Quads {
    type Sums = __m256i;
    type Weights = __m256i;
    type Quad = __m256i;
    type Channels = Some8;
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
    unsafe fn channels(job: &Job<'_>, first: usize) -> Self::Channels {
        // SAFETY: the caller's promise.
        unsafe { channels(job, first) }
    }

    #[inline(always)]
    unsafe fn finish(job: &Job<'_>, channels: Self::Channels, out: usize, residual: usize, sums: Self::Sums) {
        // SAFETY: the caller's promise; eight integers are a register.
        unsafe { finish(job, channels, out, residual, std::mem::transmute::<__m256i, [i32; 8]>(sums)) }
    }
}

/// AVX-512 VNNI.
#[cfg(target_arch = "x86_64")]
pub(super) struct WideQuads;

#[cfg(target_arch = "x86_64")]
// SAFETY: only `avx512_vnni` uses it.
#[expect(unsafe_code, reason = "see `tile::run`")]
unsafe impl Registers for WideQuads {
    type Sums = __m512i;
    type Weights = __m512i;
    type Quad = __m512i;
    type Channels = Some16;
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
    unsafe fn channels(job: &Job<'_>, first: usize) -> Self::Channels {
        let count = (job.columns - first).min(Self::LANES);
        let mask = ((1u32 << count) - 1) as __mmask16;
        // SAFETY: the caller has the features, and promised `columns` channels of scale and bias.
        unsafe {
            let load = |from: *const f32| _mm512_maskz_loadu_ps(mask, from.add(first));
            Some16 { mask, scale: load(job.scale), bias: load(job.bias) }
        }
    }

    #[inline(always)]
    unsafe fn finish(job: &Job<'_>, channels: Self::Channels, out: usize, residual: usize, sums: Self::Sums) {
        let Some16 { mask, scale, bias } = channels;
        // Whole registers are stored as such: the instructions for parts of them are many times slower on some CPUs.
        let whole = mask == __mmask16::MAX;
        // SAFETY: the caller has the features, and promised `columns` outputs and residuals at each pixel.
        unsafe {
            let step = _mm512_set1_ps(job.residual_step);
            let mut y = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sums), scale), bias);
            match job.residual {
                Addend::None => {}
                Addend::Floats(values) => {
                    let floats = _mm512_maskz_loadu_ps(mask, values.add(residual));
                    y = _mm512_add_ps(y, _mm512_mul_ps(floats, step));
                }
                Addend::Bytes(values) => {
                    let bytes = _mm_maskz_loadu_epi8(mask, values.add(residual).cast());
                    let floats = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
                    y = _mm512_add_ps(y, _mm512_mul_ps(floats, step));
                }
            }
            match job.out {
                Store::Floats(to) if whole => _mm512_storeu_ps(to.add(out), y),
                Store::Floats(to) => _mm512_mask_storeu_ps(to.add(out), mask, y),
                Store::Bytes(to) => {
                    let y = _mm512_cvtps_epi32(_mm512_max_ps(y, _mm512_setzero_ps()));
                    let bytes = _mm512_cvtusepi32_epi8(y);
                    match whole {
                        true => _mm_storeu_si128(to.add(out).cast(), bytes),
                        false => _mm_mask_storeu_epi8(to.add(out).cast(), mask, bytes),
                    }
                }
            }
        }
    }
}

/// Scales and biases of a register's channels, zero where there are none.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Some16 {
    mask: __mmask16,
    scale: __m512,
    bias: __m512,
}

/// The same in plain Rust.
#[derive(Clone, Copy)]
pub(super) struct Some8 {
    count: usize,
    scale: [f32; 8],
    bias: [f32; 8],
}

#[inline(always)]
#[expect(unsafe_code, reason = "see `tile::run`")]
unsafe fn channels(job: &Job<'_>, first: usize) -> Some8 {
    let count = (job.columns - first).min(8);
    let mut channels = Some8 { count, scale: [0.0; 8], bias: [0.0; 8] };
    for c in 0..count {
        // SAFETY: the caller promised `columns` channels of scale and bias.
        unsafe { (channels.scale[c], channels.bias[c]) = (*job.scale.add(first + c), *job.bias.add(first + c)) };
    }
    channels
}

/// Finishes `sums` in plain Rust: what `WideQuads` does in registers.
#[inline(always)]
#[expect(unsafe_code, reason = "see `tile::run`")]
unsafe fn finish(job: &Job<'_>, channels: Some8, out: usize, residual: usize, sums: [i32; 8]) {
    let Some8 { count, scale, bias } = channels;
    let mut y: [f32; 8] = std::array::from_fn(|c| sums[c] as f32 * scale[c] + bias[c]);
    // SAFETY: the caller promised `columns` outputs and residuals at each pixel.
    unsafe {
        match job.residual {
            Addend::None => {}
            Addend::Floats(values) => (0..count).for_each(|c| y[c] += *values.add(residual + c) * job.residual_step),
            Addend::Bytes(values) => {
                (0..count).for_each(|c| y[c] += f32::from(*values.add(residual + c)) * job.residual_step);
            }
        }
        match job.out {
            Store::Floats(to) => (0..count).for_each(|c| *to.add(out + c) = y[c]),
            Store::Bytes(to) => (0..count).for_each(|c| *to.add(out + c) = nearest_byte(y[c])),
        }
    }
}
