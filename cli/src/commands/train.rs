//! `vultus train --data SHARD… --out FILE`: labelled crops to weights.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use vultus::Calibration;
use vultus::model::network::{NetworkConfig, StageConfig};
use vultus::training::data::LabelledCrops;
use vultus::training::{Observer, Options, Output, Report, calibrate, train};

use super::{Answer, Common};

/// Train an embedding network on labelled crops, with triplet loss
///
/// Data is a folder (or tar shards) with one folder a person. The run writes a checkpoint as it goes, and goes on from it when
/// it is started again with the same options. At the end the weights are rounded to 16 bits, calibrated on the held-out people, and
/// written with their thresholds.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  vultus train --data train-*.tar --held-out dev.tar --out facenet.safetensors --steps 3000"
)]
pub(crate) struct Args {
    /// Folders or tar shards with crops, IDENTITY/NAME.webp
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    data: Vec<PathBuf>,
    /// People to evaluate and calibrate on, in the same form; none of them in the data
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    held_out: Vec<PathBuf>,
    /// Where the weights go
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Letters of a person's name that say which collection they are from; negatives come from the same one
    #[arg(long, default_value_t = 0, value_name = "LETTERS")]
    source_letters: usize,
    /// Steps in all
    #[arg(long, default_value_t = Options::default().steps)]
    steps: u64,
    /// People in a batch
    #[arg(long, default_value_t = Options::default().people)]
    people: usize,
    /// Crops of each person in a batch
    #[arg(long, default_value_t = Options::default().crops)]
    crops: usize,
    /// Triplet margin, a squared distance
    #[arg(long, default_value_t = Options::default().margin)]
    margin: f32,
    /// Highest learning rate
    #[arg(long, default_value_t = Options::default().learning_rate)]
    learning_rate: f64,
    /// Seed of weights, batches and augmentation
    #[arg(long, default_value_t = Options::default().seed)]
    seed: u64,
    /// Pixels on a side of the network's input: 112 or a whole fraction of it
    #[arg(long, default_value_t = NetworkConfig::default().input_side)]
    input_side: usize,
    /// Channels of the first convolution
    #[arg(long, default_value_t = NetworkConfig::default().stem)]
    stem: usize,
    /// Stages of residual blocks as CHANNELSxBLOCKS
    #[arg(long, value_delimiter = ',', value_parser = stage, default_value = "64x2,128x2,192x2")]
    stages: Vec<StageConfig>,
    /// Steps between two checkpoints
    #[arg(long, default_value_t = 100)]
    checkpoint_every: u64,
    /// Steps between two evaluations
    #[arg(long, default_value_t = 250)]
    evaluate_every: u64,
}

fn stage(text: &str) -> Result<StageConfig, String> {
    let parsed = text.split_once('x').and_then(|(c, b)| Some((c.parse().ok()?, b.parse().ok()?)));
    let (channels, blocks) = parsed.ok_or("expected CHANNELSxBLOCKS, for example 64x2")?;
    Ok(StageConfig { channels, blocks })
}

pub(crate) fn run(args: &Args, common: &Common) -> anyhow::Result<Answer> {
    let options = Options {
        network: NetworkConfig { input_side: args.input_side, stem: args.stem, stages: args.stages.clone() },
        people: args.people,
        crops: args.crops,
        margin: args.margin,
        steps: args.steps,
        learning_rate: args.learning_rate,
        seed: args.seed,
        ..Options::default()
    };
    options.network.check().context("the network")?;
    let checkpoint = args.out.with_extension("checkpoint");
    let output = Output {
        checkpoint: checkpoint.clone(),
        checkpoint_every: args.checkpoint_every,
        evaluate_every: args.evaluate_every,
    };
    let data = LabelledCrops::read(&args.data, args.source_letters)?;
    let held_out = LabelledCrops::read(&args.held_out, 0)?;
    eprintln!(
        "{} crops of {} people, {} held-out crops of {} people; {:.0} million multiplications a crop",
        data.count(),
        data.identities().len(),
        held_out.count(),
        held_out.identities().len(),
        options.network.multiplications() as f64 / 1e6,
    );
    let stop = Arc::new(AtomicBool::new(false));
    let handler = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if handler.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
    })
    .context("watching for Ctrl-C")?;
    let mut printer = Printer { json: common.json, steps: options.steps, terminal: std::io::stderr().is_terminal() };
    let trainer = train(&options, &output, &data, Some(&held_out), &stop, &mut printer)?;
    if trainer.step() < options.steps {
        eprintln!("stopped at step {}; the same command goes on from {}", trainer.step(), checkpoint.display());
        return Ok(Answer::Yes);
    }
    let weights = trainer.weights()?;
    let calibration = calibrate(&weights, &held_out, &names(&args.held_out))?;
    printer.evaluated(trainer.step(), &calibration);
    weights.calibrated(calibration).write(&args.out)?;
    eprintln!("wrote {}", args.out.display());
    Ok(Answer::Yes)
}

fn names(paths: &[PathBuf]) -> String {
    let name = |path: &PathBuf| Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned();
    paths.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// Prints steps and evaluations: text, or one JSON object a line.
struct Printer {
    json: bool,
    steps: u64,
    terminal: bool,
}

impl Observer for Printer {
    fn step(&mut self, report: &Report) {
        if self.json {
            println!("{}", serde_json::json!({ "step": report }));
            return;
        }
        let rate = report.crops as f64 / report.seconds.max(1e-9);
        let left = report.seconds / report.crops.max(1) as f64 * crops_left(report, self.steps);
        let line = format!(
            "step {:>6}/{}  loss {:.4}  mined {:>3.0} %  spread {:.3}  lr {:.1e}  {:.0} crops/s  {:.0} min left",
            report.step,
            self.steps,
            report.loss,
            report.mined * 100.0,
            report.spread,
            report.learning_rate,
            rate,
            left / 60.0,
        );
        if self.terminal {
            eprint!("\r{line}\x1b[K");
        } else if report.step.is_multiple_of(20) {
            eprintln!("{line}");
        }
        if report.spread < 0.01 {
            eprintln!(
                "\nthe embedding has collapsed: all faces are {:.4} apart; lower the learning rate",
                report.spread
            );
        }
    }

    fn evaluated(&mut self, step: u64, calibration: &Calibration) {
        let val = |far: f64| calibration.points.iter().take_while(|p| p.far <= far).last().map_or(0.0, |p| p.val);
        if self.json {
            println!("{}", serde_json::json!({ "evaluated": { "step": step, "calibration": calibration } }));
        } else {
            let line = format!(
                "step {step:>6}  held-out people: VAL {:.3} at FAR 1e-3, {:.3} at 1e-2, {:.3} at 1e-1",
                val(1e-3),
                val(1e-2),
                val(1e-1)
            );
            eprintln!("{}{line}", if self.terminal { "\n" } else { "" });
        }
    }
}

/// Crops that the steps left will take, at the batch size so far.
fn crops_left(report: &Report, steps: u64) -> f64 {
    (steps - report.step.min(steps)) as f64 * report.batch_crops as f64
}
