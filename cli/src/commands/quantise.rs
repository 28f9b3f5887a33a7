//! `vultus quantise --data PATH… --held-out PATH… --out FILE`: weights in floats to a network in bytes.

use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;
use vultus::model::Precision;
use vultus::model::weights::Weights;
use vultus::training::calibrate;
use vultus::training::data::LabelledCrops;

use super::{Answer, Common};
use crate::output;

/// Measure what a trained network needs to embed in bytes (int8): about three times as fast on a CPU with VNNI
///
/// The ranges of the network's values are measured on training crops, and thresholds anew on the held-out people, in bytes. Both are written
/// beside the weights, which stay as they are: the file embeds in bytes on a CPU, in floats on a GPU or with --precision f32, and a
/// gallery takes both. Reads the weights of --weights, else those inside the program. A file that is there already is replaced.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  vultus quantise --weights mine.safetensors --data train-00.tar --held-out dev.tar --out mine-int8.safetensors"
)]
pub(crate) struct Args {
    /// Folders or tar shards with the crops that ranges are measured on, IDENTITY/NAME.webp
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    data: Vec<PathBuf>,
    /// People to calibrate on, in the same form; none of them in the data
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    held_out: Vec<PathBuf>,
    /// Where the weights go
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// How many crops ranges are measured on, spread evenly over the data
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    crops: u32,
    /// Embed each crop and its mirror image, and add the two: twice the time, and fewer mistakes
    #[arg(long)]
    mirror: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    path: &'a PathBuf,
    digest: &'a str,
    crops: usize,
}

pub(crate) fn run(args: &Args, common: &Common, out: &mut dyn Write) -> anyhow::Result<Answer> {
    anyhow::ensure!(!common.test_double, "--test-double: has no network to put in bytes");
    let numbers = common.precision.unwrap_or(Precision::Int8);
    anyhow::ensure!(numbers == Precision::Int8, "--precision: this command is for int8");
    let weights = match &common.weights {
        Some(weights) => Weights::read(weights)?,
        None => Weights::bundled()?,
    };
    let weights = if args.mirror { weights.mirrored() } else { weights };
    let data = LabelledCrops::read(&args.data, 0)?;
    let held_out = LabelledCrops::read(&args.held_out, 0)?;
    let step = data.count().div_ceil(args.crops as usize).max(1);
    let crops = (0..data.count()).step_by(step).map(|index| data.crop(index)).collect::<vultus::Result<Vec<_>>>()?;
    let quantised = weights.quantised(&crops)?;
    let calibration = calibrate(&quantised, &held_out, &super::train::names(&args.held_out))?;
    let quantised = quantised.calibrated(calibration);
    quantised.write(&args.out)?;
    if common.json {
        output::json(out, &Document { path: &args.out, digest: quantised.digest(), crops: crops.len() })?;
    } else {
        writeln!(out, "wrote {}: ranges of {} crops", args.out.display(), crops.len())?;
    }
    Ok(Answer::Yes)
}
