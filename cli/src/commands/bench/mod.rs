//! `vultus bench`: how fast and how exact is the index, on vectors that anybody has or can make?

mod ann;
mod filters;
mod generate;
mod lines;
mod machine;
mod measure;
mod report;
mod serving;
mod source;
mod vectors;

use std::io::Write;

use super::{Answer, Common};

/// Measure the vector index: recall, queries a second, latencies, building and memory
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  vultus bench ann --generate faces --count 100000 --plot curve.svg")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Ann(ann::Args),
    Serving(serving::Args),
    Vectors(source::Args),
    Lines(lines::Args),
}

pub(crate) fn run(args: &Args, common: &Common, out: &mut dyn Write) -> anyhow::Result<Answer> {
    match &args.what {
        What::Ann(args) => ann::run(args, common, out)?,
        What::Serving(args) => serving::run(args, common, out)?,
        What::Vectors(args) => source::run(args, common, out)?,
        What::Lines(args) => lines::run(args, &mut std::io::stdin().lock(), out)?,
    }
    Ok(Answer::Yes)
}
