//! `vultus serve`

use super::{Answer, Common};

/// Lands next
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args, _common: &Common) -> anyhow::Result<Answer> {
    anyhow::bail!("not there yet")
}
