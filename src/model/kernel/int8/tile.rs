//! The innermost loops of bytes: a tile of sums stays in registers while quads of products are added to it.
//!
//! The same tiles as in `tile`, of 32-bit integers: four unsigned bytes of a pixel meet four signed weights of each channel at a time.
//! How, `registers` knows.

use super::super::Level;
use super::super::runs::Place;
#[cfg(target_arch = "x86_64")]
use super::registers::{Pairs, Quads, WideQuads};
use super::registers::{Plain, Registers};

/// Channels of a register's worth of weights are 16, or 8 twice: this many always lie side by side in memory.
pub(super) const BLOCK: usize = 16;

/// Bytes of one tap and channel that are multiplied at once.
pub(super) const QUAD: usize = 4;

/// Quads of a block's channels: one line of the cache.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Line(pub(super) [i8; BLOCK * QUAD]);

/// The instructions of these loops. Holding one proves that the CPU was asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Path {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
    /// 256-bit registers with `vpdpbusd`.
    #[cfg(target_arch = "x86_64")]
    AvxVnni(Proof),
    /// 512-bit registers with `vpdpbusd`.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Proof),
}

/// Made by [`Path`] alone, once the features were seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proof(());

impl Path {
    /// The best of a level.
    pub(super) fn of(level: Level) -> Self {
        match level {
            Level::Portable => Self::Portable,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2(simd) => Self::narrow(simd),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512(_) if is_x86_feature_detected!("avx512vnni") => Self::Avx512Vnni(Proof(())),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512(simd) => Self::narrow(*simd),
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn narrow(simd: pulp::x86::V3) -> Self {
        match is_x86_feature_detected!("avxvnni") {
            true => Self::AvxVnni(Proof(())),
            false => Self::Avx2(simd),
        }
    }

    /// Blocks of a whole panel of weights.
    pub(super) fn blocks(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni(_) => 2,
            _ => 1,
        }
    }

    /// The most pixels of one group, and of a group that has a second one beside it (0: none).
    pub(super) fn limits(self) -> (usize, usize) {
        match self {
            Self::Portable => (1, 0),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => (4, 2),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(_) => (6, 3),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni(_) => (7, 7),
        }
    }
}

/// One tile: pointers instead of slices, since the bounds were checked for the whole product.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    pub(super) a: *const u8,
    pub(super) a_pixel: usize,
    /// Offsets into `a` where quads begin, and how many.
    pub(super) taps: &'a [usize],
    pub(super) quads: usize,
    pub(super) weights: *const Line,
    /// Channels of the tile that exist, at most those of its registers.
    pub(super) columns: usize,
    /// One for each channel.
    pub(super) scale: *const f32,
    pub(super) bias: *const f32,
    pub(super) residual: Addend,
    pub(super) residual_pixel: usize,
    pub(super) residual_step: f32,
    pub(super) out: Store,
    pub(super) out_pixel: usize,
}

/// What is added to the sums.
#[derive(Clone, Copy)]
pub(super) enum Addend {
    None,
    Floats(*const f32),
    Bytes(*const u8),
}

/// Where the outputs go.
#[derive(Clone, Copy)]
pub(super) enum Store {
    Floats(*mut f32),
    Bytes(*mut u8),
}

/// Sums with the shape `(groups, pixels, blocks)`, at most [`Path::limits`] and [`Path::blocks`].
///
/// # Safety
/// The pointers of `job` must be valid for everything that its sizes reach, outputs alone at their place.
#[expect(unsafe_code, reason = "bounds are checked once a product, not once a tile")]
pub(super) unsafe fn run(path: Path, shape: (usize, usize, usize), job: &Job<'_>, places: &[Place; 2]) {
    macro_rules! menu {
        ($tile:ident, $vectors:literal, $groups:literal, [$($pixels:literal)*]) => {
            match shape.1 {
                // SAFETY: the caller's promise; the path proves that the CPU has the features.
                $($pixels => unsafe { $tile::<$groups, $pixels, $vectors>(job, places) },)*
                _ => unreachable!("{shape:?} is not on the menu"),
            }
        };
    }
    match (path, shape.0, shape.2) {
        (Path::Portable, ..) => menu!(portable, 2, 1, [1]),
        #[cfg(target_arch = "x86_64")]
        (Path::Avx2(_), 1, _) => menu!(avx2, 2, 1, [1 2 3 4]),
        #[cfg(target_arch = "x86_64")]
        (Path::Avx2(_), ..) => menu!(avx2, 2, 2, [1 2]),
        #[cfg(target_arch = "x86_64")]
        (Path::AvxVnni(_), 1, _) => menu!(avx_vnni, 2, 1, [1 2 3 4 5 6]),
        #[cfg(target_arch = "x86_64")]
        (Path::AvxVnni(_), ..) => menu!(avx_vnni, 2, 2, [1 2 3]),
        #[cfg(target_arch = "x86_64")]
        (Path::Avx512Vnni(_), 1, 1) => menu!(avx512_vnni, 1, 1, [1 2 3 4 5 6 7]),
        #[cfg(target_arch = "x86_64")]
        (Path::Avx512Vnni(_), _, 1) => menu!(avx512_vnni, 1, 2, [1 2 3 4 5 6 7]),
        #[cfg(target_arch = "x86_64")]
        (Path::Avx512Vnni(_), 1, _) => menu!(avx512_vnni, 2, 1, [1 2 3 4 5 6 7]),
        #[cfg(target_arch = "x86_64")]
        (Path::Avx512Vnni(_), ..) => menu!(avx512_vnni, 2, 2, [1 2 3 4 5 6 7]),
    }
}

#[expect(unsafe_code, reason = "see `run`")]
unsafe fn portable<const G: usize, const P: usize, const V: usize>(job: &Job<'_>, places: &[Place; 2]) {
    // SAFETY: the caller's promise.
    unsafe { tile::<Plain, G, P, V>(job, places) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[expect(unsafe_code, reason = "see `run`")]
unsafe fn avx2<const G: usize, const P: usize, const V: usize>(job: &Job<'_>, places: &[Place; 2]) {
    // SAFETY: the caller's promise.
    unsafe { tile::<Pairs, G, P, V>(job, places) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,avxvnni")]
#[expect(unsafe_code, reason = "see `run`")]
unsafe fn avx_vnni<const G: usize, const P: usize, const V: usize>(job: &Job<'_>, places: &[Place; 2]) {
    // SAFETY: the caller's promise.
    unsafe { tile::<Quads, G, P, V>(job, places) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[expect(unsafe_code, reason = "see `run`")]
unsafe fn avx512_vnni<const G: usize, const P: usize, const V: usize>(job: &Job<'_>, places: &[Place; 2]) {
    // SAFETY: the caller's promise.
    unsafe { tile::<WideQuads, G, P, V>(job, places) }
}

#[inline(always)]
#[expect(unsafe_code, reason = "see `run`")]
unsafe fn tile<R: Registers, const G: usize, const P: usize, const V: usize>(job: &Job<'_>, places: &[Place; 2]) {
    // SAFETY: the caller's promise for the job, and `R`'s features.
    unsafe {
        let sums = sums::<R, G, P, V>(job, places);
        for v in 0..V {
            let first = v * R::LANES;
            if first >= job.columns {
                break;
            }
            let channels = R::channels(job, first);
            for g in 0..G {
                for p in 0..P {
                    let out = places[g].out + p * job.out_pixel + first;
                    let residual = places[g].residual + p * job.residual_pixel + first;
                    R::finish(job, channels, out, residual, sums[g][p][v]);
                }
            }
        }
    }
}

type Tile<R, const G: usize, const P: usize, const V: usize> = [[[<R as Registers>::Sums; V]; P]; G];

#[inline(always)]
#[expect(unsafe_code, reason = "see `run`")]
unsafe fn sums<R: Registers, const G: usize, const P: usize, const V: usize>(
    job: &Job<'_>,
    places: &[Place; 2],
) -> Tile<R, G, P, V> {
    // A path's panel is as wide as its widest tile.
    let lines = if R::LANES == BLOCK { 2 } else { 1 };
    // SAFETY: the caller promised that every tap, quad and pixel lies in `a`, and every quad in `weights`.
    unsafe {
        let mut sums = [[[R::zero(); V]; P]; G];
        let mut weights = job.weights;
        for tap in job.taps {
            let mut a = places.map(|place| job.a.wrapping_add(place.a + tap));
            // One quad a turn, as in `tile`.
            for _ in 0..job.quads {
                step::<R, G, P, V>(&mut sums, a, job.a_pixel, weights);
                a = a.map(|a| a.wrapping_add(QUAD));
                weights = weights.add(lines);
            }
        }
        sums
    }
}

#[inline(always)]
#[expect(unsafe_code, reason = "see `run`")]
unsafe fn step<R: Registers, const G: usize, const P: usize, const V: usize>(
    sums: &mut Tile<R, G, P, V>,
    a: [*const u8; 2],
    a_pixel: usize,
    line: *const Line,
) {
    // SAFETY: as in `sums`.
    unsafe {
        let mut weights = [R::weights(line.cast()); V];
        for (v, weights) in weights.iter_mut().enumerate() {
            *weights = R::weights(line.cast::<i8>().add(v * R::LANES * QUAD));
        }
        for g in 0..G {
            for p in 0..P {
                let quad = R::quad(a[g].add(p * a_pixel).cast::<[u8; QUAD]>().read_unaligned());
                for v in 0..V {
                    sums[g][p][v] = R::add(sums[g][p][v], quad, weights[v]);
                }
            }
        }
    }
}
