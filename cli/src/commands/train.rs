//! `vultus train --data SHARD… --out FILE`: labelled crops to weights.

use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use vultus::Calibration;
use vultus::model::Compute;
use vultus::model::network::{NetworkConfig, StageConfig};
use vultus::training::data::LabelledCrops;
use vultus::training::{Observer, Optimizer, Options, Output, Report, Schedule, calibrate, train};

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
    /// What the learning rate does after the warm-up: cosine, constant, or step:EVERY:FACTOR, times FACTOR after each EVERY steps
    #[arg(long, value_parser = schedule, default_value = "cosine")]
    schedule: Schedule,
    /// Steps in which the learning rate rises in a straight line; a twentieth of all if not given
    #[arg(long, value_name = "STEPS")]
    warm_up: Option<u64>,
    /// How gradients change weights; adagrad is what the FaceNet paper used
    #[arg(long, value_enum, default_value = "adamw")]
    optimizer: Rule,
    /// Share of the last direction that sgd keeps; 0.9 if not given
    #[arg(long, value_name = "SHARE")]
    momentum: Option<f64>,
    /// Let sgd look ahead along its momentum
    #[arg(long)]
    nesterov: bool,
    /// Weight decay of matrices and kernels
    #[arg(long, default_value_t = Options::default().weight_decay, value_name = "DECAY")]
    weight_decay: f64,
    /// Shorten the gradient of a step to this length where it is longer
    #[arg(long, value_name = "LENGTH")]
    clip: Option<f64>,
    /// Average the weights along the run with this decay, for example 0.999; the average is evaluated and written
    #[arg(long, value_name = "DECAY")]
    ema: Option<f64>,
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
    /// Threads that decode and augment crops beside the training; as many as the machine has if not given
    #[arg(long, value_name = "THREADS")]
    data_threads: Option<NonZeroUsize>,
    /// What trains: cpu, cuda (an NVIDIA GPU, in builds with the feature cuda), or auto, the GPU where there is one
    ///
    /// A run may change its device: a checkpoint goes on anywhere, with the rounding of the device.
    #[arg(long, default_value_t = Compute::Auto)]
    device: Compute,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Rule {
    Sgd,
    Adamw,
    Adagrad,
}

fn schedule(text: &str) -> Result<Schedule, String> {
    let step = || {
        let (every, factor) = text.strip_prefix("step:")?.split_once(':')?;
        Some(Schedule::Step { every: every.parse().ok()?, factor: factor.parse().ok()? })
    };
    match text {
        "cosine" => Ok(Schedule::Cosine),
        "constant" => Ok(Schedule::Constant),
        _ => step().ok_or("expected cosine, constant or step:EVERY:FACTOR, for example step:1000:0.1".into()),
    }
}

fn stage(text: &str) -> Result<StageConfig, String> {
    let parsed = text.split_once('x').and_then(|(c, b)| Some((c.parse().ok()?, b.parse().ok()?)));
    let (channels, blocks) = parsed.ok_or("expected CHANNELSxBLOCKS, for example 64x2")?;
    Ok(StageConfig { channels, blocks })
}

impl Args {
    fn optimizer(&self) -> anyhow::Result<Optimizer> {
        if self.optimizer != Rule::Sgd && (self.momentum.is_some() || self.nesterov) {
            bail!("--momentum and --nesterov are of --optimizer sgd only");
        }
        Ok(match self.optimizer {
            Rule::Sgd => Optimizer::Sgd { momentum: self.momentum.unwrap_or(0.9), nesterov: self.nesterov },
            Rule::Adamw => Optimizer::default(),
            Rule::Adagrad => Optimizer::AdaGrad,
        })
    }
}

pub(crate) fn run(args: &Args, common: &Common) -> anyhow::Result<Answer> {
    let options = Options {
        network: NetworkConfig { input_side: args.input_side, stem: args.stem, stages: args.stages.clone() },
        people: args.people,
        crops: args.crops,
        margin: args.margin,
        steps: args.steps,
        learning_rate: args.learning_rate,
        schedule: args.schedule,
        warm_up: args.warm_up.unwrap_or(args.steps / 20),
        optimizer: args.optimizer()?,
        weight_decay: args.weight_decay,
        clip: args.clip,
        ema: args.ema,
        precision: common.precision.unwrap_or_default(),
        seed: args.seed,
        ..Options::default()
    };
    options.check()?;
    let device = args.device.device()?;
    let checkpoint = args.out.with_extension("checkpoint");
    let output = Output {
        checkpoint: checkpoint.clone(),
        checkpoint_every: args.checkpoint_every,
        evaluate_every: args.evaluate_every,
        data_threads: args.data_threads.or(std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get),
        device,
    };
    let data = LabelledCrops::read(&args.data, args.source_letters)?;
    let held_out = LabelledCrops::read(&args.held_out, 0)?;
    eprintln!(
        "{} crops of {} people, {} held-out crops of {} people; {:.0} million multiplications a crop, on the {}",
        data.count(),
        data.identities().len(),
        held_out.count(),
        held_out.identities().len(),
        options.network.multiplications() as f64 / 1e6,
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

pub(super) fn names(paths: &[PathBuf]) -> String {
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
            "step {:>6}/{}  loss {:.4}  mined {:>3.0} %  spread {:.3}  gradient {:.2}  lr {:.1e}  {:.0} crops/s  \
             waited {:.0} %  {:.0} min left",
            report.step,
            self.steps,
            report.loss,
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
