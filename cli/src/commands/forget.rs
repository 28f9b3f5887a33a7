//! `vultus forget`: remove faces for good.

use std::io::Write;
use std::path::Path;

use vultus::catalog::{FaceId, PhotoHash};
use vultus::gallery::Forget;
use vultus_api::wire;

use super::{Answer, Common};
use crate::output::{self, count};

/// Remove a face, a photo with its faces, or a person's faces from the gallery; photo files are left alone
#[derive(Debug, clap::Args)]
#[command(after_help = "A photo that is forgotten is taken in again when a later `vultus ingest` finds it.\n\n\
                        Examples:\n  vultus forget --person Ana\n  vultus forget --photo party.jpg\n  vultus forget --face 17")]
#[group(required = true, multiple = false)]
pub(crate) struct Args {
    /// A face, by its id
    #[arg(long, value_name = "ID")]
    face: Option<u64>,
    /// A photo, by its file or by the 64 hex digits of its content's hash
    #[arg(long, value_name = "HASH|FILE")]
    photo: Option<String>,
    /// Every face with this name
    #[arg(long, value_name = "NAME")]
    person: Option<String>,
}

pub(crate) fn run(args: &Args, common: &Common, out: &mut dyn Write) -> anyhow::Result<Answer> {
    let what = match args {
        Args { face: Some(id), .. } => Forget::Face(FaceId(*id)),
        Args { photo: Some(photo), .. } => Forget::Photo(photo_hash(photo)?),
        Args { person: Some(name), .. } => Forget::Person(name.clone()),
        Args { .. } => anyhow::bail!("what? --face ID, --photo HASH|FILE or --person NAME"),
    };
    let removed = common.existing_gallery()?.forget(&what)?;
    if common.json {
        output::json(out, &wire::Forgotten { removed })?;
    } else {
        writeln!(out, "{} forgotten", count(removed, "face"))?;
    }
    Ok(Answer::Yes)
}

/// A file's content is hashed; what looks like a hash and is no file is one.
fn photo_hash(text: &str) -> anyhow::Result<PhotoHash> {
    match text.parse() {
        Ok(hash) if !Path::new(text).exists() => Ok(hash),
        _ => Ok(PhotoHash::of(&vultus::ingest::read_file(Path::new(text))?)),
    }
}
