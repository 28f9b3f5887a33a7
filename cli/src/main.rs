//! The `vultus` program: photos in, people out.

mod commands;

use std::process::ExitCode;

use clap::Parser;

/// Photos in, people out: find, identify, verify and cluster faces
#[derive(Debug, Parser)]
#[command(name = "vultus", version, propagate_version = true)]
struct Program {
    #[command(flatten)]
    common: commands::Common,
    #[command(subcommand)]
    command: commands::Command,
}

fn main() -> ExitCode {
    let Program { common, command } = Program::parse();
    match command.run(&common) {
        Ok(answer) => answer.into(),
        Err(error) => {
            eprintln!("vultus: {error:#}");
            ExitCode::from(2)
        }
    }
}
