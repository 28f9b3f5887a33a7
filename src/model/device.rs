//! Which device computes: asked for by a word, checked before anything long begins.
//!
//! The default build has no CUDA and says so when it is asked for it. `auto` never fails: where no GPU can be used, the CPU is.

use std::fmt;
use std::str::FromStr;

use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What a user asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compute {
    /// The first NVIDIA GPU where this build and this machine have one, otherwise the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The first NVIDIA GPU, or an error.
    Cuda,
}

impl Compute {
    /// The device, ready to compute. Products of `f32` matrices on a GPU are of TF32: 10 bits of each factor, summed in `f32`.
    ///
    /// # Errors
    /// `Argument` when a GPU is asked for, and this build has no CUDA or no GPU answers.
    pub fn device(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda => cuda(),
            Self::Auto => Ok(cuda().unwrap_or(Device::Cpu)),
        }
    }
}

/// Numbers that a network computes in. In training weights, losses and updates are `f32` always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits with the range of 32 (Micikevicius et al. 2018, arXiv:1710.03740, whose loss scaling this range makes needless).
    Bf16,
    /// 8 bits, to embed on a CPU only: the same bits behind the first layer on every CPU.
    Int8,
}

impl Precision {
    /// What candle calls it.
    ///
    /// # Errors
    /// `Argument` for bytes, in which candle computes nothing.
    pub(crate) fn dtype(self) -> Result<DType> {
        match self {
            Self::F32 => Ok(DType::F32),
            Self::Bf16 => Ok(DType::BF16),
            Self::Int8 => Err(Error::argument("precision", "int8: embeds on a CPU only; expected f32 or bf16")),
        }
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "int8" => Ok(Self::Int8),
            _ => Err(Error::argument("precision", format!("{text:?}: expected f32, bf16 or int8"))),
        }
    }
}

#[cfg(feature = "cuda")]
fn cuda() -> Result<Device> {
    let device = Device::new_cuda(0).map_err(|error| {
        // Lines after the first are a backtrace, where one was asked for.
        let why = error.to_string();
        let why = why.lines().next().unwrap_or_default();
        Error::argument("device", format!("cuda: no NVIDIA GPU and driver can be used: {why}"))
    })?;
    candle_core::cuda::set_gemm_reduced_precision_f32(true);
    candle_core::cuda::set_gemm_reduced_precision_bf16(true);
    Ok(device)
}

#[cfg(not(feature = "cuda"))]
fn cuda() -> Result<Device> {
    let what = "cuda: this program was built without CUDA; build it with `--features cuda`, or use cpu";
    Err(Error::argument("device", what))
}

impl FromStr for Compute {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda),
            _ => Err(Error::argument("device", format!("{text:?}: expected auto, cpu or cuda"))),
        }
    }
}

impl fmt::Display for Compute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use super::*;

    #[test]
    fn every_word_comes_back_and_others_are_refused() {
        for compute in [Compute::Auto, Compute::Cpu, Compute::Cuda] {
            assert_eq!(compute.to_string().parse::<Compute>().unwrap(), compute);
        }
        for (word, precision) in [("f32", Precision::F32), ("bf16", Precision::Bf16), ("int8", Precision::Int8)] {
            assert_eq!(word.parse::<Precision>().unwrap(), precision);
        }
        assert!("f64".parse::<Precision>().unwrap_err().to_string().contains("expected f32, bf16 or int8"));
        assert!("tpu".parse::<Compute>().unwrap_err().to_string().contains("expected auto, cpu or cuda"));
    }

    #[test]
    fn the_cpu_is_always_there_and_a_missing_gpu_says_why() {
        assert!(Compute::Cpu.device().unwrap().is_cpu());
        Compute::Auto.device().unwrap();
        if let Err(error) = Compute::Cuda.device() {
            let words = if cfg!(feature = "cuda") { "no NVIDIA GPU" } else { "built without CUDA" };
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
