//! `vultus train RECIPE.toml --data SHARD… --out FILE`: labelled crops to weights.

use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use vultus::Calibration;
use vultus::model::Compute;
use vultus::model::weights::Weights;
use vultus::training::data::LabelledCrops;
use vultus::training::{Observer, Output, Recipe, Report, calibrate, train};

use super::{Answer, Common};
use crate::metrics::{Metrics, val_at};

/// Train an embedding network on labelled crops, as a recipe says
///
/// A recipe is a TOML file: the network, and the stages that it goes through, each with its batches, loss, augmentation and learning rate
/// (see models/README.md). Data is a folder (or tar shards) with one folder a person. The run writes a checkpoint as it goes, and goes on from
/// it when it is started again. At the end the weights are rounded to 16 bits, calibrated on the held-out people, and written with their thresholds.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  vultus train models/small.toml --data train-*.tar --held-out dev.tar --out small.safetensors"
)]
pub(crate) struct Args {
    /// What is trained, and how
    #[arg(value_name = "RECIPE.toml")]
    recipe: PathBuf,
    /// Folders or tar shards with crops, IDENTITY/NAME.webp
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    data: Vec<PathBuf>,
    /// People to evaluate and calibrate on, in the same form; none of them in the data
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    held_out: Vec<PathBuf>,
    /// Where the weights go, after each evaluation and at the end; the checkpoint is beside them, FILE.checkpoint
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Steps between two checkpoints
    #[arg(long, default_value_t = 100)]
    checkpoint_every: u64,
    /// Steps between two evaluations
    #[arg(long, default_value_t = 250)]
    evaluate_every: u64,
    /// Threads that decode and augment crops beside the training; as many as the machine has if not given
    #[arg(long, value_name = "THREADS")]
    data_threads: Option<NonZeroUsize>,
    /// Mebibytes of memory in which crops stay once they were decoded
    #[arg(long, default_value_t = 2048, value_name = "MIB")]
    keep_decoded: usize,
    /// What trains: cpu, cuda (an NVIDIA GPU, in builds with the feature cuda), or auto, the GPU where there is one
    ///
    /// A run may change its device: a checkpoint goes on anywhere, with the rounding of the device.
    #[arg(long, default_value_t = Compute::Auto)]
    device: Compute,
}

pub(crate) fn run(args: &Args, common: &Common) -> anyhow::Result<Answer> {
    // A device that is not there is said before anything is read.
    let device = args.device.device()?;
    let mut recipe = Recipe::read(&args.recipe)?;
    if let Some(precision) = common.precision {
        recipe.precision = precision;
        recipe.check()?;
    }
    let checkpoint = args.out.with_extension("checkpoint");
    let output = Output {
        checkpoint: checkpoint.clone(),
        checkpoint_every: args.checkpoint_every,
        evaluate_every: args.evaluate_every,
        held_out: names(&args.held_out),
        data_threads: args.data_threads.or(std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get),
        device,
    };
    let data = LabelledCrops::read(&args.data, recipe.source_letters)?;
    let data = data.keeping_decoded(args.keep_decoded.saturating_mul(1 << 20));
    let held_out = LabelledCrops::read(&args.held_out, 0)?;
    eprintln!(
        "{} crops of {} people, {} held-out crops of {} people; {:.0} million multiplications a crop, on the {}",
        data.count(),
        data.identities().len(),
        held_out.count(),
        held_out.identities().len(),
        recipe.network.multiplications() as f64 / 1e6,
        if output.device.is_cpu() { "CPU" } else { "GPU" },
    );
    let stop = Arc::new(AtomicBool::new(false));
    let handler = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if handler.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
    })
    .context("watching for Ctrl-C")?;
    let mut printer = Printer {
        json: common.json,
        steps: recipe.steps(),
        terminal: std::io::stderr().is_terminal(),
        metrics: Metrics::beside(&args.out)?,
        out: args.out.clone(),
        failed: Ok(()),
        collapsed: false,
    };
    let trainer = train(&recipe, &output, &data, Some(&held_out), &stop, &mut printer)?;
    if trainer.step() < recipe.steps() {
        eprintln!("stopped at step {}; the same command goes on from {}", trainer.step(), checkpoint.display());
        return Ok(Answer::Yes);
    }
    let weights = trainer.weights()?;
    let calibration = calibrate(&weights, &held_out, &output.held_out)?;
    printer.evaluated(trainer.step(), &weights, &calibration);
    printer.failed?;
    eprintln!("wrote {}", args.out.display());
    Ok(Answer::Yes)
}

pub(super) fn names(paths: &[PathBuf]) -> String {
    let name = |path: &PathBuf| Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned();
    paths.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// Prints steps and evaluations, text or one JSON object a line, and keeps their metrics.
struct Printer {
    json: bool,
    steps: u64,
    terminal: bool,
    metrics: Metrics,
    out: PathBuf,
    /// The first failure to write metrics or weights on the way: a long run does not end for it.
    failed: anyhow::Result<()>,
    collapsed: bool,
}

/// Embeddings of random pairs are 2 apart on average; a batch of one face many times over has this.
const COLLAPSED: f32 = 0.01;

impl Printer {
    fn keep(&mut self, kept: anyhow::Result<()>) {
        if let (Ok(()), Err(error)) = (&self.failed, kept) {
            eprintln!("\n{error:#}");
            self.failed = Err(error);
        }
    }
}

impl Observer for Printer {
    fn step(&mut self, report: &Report) {
        let kept = self.metrics.step(report);
        self.keep(kept);
        if report.spread < COLLAPSED && !self.collapsed {
            eprintln!(
                "\nthe embedding has collapsed: faces of a batch are {:.4} apart; lower the learning rate",
                report.spread
            );
        }
        self.collapsed = report.spread < COLLAPSED;
        if self.json {
            println!("{}", serde_json::json!({ "step": report }));
            return;
        }
        let rate = report.crops as f64 / report.seconds.max(1e-9);
        let left = report.seconds / report.crops.max(1) as f64 * crops_left(report, self.steps);
        let line = format!(
            "{} {:>6}/{}  loss {:.4}  right {:>3.0} %  mined {:>3.0} %  spread {:.3}  gradient {:.2}  lr {:.1e}  \
             {:.0} crops/s  waited {:.0} %  {:.0} min left",
            report.stage,
            report.step,
            self.steps,
            report.loss,
            report.accuracy * 100.0,
            report.mined * 100.0,
            report.spread,
            report.gradient_norm,
            report.learning_rate,
            rate,
            100.0 * report.waited_seconds / report.seconds.max(1e-9),
            left / 60.0,
        );
        if self.terminal {
            eprint!("\r{line}\x1b[K");
        } else if report.step.is_multiple_of(20) {
            eprintln!("{line}");
        }
    }

    fn evaluated(&mut self, step: u64, weights: &Weights, calibration: &Calibration) {
        let written = weights.clone().calibrated(calibration.clone()).write(&self.out);
        self.keep(written.map_err(Into::into));
        let kept = self.metrics.evaluated(step, calibration);
        self.keep(kept);
        let val = |far: f64| val_at(calibration, far);
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
