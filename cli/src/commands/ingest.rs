//! `vultus ingest PATH…`: photos into the gallery.

use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use vultus::Gallery;
use vultus::ingest::{MetadataTable, Options, PersonFrom, Progress};
use vultus::model::Compute;
use vultus_api::wire;

use super::{Answer, Common};
use crate::output::{self, count};
use crate::run_report::{RunReport, duration};

/// Find the faces in photos and store them; run it again to go on or to add what is new
#[derive(Debug, clap::Args)]
#[command(
    after_help = "In folders and shards, photos are the files named .jpg, .jpeg, .png or .webp, and shards those \
                        named .tar. A photo is known by its content: it is stored once, under the first path.\n\n\
                        Examples:\n  vultus ingest photos --person-from folder\n  find . -newer last | vultus ingest -"
)]
pub(crate) struct Args {
    /// Folders (searched through and through), tar shards and photos; `-` reads a list from standard input, one path a line
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Name the large central face of each photo after the folder that holds it; bystanders stay unnamed
    #[arg(long, value_name = "WHAT")]
    person_from: Option<Naming>,
    /// What people say about photos: .csv with a `path` column, or .jsonl with a `path` member
    ///
    /// A row belongs to the photo whose path it spells, as given on the command line and on from there, or from the given
    /// folder, or inside the given shard.
    #[arg(long, value_name = "FILE")]
    metadata: Option<PathBuf>,
    /// Where photos that can't be read are listed [default: unreadable.jsonl in the gallery]
    #[arg(long, value_name = "FILE")]
    dead_letters: Option<PathBuf>,
    /// Threads that decode and find faces; 0 means one a core
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    threads: usize,
    /// Faces that are embedded, and committed, together
    #[arg(long, value_name = "FACES", default_value_t = 64)]
    batch: usize,
    /// What embeds: cpu, cuda (an NVIDIA GPU, in builds with the feature cuda), or auto, the GPU where there is one
    ///
    /// A GPU is fast where many faces are embedded together: give it a --batch of 512. Distances differ by its rounding.
    #[arg(long, default_value_t = Compute::Cpu)]
    device: Compute,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Naming {
    /// The folder is the person
    Folder,
}

/// What `--json` prints: the figures of the run, and two more.
#[derive(Serialize)]
struct Summary {
    #[serde(flatten)]
    progress: wire::Progress,
    /// The most memory that the program had, in bytes; left out where the system does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_memory_bytes: Option<u64>,
    /// Where photos that could not be read are listed.
    dead_letters: PathBuf,
}

pub(crate) fn run(args: &Args, common: &Common, out: &mut dyn Write) -> anyhow::Result<Answer> {
    // Everything that can be wrong with the question is found before the gallery is touched.
    let metadata = args.metadata.as_deref().map(MetadataTable::read).transpose()?;
    let metadata_rows = metadata.as_ref().map(MetadataTable::len);
    let paths = paths(&args.paths, &mut io::stdin().lock())?;
    let stop = stop_on_ctrl_c()?;
    let gallery = Gallery::open(&common.gallery, common.recognizer_on(args.device)?)?;
    let dead_letters = args.dead_letters.clone().unwrap_or_else(|| common.gallery.join("unreadable.jsonl"));
    let person_from_folder = match args.person_from {
        Some(Naming::Folder) => PersonFrom::Folder,
        None => PersonFrom::Nothing,
    };
    let options = Options {
        paths,
        person_from_folder,
        metadata: metadata.unwrap_or_default(),
        dead_letters: Some(dead_letters.clone()),
        threads: args.threads,
        batch_faces: args.batch,
    };
    let report = RunReport::new();
    let progress = vultus::ingest::run(&gallery, &options, &stop, &report);
    report.finish();
    let progress = progress?;
    gallery.settle()?;

    if common.json {
        let progress = wire::Progress::from(&progress);
        let dead_letters = dead_letters.clone();
        output::json(out, &Summary { progress, peak_memory_bytes: peak_memory_bytes(), dead_letters })?;
    } else {
        summary(out, &progress, metadata_rows, &dead_letters.display().to_string())?;
    }
    if progress.stopped {
        return Ok(Answer::Stopped);
    }
    anyhow::ensure!(
        progress.unreadable == 0 || progress.added + progress.known > 0,
        "no photo could be read; the reasons are in {}",
        dead_letters.display()
    );
    anyhow::ensure!(
        progress.photos > 0,
        "no photos found ({} of other kinds passed over); looked for .jpg, .jpeg, .png, .webp and .tar",
        count(progress.others, "file")
    );
    Ok(Answer::Yes)
}

/// The paths, with `-` replaced by the lines of `list`.
fn paths(given: &[PathBuf], list: &mut dyn BufRead) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for path in given {
        if path.as_os_str() == "-" {
            for line in list.lines() {
                let line = line.context("standard input")?;
                paths.extend((!line.is_empty()).then(|| PathBuf::from(line)));
            }
        } else {
            paths.push(path.clone());
        }
    }
    Ok(paths)
}

/// The first Ctrl-C asks the run to stop; the second ends the program at once, which loses nothing that was committed.
fn stop_on_ctrl_c() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("stopping after the photos in hand; once more to stop at once");
    })
    .context("listening for Ctrl-C")?;
    Ok(stop)
}

fn summary(
    out: &mut dyn Write,
    progress: &Progress,
    metadata_rows: Option<usize>,
    dead_letters: &str,
) -> io::Result<()> {
    let Progress { photos, added, known, unreadable, others, described, without_faces, faces, refused, .. } = *progress;
    let per_second = |number: u64| number as f64 / progress.seconds.max(1e-3);
    let time = duration(Duration::from_secs_f64(progress.seconds));
    let (photos_rate, faces_rate) = (per_second(photos), per_second(faces));
    let stopped = if progress.stopped { ", stopped before the end: run it again to go on" } else { "" };
    writeln!(out, "{} in {time}{stopped}", count(photos, "photo"))?;
    writeln!(
        out,
        "  {added} added, with {} ({photos_rate:.1} photos/s, {faces_rate:.1} faces/s)",
        count(faces, "face")
    )?;
    let mut line = |number: u64, text: &str| if number > 0 { writeln!(out, "  {number} {text}") } else { Ok(()) };
    line(known, "known already")?;
    line(unreadable, &format!("unreadable, listed in {dead_letters}"))?;
    line(without_faces, "without a face")?;
    line(others, "files passed over, not photos by their name")?;
    line(refused, "faces refused for their quality")?;
    if let Some(rows) = metadata_rows {
        writeln!(out, "  {described} of those added have a row among the {rows} of the metadata")?;
    }
    if let Some(peak) = peak_memory_bytes() {
        writeln!(out, "  {} of memory at most", output::bytes(peak))?;
    }
    Ok(())
}

/// The most memory that this process has had, where Linux says so.
fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dash_is_replaced_by_the_list() -> anyhow::Result<()> {
        let given = ["a.jpg", "-", "b"].map(PathBuf::from);
        let expected = ["a.jpg", "x y.png", "z", "b"].map(PathBuf::from);
        assert_eq!(paths(&given, &mut "x y.png\n\nz\n".as_bytes())?, expected);
        Ok(())
    }
}
