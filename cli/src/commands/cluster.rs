//! `vultus cluster`: which faces are the same person, without being told?

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use vultus::catalog::FaceId;
use vultus::clustering::Method;
use vultus::{Gallery, Task};
use vultus_api::wire;

use super::{Answer, Common};
use crate::contact_sheet::{Section, Sheet, Tile};
use crate::output::{self, count};
use crate::pictures;

/// Groups that are named in the text; `--json` has them all.
const GROUPS_NAMED_MAX: usize = 20;
/// What a contact sheet shows of a large gallery, so that a browser can open it.
const SHEET_GROUPS_MAX: usize = 200;
const SHEET_FACES_MAX: usize = 16;

/// Group all stored faces by who they look like; names are only used to say how well that went
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without --far, --cut or --k-means, groups merge up to a distance that was measured for the model \
                        and tightens as the gallery grows.\n\nExample: vultus cluster --html sheet.html"
)]
pub(crate) struct Args {
    /// Merge groups up to the distance at this false-accept rate, as measured for the model
    #[arg(long, value_name = "RATE", conflicts_with_all = ["cut", "k_means"])]
    far: Option<f64>,
    /// Merge groups up to this mean squared distance, 0 to 4
    #[arg(long, value_name = "DISTANCE", conflicts_with = "k_means")]
    cut: Option<f32>,
    /// Make exactly this many groups, by k-means
    #[arg(long, value_name = "GROUPS")]
    k_means: Option<usize>,
    /// Where k-means starts
    #[arg(long, value_name = "NUMBER", default_value_t = 0, requires = "k_means")]
    seed: u64,
    /// Write a contact sheet: one HTML file with the faces by group
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, common: &Common, out: &mut dyn Write) -> anyhow::Result<Answer> {
    let gallery = common.existing_gallery()?;
    let calibration = gallery.recognizer().calibration();
    let method = match *args {
        Args { k_means: Some(k), seed, .. } => Method::KMeans { k, seed },
        Args { cut: Some(cut), .. } => Method::AverageLinkage { cut },
        Args { far: Some(far), .. } => Method::AverageLinkage { cut: calibration.threshold(far)? },
        _ => default_method(&gallery)?,
    };
    let clusters = wire::Cluster::read(&gallery, &gallery.cluster(method)?, method)?;
    if let Some(path) = &args.html {
        let sheet = sheet(&gallery, &clusters, "Faces by group", Vec::new())?;
        write_sheet(&sheet, path)?;
    }
    if common.json {
        output::json(out, &clusters)?;
    } else {
        describe(out, &clusters)?;
        if let Some(path) = &args.html {
            writeln!(out, "contact sheet: {}", path.display())?;
        }
    }
    Ok(Answer::Yes)
}

/// Average linkage up to a distance that tightens as the gallery grows: more strangers are near each other by chance.
pub(super) fn default_method(gallery: &Gallery) -> anyhow::Result<Method> {
    Ok(Method::AverageLinkage { cut: gallery.default_threshold(Task::Cluster)? })
}

fn describe(out: &mut dyn Write, clusters: &wire::Cluster) -> io::Result<()> {
    writeln!(out, "{}", totals(clusters))?;
    for group in clusters.groups.iter().take(GROUPS_NAMED_MAX) {
        writeln!(out, "  {}  {}", count(group.faces.len() as u64, "face"), names(group))?;
    }
    let more = clusters.groups.len().saturating_sub(GROUPS_NAMED_MAX);
    if more > 0 {
        writeln!(out, "  and {} more", count(more as u64, "group"))?;
    }
    if let Some(agreement) = &clusters.agreement {
        writeln!(out, "{}", against_names(agreement))?;
    }
    Ok(())
}

/// `80 faces in 21 groups`, and how they were made.
pub(super) fn totals(clusters: &wire::Cluster) -> String {
    let how = match (clusters.cut, clusters.k) {
        (Some(cut), _) => format!("average linkage up to distance {cut:.3}"),
        (None, Some(k)) => format!("k-means, k = {k}"),
        (None, None) => clusters.method.clone(),
    };
    format!("{} in {} ({how})", count(clusters.faces, "face"), count(clusters.groups.len() as u64, "group"))
}

/// The figures against what people said.
pub(super) fn against_names(agreement: &wire::Agreement) -> String {
    let figures =
        |of: &wire::PrecisionRecall| format!("F {:.3} (precision {:.3}, recall {:.3})", of.f, of.precision, of.recall);
    format!(
        "against the names of {}: BCubed {}, pairwise {}",
        count(agreement.faces, "face"),
        figures(&agreement.bcubed),
        figures(&agreement.pairwise)
    )
}

/// `Ana`, `Ana 5, Ben 1` or `unnamed`.
fn names(group: &wire::Group) -> String {
    match group.people.as_slice() {
        [] => "unnamed".to_owned(),
        [only] => only.name.clone(),
        several => several.iter().map(|who| format!("{} {}", who.name, who.faces)).collect::<Vec<_>>().join(", "),
    }
}

/// A page of the groups of at least two faces, and of those that stand alone.
pub(super) fn sheet(
    gallery: &Gallery,
    clusters: &wire::Cluster,
    title: &str,
    mut notes: Vec<String>,
) -> anyhow::Result<Sheet> {
    let (groups, lone): (Vec<_>, Vec<_>) = clusters.groups.iter().partition(|group| group.faces.len() > 1);
    notes.push(format!("{}, {} of them on their own.", totals(clusters), lone.len()));
    notes.extend(clusters.agreement.as_ref().map(|agreement| format!("Groups {}.", against_names(agreement))));
    if groups.len() > SHEET_GROUPS_MAX {
        notes.push(format!("Shown are the {SHEET_GROUPS_MAX} largest groups."));
    }
    let lone: Vec<u64> = lone.iter().flat_map(|group| group.faces.iter().copied()).collect();
    let mut parts: Vec<(String, &[u64])> = groups
        .into_iter()
        .take(SHEET_GROUPS_MAX)
        .map(|group| (format!("{}: {}", names(group), count(group.faces.len() as u64, "face")), group.faces.as_slice()))
        .collect();
    if !lone.is_empty() {
        parts.push((format!("On their own: {}", count(lone.len() as u64, "face")), &lone));
    }
    let shown = |faces: &[u64]| faces.iter().take(SHEET_FACES_MAX).map(|id| FaceId(*id)).collect::<Vec<_>>();
    let all: Vec<FaceId> = parts.iter().flat_map(|(_, faces)| shown(faces)).collect();
    let mut jpegs = pictures::of_faces(gallery, &all)?;
    let mut sections = Vec::new();
    for (heading, faces) in parts {
        let mut tiles = Vec::new();
        for id in shown(faces) {
            let record = gallery.face(id)?;
            let path = gallery.photo(&record.photo)?.map_or_else(String::new, |photo| photo.path);
            let who = record.person.as_deref().unwrap_or("unnamed");
            let caption = format!("{who} · face {id} · {}", short(&path));
            tiles.push(Tile { jpeg: jpegs.remove(&id), caption, alt: format!("Face {id}, {who}, from {path}") });
        }
        sections.push(Section { heading, left_out: faces.len() - tiles.len(), tiles });
    }
    Ok(Sheet { title: title.to_owned(), notes, sections })
}

/// The last two parts of a path.
fn short(path: &str) -> &str {
    path.rmatch_indices(['/', '\\']).nth(1).map_or(path, |(at, _)| &path[at + 1..])
}

/// Writes a page to a file.
pub(super) fn write_sheet(sheet: &Sheet, path: &Path) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| path.display().to_string())?;
    sheet.write(&mut BufWriter::new(file)).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_shortened_to_its_folder_and_name() {
        assert_eq!([short("a/b/c.jpg"), short("b/c.jpg"), short("c.jpg")], ["b/c.jpg", "b/c.jpg", "c.jpg"]);
    }
}
