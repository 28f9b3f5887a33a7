//! Compiles our kernels for NVIDIA GPUs, with the feature `cuda` only: CUDA C++ to PTX, which the driver compiles for the GPU at hand.

use std::env;
use std::path::PathBuf;
use std::process::Command;

const KERNELS: &str = "src/model/norm/norm.cu";

/// The oldest GPUs whose code newer ones run: Ampere, the first with TF32 and `bf16`.
const ARCHITECTURE: &str = "-arch=compute_80";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={KERNELS}");
    println!("cargo::rerun-if-env-changed=CUDA_HOME");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    let home = ["CUDA_HOME", "CUDA_PATH", "CUDA_ROOT"].into_iter().find_map(env::var_os).map(PathBuf::from);
    let nvcc = home.map_or_else(|| PathBuf::from("nvcc"), |home| home.join("bin/nvcc"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo names the folder of outputs")).join("norm.ptx");
    let status = Command::new(&nvcc).args(["--ptx", "-O3", ARCHITECTURE, "-o"]).arg(&out).arg(KERNELS).status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{} could not compile {KERNELS}: {status}", nvcc.display()),
        Err(error) => panic!("{}: {error}; the feature cuda needs a CUDA toolkit (CUDA_HOME)", nvcc.display()),
    }
}
