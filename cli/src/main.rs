//! The `vultus` program: photos in, people out.

mod commands;
mod contact_sheet;
mod metrics;
mod output;
mod pictures;
mod plot;
mod run_report;
mod samples;
mod threshold;

use std::io;
use std::process::ExitCode;

use clap::Parser;

/// Photos in, people out: find, identify, verify and cluster faces
#[derive(Debug, Parser)]
#[command(name = "vultus", version, propagate_version = true)]
#[command(after_help = "Exit codes: 0 yes or done, 1 no (different, unknown), 2 error, 130 stopped by Ctrl-C.\n\n\
                        Example: vultus ingest photos --person-from folder && vultus identify party.jpg")]
struct Program {
    #[command(flatten)]
    common: commands::Common,
    #[command(subcommand)]
    command: commands::Command,
}

fn main() -> ExitCode {
    let Program { common, command } = Program::parse();
    match command.run(&common, &mut io::stdout()) {
        Ok(answer) => answer.into(),
        // Whoever read our output has seen enough, as `head` does.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vultus: {}", message(&error));
            ExitCode::from(2)
        }
    }
}

/// The error and its causes, each once: some messages end with their cause.
fn message(error: &anyhow::Error) -> String {
    error
        .chain()
        .map(ToString::to_string)
        .reduce(|all, cause| if all.ends_with(&cause) { all } else { all + ": " + &cause })
        .unwrap_or_default()
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io_errors = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    io_errors.into_iter().any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
