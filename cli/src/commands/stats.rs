//! `vultus stats`: what is in the gallery?

use std::io::Write;

use vultus_api::wire;

use super::{Answer, Common};
use crate::output::{self, count};

/// Say what is in the gallery
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: vultus stats --gallery family.gallery --json")]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args, common: &Common, out: &mut dyn Write) -> anyhow::Result<Answer> {
    let stats = common.existing_gallery()?.stats()?;
    if common.json {
        output::json(out, &wire::Stats::from(&stats))?;
        return Ok(Answer::Yes);
    }
    let (photos, faces) = (count(stats.photos, "photo"), count(stats.faces, "face"));
    writeln!(out, "{photos}, {faces} of {}; {} unnamed", count(stats.people, "named person"), stats.unnamed)?;
    writeln!(out, "{} in {}", output::bytes(stats.bytes), common.gallery.display())?;
    writeln!(out, "model {}", stats.model)?;
    for view in &stats.rebuilt {
        writeln!(out, "rebuilt: {view}")?;
    }
    Ok(Answer::Yes)
}
