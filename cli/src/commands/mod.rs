//! One subcommand a file: what it takes, what it does.

mod demo;
mod eval;
mod serve;
mod train;

use std::path::PathBuf;
use std::process::ExitCode;

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
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Demo(demo::Args),
    Train(train::Args),
    Eval(eval::Args),
    Serve(serve::Args),
}

/// Yes (0) or no (1); errors are 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Yes,
    No,
}

impl From<Answer> for ExitCode {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Yes => Self::SUCCESS,
            Answer::No => Self::FAILURE,
        }
    }
}

impl Command {
    pub(crate) fn run(&self, common: &Common) -> anyhow::Result<Answer> {
        match self {
            Self::Demo(args) => demo::run(args, common),
            Self::Train(args) => train::run(args, common),
            Self::Eval(args) => eval::run(args, common),
            Self::Serve(args) => serve::run(args, common),
        }
    }
}
