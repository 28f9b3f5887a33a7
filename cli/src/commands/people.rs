//! `vultus people`: who is known, which faces are whose, and saying so.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::Write;

use vultus::catalog::{FaceId, FaceRecord, Filter, PhotoHash};
use vultus::{Gallery, Result};
use vultus_api::wire;

use super::{Answer, Common};
use crate::output::{self, count};

/// List the people that the gallery knows, list stored faces, or say whose face one is
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  vultus people\n  vultus people faces --filter 'person:Ana'\n  vultus people name 17 Ana"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the names, with how many faces carry each (what `vultus people` does)
    List,
    /// List stored faces, by id
    #[command(after_help = "Example: vultus people faces --filter 'NOT person:Ana' --limit 20")]
    Faces {
        /// Only these faces
        #[arg(long, value_name = "FILTER")]
        filter: Option<Filter>,
        /// Only from this id on
        #[arg(long, value_name = "ID", default_value_t = 0)]
        from: u64,
        /// At most so many
        #[arg(long, value_name = "COUNT", default_value_t = 100)]
        limit: usize,
    },
    /// Say whose face this is
    #[command(after_help = "Example: vultus people name 17 Ana")]
    Name {
        /// The face
        #[arg(value_name = "FACE_ID")]
        face: u64,
        /// The person
        name: String,
    },
    /// Take the name off a face
    #[command(after_help = "Example: vultus people unname 17")]
    Unname {
        /// The face
        #[arg(value_name = "FACE_ID")]
        face: u64,
    },
}

pub(crate) fn run(args: &Args, common: &Common, out: &mut dyn Write) -> anyhow::Result<Answer> {
    let gallery = common.existing_gallery()?;
    match &args.action {
        None | Some(Action::List) => list(&gallery, common, out)?,
        Some(Action::Faces { filter, from, limit }) => {
            let faces = gallery.faces(filter.as_ref(), FaceId(*from), *limit)?;
            show(&gallery, &faces, *limit, common, out)?;
        }
        Some(Action::Name { face, name }) => {
            gallery.name_face(FaceId(*face), Some(name))?;
            show(&gallery, &[gallery.face(FaceId(*face))?], 0, common, out)?;
        }
        Some(Action::Unname { face }) => {
            gallery.name_face(FaceId(*face), None)?;
            show(&gallery, &[gallery.face(FaceId(*face))?], 0, common, out)?;
        }
    }
    Ok(Answer::Yes)
}

fn list(gallery: &Gallery, common: &Common, out: &mut dyn Write) -> anyhow::Result<()> {
    let people = gallery.people()?;
    if common.json {
        output::json(out, &wire::People::from(people.as_slice()))?;
    } else if people.is_empty() {
        writeln!(out, "nobody is named yet")?;
    } else {
        people.iter().try_for_each(|person| writeln!(out, "{}\t{}", person.name, count(person.faces, "face")))?;
    }
    Ok(())
}

/// `page`: the number of faces that were asked for; so many may not be all.
fn show(
    gallery: &Gallery,
    faces: &[FaceRecord],
    page: usize,
    common: &Common,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let next = faces.last().filter(|_| page > 0 && faces.len() == page).map(|last| last.id.0 + 1);
    if common.json {
        output::json(out, &wire::Faces { faces: faces.iter().map(wire::StoredFace::from).collect(), next })?;
        return Ok(());
    }
    let mut paths = HashMap::new();
    for record in faces {
        let person = record.person.as_deref().unwrap_or("-");
        writeln!(out, "{}\t{person}\t{}\t{}", record.id, record.face.bounds, path(gallery, &mut paths, record.photo)?)?;
    }
    if let Some(next) = next {
        writeln!(out, "there may be more: --from {next}")?;
    }
    Ok(())
}

fn path<'a>(gallery: &Gallery, paths: &'a mut HashMap<PhotoHash, String>, hash: PhotoHash) -> Result<&'a str> {
    Ok(match paths.entry(hash) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(place) => place.insert(gallery.photo(&hash)?.map_or_else(String::new, |photo| photo.path)),
    })
}
