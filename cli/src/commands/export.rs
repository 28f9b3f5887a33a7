//! `vultus export --out FILE`: a network for other programs, as ONNX.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context as _;
use serde::Serialize;
use vultus::detect::{Mtcnn, MtcnnNet};
use vultus::model::weights::Weights;

use super::{Answer, Common};
use crate::output;

/// Write a network as an ONNX model, for other programs to run
///
/// The embedding network takes `crops`, (n, 3, side, side) float32: aligned RGB crops averaged down to the input side, values -1 to 1. It
/// gives `embedding`, (n, 128) float32 of unit length. Digest, alignment, input side and thresholds are in the model's metadata.
/// A file that is there already is replaced.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  vultus export --out face.onnx\n  vultus export --weights facenet.safetensors --out face.onnx\n  \
                        vultus export --net proposal --out proposal.onnx"
)]
pub(crate) struct Args {
    /// Where the model goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The embedding network, or one of the detector's three
    #[arg(long, value_enum, default_value_t = Net::Embedding)]
    net: Net,
}

#[derive(Clone, Copy, Debug, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
enum Net {
    /// Crops to embeddings
    Embedding,
    /// The detector's first: every position of a photo of any size
    Proposal,
    /// The detector's second: candidates at 24 x 24
    Refine,
    /// The detector's third: candidates at 48 x 48, with landmarks
    Output,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    net: Net,
    path: &'a PathBuf,
    bytes: usize,
}

pub(crate) fn run(args: &Args, common: &Common, out: &mut dyn Write) -> anyhow::Result<Answer> {
    let model = match args.net {
        Net::Embedding => {
            anyhow::ensure!(!common.test_double, "--test-double: has no network to export");
            match &common.weights {
                Some(weights) => Weights::read(weights)?.to_onnx()?,
                None => Weights::bundled()?.to_onnx()?,
            }
        }
        Net::Proposal => Mtcnn::bundled()?.to_onnx(MtcnnNet::Proposal)?,
        Net::Refine => Mtcnn::bundled()?.to_onnx(MtcnnNet::Refine)?,
        Net::Output => Mtcnn::bundled()?.to_onnx(MtcnnNet::Output)?,
    };
    fs::write(&args.out, &model).with_context(|| args.out.display().to_string())?;
    if common.json {
        output::json(out, &Document { net: args.net, path: &args.out, bytes: model.len() })?;
    } else {
        writeln!(out, "wrote {}, {}", args.out.display(), output::bytes(model.len() as u64))?;
    }
    Ok(Answer::Yes)
}
