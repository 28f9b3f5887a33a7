//! `vultus identify PHOTO…`: who is in these photos?

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context as _;
use serde::Serialize;
use vultus::Task;
use vultus::catalog::Filter;
use vultus::gallery::{Identified, IdentifyOptions};
use vultus_api::wire;

use super::{Answer, Common, read_photo};
use crate::output::{self, count};
use crate::threshold::Threshold;

/// Name the people in photos, best match first: exit code 1 when nobody is recognised
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without --far or --within the threshold tightens as the gallery grows, so that one search in twenty for \
                        somebody who is not there finds a stranger.\n\n\
                        Examples:\n  vultus identify party.jpg\n  \
                        vultus identify party.jpg --filter 'album:\"2019\" AND NOT person:ana' -k 3"
)]
pub(crate) struct Args {
    /// JPEG, PNG or WebP
    #[arg(required = true, value_name = "PHOTO")]
    photos: Vec<PathBuf>,
    /// Stored faces to look at for each face
    #[arg(short, value_name = "COUNT", default_value_t = 10)]
    k: usize,
    #[command(flatten)]
    threshold: Threshold,
    /// Only among these faces, for example `album:"2019" AND NOT person:ana`
    #[arg(long, value_name = "FILTER")]
    filter: Option<Filter>,
    /// Compare with every stored face instead of asking the graph
    #[arg(long)]
    exact: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document {
    /// In the order given.
    photos: Vec<PhotoAnswer>,
}

#[derive(Serialize)]
struct PhotoAnswer {
    /// As given.
    path: String,
    #[serde(flatten)]
    identified: wire::Identified,
}

pub(crate) fn run(args: &Args, common: &Common, out: &mut dyn Write) -> anyhow::Result<Answer> {
    let gallery = common.existing_gallery()?;
    let within = args.threshold.distance(gallery.recognizer().calibration(), Task::Identify, gallery.stats()?.faces)?;
    let options = IdentifyOptions { k: args.k, within, filter: args.filter.clone(), exact: args.exact };
    let mut document = Document { photos: Vec::new() };
    let mut anybody = false;
    for path in &args.photos {
        let path_text = path.display().to_string();
        let faces = gallery.identify(&read_photo(path)?, &options).with_context(|| path_text.clone())?;
        anybody |= faces.iter().any(|face| !face.people.is_empty());
        if common.json {
            document.photos.push(PhotoAnswer { path: path_text, identified: wire::Identified::new(&faces, within) });
        } else {
            writeln!(out, "{path_text}: {}", count(faces.len() as u64, "face"))?;
            faces.iter().try_for_each(|face| describe(out, face))?;
        }
    }
    if common.json {
        output::json(out, &document)?;
    }
    Ok(if anybody { Answer::Yes } else { Answer::No })
}

fn describe(out: &mut dyn Write, face: &Identified) -> io::Result<()> {
    write!(out, "  {}  ", face.face.bounds)?;
    if let Some(refusal) = &face.refusal {
        return writeln!(out, "not compared, {refusal}");
    }
    let Some((best, others)) = face.people.split_first() else {
        return match face.neighbors.first() {
            Some(near) => {
                writeln!(out, "unknown, but seen before: face {} is {:.3} away", near.record.id, near.distance)
            }
            None => writeln!(out, "unknown"),
        };
    };
    write!(out, "{}  distance {:.3}, odds of a stranger {}", best.person, best.distance, output::rate(best.far))?;
    for (at, other) in others.iter().enumerate() {
        write!(out, "{} {} {:.3}", if at == 0 { "; or" } else { "," }, other.person, other.distance)?;
    }
    writeln!(out)
}
