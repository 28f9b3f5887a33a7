//! One subcommand a file: what it takes, what it does. Doc comments are the help.

mod align;
mod bench;
mod check;
mod cluster;
mod demo;
mod eval;
mod export;
mod forget;
mod identify;
mod ingest;
mod people;
mod quantise;
mod serve;
mod stats;
mod train;
mod verify;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use vultus::model::weights::Weights;
use vultus::model::{Compute, Precision};
use vultus::photo::Limits;
use vultus::{Gallery, Photo, Recognizer};

/// What every subcommand takes
#[derive(Debug, clap::Args)]
pub(crate) struct Common {
    /// Folder of the gallery
    #[arg(long, global = true, value_name = "FOLDER", env = "VULTUS_GALLERY", default_value = "vultus.gallery")]
    pub(crate) gallery: PathBuf,
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Weights to use instead of the bundled ones (safetensors, as `vultus train` writes)
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) weights: Option<PathBuf>,
    /// Numbers that the network computes in: f32, bf16 (on a GPU, or to train) or int8 (to embed on a CPU) [default: int8 on a CPU where the weights
    /// have ranges for it, otherwise f32]
    #[arg(long, global = true, value_name = "NUMBERS")]
    pub(crate) precision: Option<Precision>,
    /// For tests: no networks, every photo is one face and photos of one colour are one person
    #[arg(long, global = true, hide = true, conflicts_with = "weights")]
    pub(crate) test_double: bool,
}

impl Common {
    /// The detector and the embedding network.
    ///
    /// # Errors
    /// Weights that can't be read.
    pub(crate) fn recognizer(&self) -> anyhow::Result<Recognizer> {
        self.recognizer_on(Compute::Cpu)
    }

    /// The same, its faces embedded on the device that is asked for.
    ///
    /// # Errors
    /// Weights that can't be read; a device that is not there.
    pub(crate) fn recognizer_on(&self, device: Compute) -> anyhow::Result<Recognizer> {
        let weights = match &self.weights {
            _ if self.test_double => return Ok(Recognizer::double()),
            Some(weights) => Weights::read(weights)?,
            None => Weights::bundled()?,
        };
        Ok(Recognizer::trained(weights, device, self.precision)?)
    }

    /// The gallery, started when there is none.
    ///
    /// # Errors
    /// Those of [`Gallery::open`].
    pub(crate) fn open_gallery(&self) -> anyhow::Result<Gallery> {
        Ok(Gallery::open(&self.gallery, self.recognizer()?)?)
    }

    /// The gallery, for questions: a mistyped name must not start an empty one.
    ///
    /// # Errors
    /// When there is none; those of [`Gallery::open`].
    pub(crate) fn existing_gallery(&self) -> anyhow::Result<Gallery> {
        let path = self.gallery.display();
        anyhow::ensure!(
            self.gallery.is_dir(),
            "{path}: no gallery there; `vultus ingest PHOTOS --gallery {path}` starts one"
        );
        self.open_gallery()
    }
}

/// Reads and decodes one photo.
///
/// # Errors
/// Names the file.
pub(crate) fn read_photo(path: &Path) -> anyhow::Result<Photo> {
    // An I/O error names the file itself.
    let bytes = vultus::ingest::read_file(path)?;
    Photo::decode(&bytes, &Limits::default()).with_context(|| path.display().to_string())
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Demo(demo::Args),
    Ingest(ingest::Args),
    Identify(identify::Args),
    Verify(verify::Args),
    Cluster(cluster::Args),
    People(people::Args),
    Forget(forget::Args),
    Stats(stats::Args),
    Check(check::Args),
    Serve(serve::Args),
    Align(align::Args),
    Train(train::Args),
    Quantise(quantise::Args),
    Eval(eval::Args),
    Bench(bench::Args),
    Export(export::Args),
}

/// What a command says with its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Done, or yes: 0.
    Yes,
    /// No, where the question was yes or no: 1.
    No,
    /// Stopped by Ctrl-C before the end: 130, as shells have it.
    Stopped,
}

impl From<Answer> for ExitCode {
    fn from(answer: Answer) -> Self {
        Self::from(match answer {
            Answer::Yes => 0,
            Answer::No => 1,
            Answer::Stopped => 130,
        })
    }
}

impl Command {
    pub(crate) fn run(&self, common: &Common, out: &mut dyn Write) -> anyhow::Result<Answer> {
        vultus::model::check_cpu_level()?;
        match self {
            Self::Demo(args) => demo::run(args, common, out),
            Self::Ingest(args) => ingest::run(args, common, out),
            Self::Identify(args) => identify::run(args, common, out),
            Self::Verify(args) => verify::run(args, common, out),
            Self::Cluster(args) => cluster::run(args, common, out),
            Self::People(args) => people::run(args, common, out),
            Self::Forget(args) => forget::run(args, common, out),
            Self::Stats(args) => stats::run(args, common, out),
            Self::Check(args) => check::run(args, common, out),
            Self::Serve(args) => serve::run(args, common),
            Self::Align(args) => align::run(args, common, out),
            Self::Train(args) => train::run(args, common),
            Self::Quantise(args) => quantise::run(args, common, out),
            Self::Eval(args) => eval::run(args, common, out),
            Self::Bench(args) => bench::run(args, common, out),
            Self::Export(args) => export::run(args, common, out),
        }
    }
}
