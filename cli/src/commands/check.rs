//! `vultus check`: is every byte of the gallery what was written?

use std::io::Write;

use serde::Serialize;

use super::{Answer, Common};
use crate::output;

/// Read every byte of the gallery and say whether all is as it was written
///
/// The catalog and the filters are verified whenever a gallery is opened; the index of vectors is only as far as it is read. This reads the rest.
/// What is damaged in the index is rebuilt from the catalog with --repair, or by the next question that meets it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 all is well or was mended, 1 damage was found, 2 the catalog cannot be read.\n\n\
                        Example: vultus check --gallery family.gallery --repair"
)]
pub(crate) struct Args {
    /// Rebuild from the catalog what is damaged
    #[arg(long)]
    repair: bool,
}

/// What a check found, as JSON.
#[derive(Serialize)]
struct Checked {
    /// Rebuilt when the gallery was opened, or now.
    rebuilt: Vec<String>,
    damaged: Vec<String>,
}

pub(crate) fn run(args: &Args, common: &Common, out: &mut dyn Write) -> anyhow::Result<Answer> {
    let gallery = common.existing_gallery()?;
    let mut damaged = gallery.check()?;
    if args.repair && !damaged.is_empty() {
        gallery.repair()?;
        damaged = gallery.check()?;
    }
    let checked = Checked { rebuilt: gallery.stats()?.rebuilt, damaged };
    if common.json {
        output::json(out, &checked)?;
    } else {
        checked.rebuilt.iter().try_for_each(|line| writeln!(out, "rebuilt: {line}"))?;
        checked.damaged.iter().try_for_each(|line| writeln!(out, "damaged: {line}"))?;
        if checked.damaged.is_empty() {
            writeln!(out, "all is as it was written")?;
        }
    }
    Ok(if checked.damaged.is_empty() { Answer::Yes } else { Answer::No })
}
