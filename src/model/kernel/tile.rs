//! The innermost loops: a tile of outputs stays in registers while products are added to it.
//!
//! A tile is `GROUPS` runs of `PIXELS` pixels times `VECTORS` registers of channels. Each step loads the channels' weights once and every
//! pixel's value once, and multiplies all with all, so that the loads stay far below one for each multiplication. The sizes are
//! those that fill the registers of a level: 28 accumulators of 32 registers with AVX-512, 12 of 16 with AVX2.

use pulp::{Simd, WithSimd};

use super::{Level, Rectifier};

/// One tile: pointers instead of slices, since the bounds were checked for the whole product.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    /// First pixel of each group.
    pub(super) a: [*const f32; 2],
    /// From one pixel to the next, in floats. One when `TRANSPOSED`.
    pub(super) a_pixel: usize,
    /// From one step to the next. One unless `TRANSPOSED`.
    pub(super) a_step: usize,
    /// Offsets into `a` where `depth` steps begin.
    pub(super) taps: &'a [usize],
    pub(super) depth: usize,
    /// Weights of one step, and the floats to the next: those of a panel unless `TRANSPOSED`.
    pub(super) b: *const f32,
    pub(super) b_step: usize,
    /// First output of each group, and the floats from pixel to pixel.
    pub(super) out: [*mut f32; 2],
    pub(super) out_pixel: usize,
    /// Channels of the tile that exist, at most `VECTORS` registers.
    pub(super) columns: usize,
    pub(super) end: End,
}

/// What is done with the sums. Null pointers stand for nothing; bias and slopes can be read up to whole registers.
#[derive(Clone, Copy)]
pub(super) enum End {
    /// Added to what is there.
    Accumulate,
    /// `rectifier(sum + bias + residual)`.
    Write { bias: *const f32, residual: [*const f32; 2], residual_pixel: usize, rectifier: Rectifier<*const f32> },
}

/// Sums with the shape `(groups, pixels, vectors)`, at most [`limits`].
///
/// # Safety
/// The pointers of `job` must be valid for everything that its sizes reach, outputs alone at their place.
#[expect(unsafe_code, reason = "bounds are checked once a product, not once a tile")]
pub(super) unsafe fn run(level: Level, transposed: bool, shape: (usize, usize, usize), job: Job<'_>) {
    macro_rules! menu {
        ($simd:expr, $transposed:literal, $vectors:literal, $groups:literal, [$($pixels:literal)*]) => {
            match shape.1 {
                // SAFETY: the caller's promise.
                $($pixels => unsafe { tile::<_, $transposed, $groups, $pixels, $vectors>($simd, job) },)*
                _ => unreachable!("{shape:?} is not on the menu"),
            }
        };
    }
    match (level, transposed, shape.2, shape.0) {
        (Level::Portable, false, _, _) => menu!(pulp::Scalar::new(), false, 4, 1, [1 2]),
        (Level::Portable, true, _, _) => menu!(pulp::Scalar::new(), true, 4, 1, [1 2]),
        #[cfg(target_arch = "x86_64")]
        (Level::Avx2(simd), false, 1, _) => menu!(simd, false, 1, 1, [1 2 3 4 5 6]),
        #[cfg(target_arch = "x86_64")]
        (Level::Avx2(simd), false, _, 1) => menu!(simd, false, 2, 1, [1 2 3 4 5 6]),
        #[cfg(target_arch = "x86_64")]
        (Level::Avx2(simd), false, ..) => menu!(simd, false, 2, 2, [1 2 3]),
        #[cfg(target_arch = "x86_64")]
        (Level::Avx2(simd), true, ..) => menu!(simd, true, 2, 1, [1 2 3 4 5 6]),
        #[cfg(target_arch = "x86_64")]
        (Level::Avx512(simd), false, 1, 1) => menu!(simd, false, 1, 1, [1 2 3 4 5 6 7]),
        #[cfg(target_arch = "x86_64")]
        (Level::Avx512(simd), false, 1, _) => menu!(simd, false, 1, 2, [1 2 3 4 5 6 7]),
        #[cfg(target_arch = "x86_64")]
        (Level::Avx512(simd), false, _, 1) => menu!(simd, false, 2, 1, [1 2 3 4 5 6 7]),
        #[cfg(target_arch = "x86_64")]
        (Level::Avx512(simd), false, ..) => menu!(simd, false, 2, 2, [1 2 3 4 5 6 7]),
        #[cfg(target_arch = "x86_64")]
        (Level::Avx512(simd), true, _, 1) => menu!(simd, true, 2, 1, [1 2 3 4 5 6 7]),
        #[cfg(target_arch = "x86_64")]
        (Level::Avx512(simd), true, ..) => menu!(simd, true, 2, 2, [1 2 3 4 5 6 7]),
    }
}

/// The most pixels of one group, and of a group that has a second one beside it (0: none), with `vectors` registers of channels.
pub(super) fn limits(level: Level, transposed: bool, vectors: usize) -> (usize, usize) {
    match level {
        Level::Portable => (2, 0),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2(_) => (6, if transposed || vectors == 1 { 0 } else { 3 }),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512(_) => (7, 7),
    }
}

/// Registers of channels in a whole panel of weights.
pub(super) fn vectors(level: Level) -> usize {
    match level {
        // A "register" of the scalar level is one float, of which the compiler makes vectors of four.
        Level::Portable => 4,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2(_) | Level::Avx512(_) => 2,
    }
}

/// Channels in a whole panel of weights.
pub(super) fn panel(level: Level) -> usize {
    match level {
        Level::Portable => 4,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2(_) | Level::Avx512(_) => 2 * level.lanes(),
    }
}

#[expect(unsafe_code, reason = "see `run`")]
unsafe fn tile<S: Simd, const T: bool, const G: usize, const P: usize, const V: usize>(simd: S, job: Job<'_>) {
    struct Call<'a, const T: bool, const G: usize, const P: usize, const V: usize>(Job<'a>);
    impl<const T: bool, const G: usize, const P: usize, const V: usize> WithSimd for Call<'_, T, G, P, V> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            // SAFETY: only `tile` makes a `Call`, with its caller's promise.
            unsafe { finish(simd, &self.0, sums::<S, T, G, P, V>(simd, &self.0)) }
        }
    }
    simd.vectorize(Call::<T, G, P, V>(job));
}

type Sums<S, const G: usize, const P: usize, const V: usize> = [[[<S as Simd>::f32s; V]; P]; G];

#[inline(always)]
#[expect(unsafe_code, reason = "see `run`")]
unsafe fn sums<S: Simd, const T: bool, const G: usize, const P: usize, const V: usize>(
    simd: S,
    job: &Job<'_>,
) -> Sums<S, G, P, V> {
    // One step a turn: with two, the compiler loads the pixels of both at once, and spills sums to make room.
    let a_step = if T { job.a_step } else { 1 };
    let b_step = b_step::<S, T, V>(job);
    let mut sums = [[[simd.splat_f32s(0.0); V]; P]; G];
    let mut b = job.b;
    for tap in job.taps {
        let mut a = job.a;
        // SAFETY: the caller promised that every tap, step and pixel lies in `a`, and every step in `b`.
        unsafe {
            for a in a.iter_mut().take(G) {
                *a = a.add(*tap);
            }
            for _ in 0..job.depth {
                step::<S, T, G, P, V>(simd, job, a, b, &mut sums);
                for a in a.iter_mut().take(G) {
                    *a = a.wrapping_add(a_step);
                }
                b = b.wrapping_add(b_step);
            }
        }
    }
    sums
}

/// From one step's weights to the next. A constant for packed ones, which saves a register: with one less, sums are spilled.
#[inline(always)]
fn b_step<S: Simd, const T: bool, const V: usize>(job: &Job<'_>) -> usize {
    // Panels are packed at their whole width, also where a tile computes half of it.
    if T { job.b_step } else { V.max(2) * S::F32_LANES }
}

/// Adds the products of one step. A function that is always inlined, since a closure would be compiled without the
/// instructions of `S`.
#[inline(always)]
#[expect(unsafe_code, reason = "see `run`")]
unsafe fn step<S: Simd, const T: bool, const G: usize, const P: usize, const V: usize>(
    simd: S,
    job: &Job<'_>,
    a: [*const f32; 2],
    b: *const f32,
    sums: &mut Sums<S, G, P, V>,
) {
    let a_pixel = if T { 1 } else { job.a_pixel };
    let mut weights = [simd.splat_f32s(0.0); V];
    for v in 0..V {
        // SAFETY: the caller's promise: the step's weights lie in `b`.
        weights[v] = unsafe { load::<S>(b.add(v * S::F32_LANES)) };
    }
    for g in 0..G {
        for p in 0..P {
            // SAFETY: likewise for every pixel of the step.
            let x = simd.splat_f32s(unsafe { *a[g].add(p * a_pixel) });
            for v in 0..V {
                sums[g][p][v] = simd.mul_add_e_f32s(x, weights[v], sums[g][p][v]);
            }
        }
    }
}

#[inline(always)]
#[expect(unsafe_code, reason = "see `run`")]
unsafe fn finish<S: Simd, const G: usize, const P: usize, const V: usize>(
    simd: S,
    job: &Job<'_>,
    sums: Sums<S, G, P, V>,
) {
    for v in 0..V {
        let first = v * S::F32_LANES;
        let count = job.columns.saturating_sub(first).min(S::F32_LANES);
        for g in 0..G {
            for p in 0..P {
                // SAFETY: the caller promised `columns` outputs at each pixel, as many residuals, and whole registers of bias and slope.
                unsafe {
                    // Whole registers apart: the instructions for parts of them are many times slower on some CPUs.
                    if count == S::F32_LANES {
                        let load = |from: *const f32| load::<S>(from);
                        let store = |to: *mut f32, y| to.cast::<S::f32s>().write_unaligned(y);
                        end(simd, job, (g, p), first, sums[g][p][v], load, store);
                    } else if count > 0 {
                        let load = |from| simd.partial_load_f32s(std::slice::from_raw_parts(from, count));
                        let store = |to, y| simd.partial_store_f32s(std::slice::from_raw_parts_mut(to, count), y);
                        end(simd, job, (g, p), first, sums[g][p][v], load, store);
                    }
                }
            }
        }
    }
}

/// Finishes the sums of one pixel, from channel `first` of the tile.
#[inline(always)]
#[expect(unsafe_code, reason = "see `run`")]
unsafe fn end<S: Simd>(
    simd: S,
    job: &Job<'_>,
    (g, p): (usize, usize),
    first: usize,
    sum: S::f32s,
    from_memory: impl Fn(*const f32) -> S::f32s,
    store: impl Fn(*mut f32, S::f32s),
) {
    // SAFETY: the caller's promise.
    unsafe {
        let out = job.out[g].add(p * job.out_pixel + first);
        let mut y = sum;
        match job.end {
            End::Accumulate => y = simd.add_f32s(y, from_memory(out)),
            End::Write { bias, residual, residual_pixel, rectifier } => {
                if !bias.is_null() {
                    y = simd.add_f32s(y, load::<S>(bias.add(first)));
                }
                if !residual[g].is_null() {
                    y = simd.add_f32s(y, from_memory(residual[g].add(p * residual_pixel + first)));
                }
                y = rectified(simd, y, rectifier.map(|slope| load::<S>(slope.add(first))));
            }
        }
        store(out, y);
    }
}

/// A register behind its activation.
#[inline(always)]
pub(super) fn rectified<S: Simd>(simd: S, y: S::f32s, rectifier: Rectifier<S::f32s>) -> S::f32s {
    let zero = simd.splat_f32s(0.0);
    match rectifier {
        Rectifier::None => y,
        Rectifier::Relu => simd.max_f32s(y, zero),
        Rectifier::Prelu(slope) => simd.add_f32s(simd.max_f32s(y, zero), simd.mul_f32s(simd.min_f32s(y, zero), slope)),
    }
}

/// A register of floats, however aligned.
#[inline(always)]
#[expect(unsafe_code, reason = "see `run`")]
unsafe fn load<S: Simd>(from: *const f32) -> S::f32s {
    // SAFETY: the caller's promise: a whole register of floats can be read.
    unsafe { from.cast::<S::f32s>().read_unaligned() }
}
