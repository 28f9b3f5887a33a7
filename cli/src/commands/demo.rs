//! `vultus demo`: the whole path on sample photos, in a fresh folder.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use serde::Serialize;
use vultus::gallery::{Identified, IdentifyOptions, Probe, Verified};
use vultus::ingest::{Options, PersonFrom, Progress};
use vultus::{Gallery, Photo, Task};
use vultus_api::wire;

use super::{Answer, Common, cluster, read_photo};
use crate::output::{self, count};
use crate::samples::{GroupPhoto, Samples};

/// Show the whole path on sample photos: ingest, identify, verify, cluster, and a contact sheet
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The people of the samples are rendered mannequins: figures show that the pipeline works, not how \
                        good it is.\n\nExample: vultus demo --into /tmp/demo"
)]
pub(crate) struct Args {
    /// Folder with the sample photos
    #[arg(long, value_name = "FOLDER", default_value = "samples")]
    samples: PathBuf,
    /// Where the gallery and the contact sheet go: a folder that is missing or empty [default: a fresh one among the system's temporary folders]
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document {
    /// One photo of each person is held back.
    ingested: wire::Progress,
    /// Identify, asked about the photos that were held back.
    held_back: Tally,
    /// Identify, asked about the group photos.
    groups: Tally,
    /// Verify: a pair of one person, and a pair of two.
    same: wire::Verified,
    different: wire::Verified,
    /// Everything, held back and group photos too.
    clusters: wire::Cluster,
    contact_sheet: PathBuf,
    gallery: PathBuf,
}

/// How often identify was right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Tally {
    /// People in the photos, known or strangers.
    people: u64,
    /// Whose face was not found, or not good enough to compare.
    not_found: u64,
    /// Known people who were named rightly.
    right: u64,
    /// Known people who were taken for strangers.
    missed: u64,
    /// Strangers who were taken for such.
    strangers: u64,
    /// People, known or strangers, who were given a wrong name.
    wrong: u64,
}

pub(crate) fn run(args: &Args, common: &Common, out: &mut dyn Write) -> anyhow::Result<Answer> {
    let samples = Samples::read(&args.samples)?;
    let folder = fresh_folder(args.into.as_deref())?;
    let gallery_path = folder.join("demo.gallery");
    let gallery = Gallery::open(&gallery_path, common.recognizer()?)?;
    let mut quiet = io::sink();
    let say: &mut dyn Write = if common.json { &mut quiet } else { &mut *out };

    writeln!(
        say,
        "Sample people are rendered mannequins: what follows shows that the pipeline works, not how good it is."
    )?;
    let (views, held_back): (Vec<_>, Vec<_>) =
        samples.people.iter().filter_map(|person| person.views.split_last().map(|(last, rest)| (rest, last))).unzip();
    heading(say, "Ingest", &format!("{}, all but one photo of each", count(samples.people.len() as u64, "person")))?;
    let ingested = ingest(&gallery, views.into_iter().flatten().cloned().collect(), PersonFrom::Folder)?;
    let (photos, faces) = (count(ingested.added, "photo"), count(ingested.faces, "face"));
    writeln!(say, "   {photos}, {faces}, {:.1} photos/s", ingested.photos as f64 / ingested.seconds.max(1e-3))?;

    let options = identify_options(&gallery)?;
    heading(say, "Identify", "the photos that were held back")?;
    let alone = identify_held_back(&gallery, &samples, &options)?;
    writeln!(say, "   {}", alone.in_words())?;
    let groups = identify_groups(&gallery, &samples, &options, say)?;

    let [one, other] = [&samples.people[0], &samples.people[1]];
    heading(say, "Verify", "two photos of one person, and of two")?;
    let same = verify(&gallery, [&one.views[0], &one.views[1]], say)?;
    let different = verify(&gallery, [&one.views[0], &other.views[0]], say)?;

    heading(say, "Cluster", "everything, with the photos that were held back and the groups")?;
    let others = held_back.into_iter().chain(samples.groups.iter().map(|group| &group.path)).cloned().collect();
    ingest(&gallery, others, PersonFrom::Nothing)?;
    let method = cluster::default_method(&gallery)?;
    let clusters = wire::Cluster::read(&gallery, &gallery.cluster(method)?, method)?;
    writeln!(say, "   {}", cluster::totals(&clusters))?;
    if let Some(agreement) = &clusters.agreement {
        writeln!(say, "   {}", cluster::against_names(agreement))?;
    }

    let contact_sheet = folder.join("contact-sheet.html");
    let notes = vec!["Rendered mannequins: this page shows that the pipeline works, not how good it is.".to_owned()];
    cluster::write_sheet(&cluster::sheet(&gallery, &clusters, "vultus demo: faces by group", notes)?, &contact_sheet)?;
    gallery.flush()?;
    writeln!(say, "\nContact sheet: {}", contact_sheet.display())?;
    writeln!(say, "Gallery: {} (ask it more: vultus people --gallery …)", gallery_path.display())?;
    if common.json {
        let ingested = wire::Progress::from(&ingested);
        let (same, different) = (wire::Verified::from(&same), wire::Verified::from(&different));
        let held_back = alone;
        let gallery = gallery_path;
        output::json(
            out,
            &Document { ingested, held_back, groups, same, different, clusters, contact_sheet, gallery },
        )?;
    }
    Ok(Answer::Yes)
}

/// Where everything goes.
fn fresh_folder(asked: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(folder) = asked {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let empty = fs::read_dir(folder).with_context(|| folder.display().to_string())?.next().is_none();
        anyhow::ensure!(empty, "{}: not empty; the demo starts from nothing", folder.display());
        return Ok(folder.to_owned());
    }
    for number in 1.. {
        let folder = std::env::temp_dir().join(format!("vultus-demo-{number}"));
        match fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| folder.clone()).with_context(|| folder.display().to_string()),
        }
    }
    unreachable!("some number is free")
}

fn heading(say: &mut dyn Write, verb: &str, what: &str) -> io::Result<()> {
    writeln!(say, "\n{verb}: {what}")
}

fn ingest(gallery: &Gallery, paths: Vec<PathBuf>, person_from_folder: PersonFrom) -> anyhow::Result<Progress> {
    let options = Options { paths, person_from_folder, ..Options::default() };
    let progress = vultus::ingest::run(gallery, &options, &AtomicBool::new(false), &())?;
    anyhow::ensure!(progress.unreadable == 0, "{} of the samples can't be read", count(progress.unreadable, "photo"));
    Ok(progress)
}

fn identify_options(gallery: &Gallery) -> anyhow::Result<IdentifyOptions> {
    let within = gallery.default_threshold(Task::Identify)?;
    Ok(IdentifyOptions { k: 10, within, filter: None, exact: false })
}

fn identify_held_back(gallery: &Gallery, samples: &Samples, options: &IdentifyOptions) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    for person in &samples.people {
        let Some(path) = person.views.last() else { continue };
        let faces = gallery.identify(&read_photo(path)?, options)?;
        tally.add(faces.first(), Some(&person.name));
    }
    Ok(tally)
}

/// Who is in the group photos; the first one is described head by head.
fn identify_groups(
    gallery: &Gallery,
    samples: &Samples,
    options: &IdentifyOptions,
    say: &mut dyn Write,
) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    for (at, GroupPhoto { path, heads }) in samples.groups.iter().enumerate() {
        let faces = gallery.identify(&read_photo(path)?, options)?;
        if at == 0 {
            writeln!(say, "   {}:", path.display())?;
        }
        for head in heads {
            let face = faces.iter().find(|face| head.holds(&face.face.bounds));
            let known = samples.knows(&head.person).then_some(head.person.as_str());
            tally.add(face, known);
            if at == 0 {
                let truth = known.map_or_else(|| format!("{}, a stranger", head.person), str::to_owned);
                writeln!(say, "     {} (it is {truth})", seen(face))?;
            }
        }
    }
    writeln!(say, "   all {}: {}", count(samples.groups.len() as u64, "group photo"), tally.in_words())?;
    Ok(tally)
}

fn seen(face: Option<&Identified>) -> String {
    let Some(face) = face else { return "no face found".to_owned() };
    match (face.people.first(), &face.refusal) {
        (Some(best), _) => format!("{}: {}, distance {:.3}", face.face.bounds, best.person, best.distance),
        (None, Some(refusal)) => format!("{}: not compared, {refusal}", face.face.bounds),
        (None, None) => format!("{}: unknown", face.face.bounds),
    }
}

fn verify(gallery: &Gallery, [a, b]: [&Path; 2], say: &mut dyn Write) -> anyhow::Result<Verified> {
    let within = gallery.default_threshold(Task::Verify)?;
    let photos: [Photo; 2] = [read_photo(a)?, read_photo(b)?];
    let verified = gallery.verify(Probe::Photo(&photos[0]), Probe::Photo(&photos[1]), within)?;
    let answer = if verified.same { "the same person" } else { "different people" };
    let Verified { distance, within, .. } = verified;
    writeln!(say, "   {} and {}: {answer}, distance {distance:.3} (threshold {within:.3})", a.display(), b.display())?;
    Ok(verified)
}

impl Tally {
    /// One person of a photo: the face that was found, and the name if it is somebody known.
    fn add(&mut self, face: Option<&Identified>, known: Option<&str>) {
        self.people += 1;
        let Some(face) = face.filter(|face| face.refusal.is_none()) else {
            self.not_found += 1;
            return;
        };
        let named = face.people.first().map(|best| best.person.as_str());
        match (named, known) {
            (None, None) => self.strangers += 1,
            (None, Some(_)) => self.missed += 1,
            (named, known) if named == known => self.right += 1,
            _ => self.wrong += 1,
        }
    }

    fn in_words(&self) -> String {
        let mut words = format!("{}: {} named rightly", count(self.people, "person"), self.right);
        let parts = [
            (self.strangers, "strangers called unknown"),
            (self.missed, "known people called unknown"),
            (self.wrong, "given a wrong name"),
            (self.not_found, "not found"),
        ];
        for (number, what) in parts.into_iter().filter(|(number, _)| *number > 0) {
            words.push_str(&format!(", {number} {what}"));
        }
        words
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use super::*;

    #[test]
    fn the_demo_never_touches_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(fresh_folder(Some(&folder.path().join("new/er"))).unwrap(), folder.path().join("new/er"));
        assert!(fresh_folder(Some(folder.path())).unwrap_err().to_string().contains("not empty"));
    }
}
