//! What one core does: sums of products of pixels and weights, as fast as this CPU can.
//!
//! `tile` keeps a few pixels times a few dozen channels in registers; `product` cuts convolutions and their gradients into such tiles;
//! `depthwise` and `int8` do the same for convolutions of single channels and of bytes, `amx` has tiles of its own for `bf16`. [`Level`] is which
//! instructions they use. Everything in here but `parts` runs on the calling thread, and knows nothing of networks. `product`'s definition is plain Rust in its tests.

#![allow(clippy::needless_range_loop, reason = "tiles are walked by counters, several arrays and pointers at a time")]

pub(crate) mod amx;
mod convolution;
mod depthwise;
mod int8;
mod parts;
mod product;
mod runs;
mod tile;
mod winograd;

pub(crate) use convolution::{Convolution, Map, Part, Shape, TiledWeightGradient};
pub(crate) use depthwise::Depthwise;
pub(crate) use int8::{ByteConvolution, ByteWeights, Outputs, Residual, nearest_byte};
pub(crate) use parts::{Aligned, in_parts};
pub(crate) use product::{Finish, Order, Packed, Product, Weights, whole_panels};
pub(crate) use runs::Run;

use std::sync::OnceLock;

use crate::{Error, Result};

/// The activations that follow a sum: `S` holds a slope a channel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rectifier<S> {
    None,
    /// `max(0, x)`.
    Relu,
    /// `max(0, x) + slope · min(0, x)`.
    Prelu(S),
}

impl<S> Rectifier<S> {
    /// With the slopes borrowed or changed.
    pub(crate) fn map<'a, T>(&'a self, slopes: impl FnOnce(&'a S) -> T) -> Rectifier<T> {
        match self {
            Self::None => Rectifier::None,
            Self::Relu => Rectifier::Relu,
            Self::Prelu(slope) => Rectifier::Prelu(slopes(slope)),
        }
    }
}

/// The instructions that kernels use. Holding one proves that the CPU was asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Level {
    /// What every CPU of the build's target has.
    Portable,
    /// 256-bit registers with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
    /// 512-bit registers.
    #[cfg(target_arch = "x86_64")]
    Avx512(pulp::x86::V4),
}

/// Names a level for the whole program: `portable`, `avx2` or `avx512`.
const VARIABLE: &str = "VULTUS_CPU_LEVEL";

impl Level {
    /// The best of this CPU, or what `VULTUS_CPU_LEVEL` names, if there is such a one; found out once.
    pub(crate) fn best() -> Self {
        static BEST: OnceLock<Level> = OnceLock::new();
        *BEST.get_or_init(|| match Self::named() {
            Ok(Some(level)) => level,
            Ok(None) | Err(_) => Self::available().next().unwrap_or(Self::Portable),
        })
    }

    /// What `VULTUS_CPU_LEVEL` names.
    ///
    /// # Errors
    /// `Argument` with the levels of this CPU when it names another.
    pub(crate) fn named() -> Result<Option<Self>> {
        let Some(wanted) = std::env::var_os(VARIABLE) else { return Ok(None) };
        let found = Self::available().find(|level| *level.name() == *wanted);
        let names = || Self::available().map(Self::name).collect::<Vec<_>>().join(", ");
        let unknown =
            || Error::argument(VARIABLE, format!("{wanted:?}: expected one of this CPU's levels: {}", names()));
        found.ok_or_else(unknown).map(Some)
    }

    /// All of this CPU, best first.
    pub(crate) fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let special = [pulp::x86::V4::try_new().map(Self::Avx512), pulp::x86::V3::try_new().map(Self::Avx2)];
        #[cfg(not(target_arch = "x86_64"))]
        let special: [Option<Self>; 0] = [];
        special.into_iter().flatten().chain([Self::Portable])
    }

    /// As in `VULTUS_CPU_LEVEL`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
        }
    }

    /// Runs `f` compiled for this level: its loops are vectorised accordingly.
    #[inline(always)]
    pub(crate) fn run<R>(self, f: impl FnOnce() -> R) -> R {
        match self {
            Self::Portable => f(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => simd.vectorize(f),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => simd.vectorize(f),
        }
    }

    /// Floats in a register.
    fn lanes(self) -> usize {
        match self {
            Self::Portable => 4,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => 8,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => 16,
        }
    }
}
