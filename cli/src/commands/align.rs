//! `vultus align --photos PATH… --out FILE`: photos of known people to the crops that `vultus train` reads.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rayon::prelude::*;
use serde::Serialize;
use vultus::Photo;
use vultus::detect::{Detect as _, Mtcnn};
use vultus::evaluation::in_the_middle;
use vultus::face::Alignment;
use vultus::photo::{Limits, shard::read_shard};

use super::{Answer, Common};
use crate::output;

/// Cut the face out of each photo of known people, aligned, for `vultus train` to read
///
/// Writes a tar shard of PERSON/PHOTO.jpg, 128 x 128 pixels: the usual five-point template with a sixteenth of margin. Where there are several
/// faces, the one nearest to the photo's middle is taken. Photos without a face, and files that are no photos, are counted and left out. A file
/// that is there already is replaced once all is done.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  vultus align --photos people/ --out people.tar")]
pub(crate) struct Args {
    /// Folders or tar shards whose files are PERSON/PHOTO.jpg (or .png, .webp)
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    photos: Vec<PathBuf>,
    /// Where the shard goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Keep a photo in which no face is found as it is: for crops that were aligned by others
    #[arg(long)]
    keep: bool,
}

/// Photos that are looked at in parallel, and written in order.
const BATCH: usize = 64;

/// Quality of the JPEGs: the crops of `dev-00.tar` are told apart as well after it as before, VAL 65.5 and 65.6 % at a FAR of 1e-3.
const QUALITY: u8 = 95;

/// What became of the photos; `--json` prints it.
#[derive(Debug, Default, Serialize)]
struct Counts {
    aligned: u64,
    kept: u64,
    without_face: u64,
    unreadable: u64,
}

enum Aligned {
    Crop(Vec<u8>),
    Kept(Vec<u8>),
    NoFace,
    Unreadable,
}

pub(crate) fn run(args: &Args, common: &Common, out: &mut dyn Write) -> anyhow::Result<Answer> {
    let beside = args.out.with_extension("partial");
    let written = write(args, &beside).and_then(|counts| {
        fs::rename(&beside, &args.out).with_context(|| args.out.display().to_string())?;
        Ok(counts)
    });
    let counts = written.inspect_err(|_| drop(fs::remove_file(&beside)))?;
    if common.json {
        output::json(out, &counts)?;
    } else {
        let Counts { aligned, kept, without_face, unreadable } = counts;
        writeln!(out, "wrote {}: {}", args.out.display(), output::count(aligned + kept, "crop"))?;
        if kept + without_face > 0 {
            let what = if args.keep { "kept as they were" } else { "left out" };
            writeln!(out, "no face found in {}, {what}", output::count(kept + without_face, "photo"))?;
        }
        if unreadable > 0 {
            writeln!(out, "{} can't be read, left out", output::count(unreadable, "file"))?;
        }
    }
    Ok(Answer::Yes)
}

/// Writes the shard to a file, all of it to disk.
fn write(args: &Args, to: &Path) -> anyhow::Result<Counts> {
    let detector = Mtcnn::bundled()?;
    let file = File::create(to).with_context(|| to.display().to_string())?;
    let mut shard = tar::Builder::new(BufWriter::new(file));
    let mut counts = Counts::default();
    let mut finish = |batch: &mut Vec<(String, Vec<u8>)>| -> anyhow::Result<()> {
        let done: Vec<_> = std::mem::take(batch)
            .into_par_iter()
            .map(|(name, bytes)| Ok((name, align(&detector, bytes, args.keep)?)))
            .collect::<vultus::Result<_>>()?;
        for (name, aligned) in done {
            let (count, member) = match aligned {
                Aligned::Crop(bytes) => (&mut counts.aligned, Some((as_jpeg(&name), bytes))),
                Aligned::Kept(bytes) => (&mut counts.kept, Some((name, bytes))),
                Aligned::NoFace => (&mut counts.without_face, None),
                Aligned::Unreadable => (&mut counts.unreadable, None),
            };
            *count += 1;
            if let Some((name, bytes)) = member {
                append(&mut shard, &name, &bytes).with_context(|| to.display().to_string())?;
            }
        }
        Ok(())
    };
    let mut batch = Vec::new();
    for path in &args.photos {
        let mut failed = Ok(());
        read_shard(path, |mut member| {
            // What can't be read is counted with what can't be decoded.
            batch.push((member.name().to_owned(), member.read().unwrap_or_default()));
            if batch.len() == BATCH {
                failed = finish(&mut batch);
            }
            Ok(if failed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        failed?;
    }
    finish(&mut batch)?;
    let written = shard.into_inner().and_then(|file| file.into_inner()?.sync_all());
    written.with_context(|| to.display().to_string())?;
    Ok(counts)
}

fn align(detector: &Mtcnn, bytes: Vec<u8>, keep: bool) -> vultus::Result<Aligned> {
    let Ok(photo) = Photo::decode(&bytes, &Limits::default()) else { return Ok(Aligned::Unreadable) };
    Ok(match in_the_middle(&photo, detector.detect(&photo)?, |face| face.bounds) {
        Some(face) => Aligned::Crop(Alignment::Landmarks.crop_with_margin(&photo, &face)?.to_jpeg(QUALITY)?),
        None if keep => Aligned::Kept(bytes),
        None => Aligned::NoFace,
    })
}

/// `people/Ana/0001.png` → `people/Ana/0001.jpg`.
fn as_jpeg(name: &str) -> String {
    let (folder, file) = name.rsplit_once('/').map_or(("", name), |(folder, _)| name.split_at(folder.len() + 1));
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    format!("{folder}{stem}.jpg")
}

fn append(shard: &mut tar::Builder<impl Write>, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    shard.append_data(&mut header, name, bytes)
}
