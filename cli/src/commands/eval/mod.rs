//! `vultus eval`: how good is the model, on photos of people whose names are known?

mod cluster;
mod folder;
mod identify;
mod pairs;
mod report;

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use vultus::evaluation::{self, Degradation, LabelledFace, Look, Missing, embed_shards};
use vultus::{Embedding, Recognizer};

use super::{Answer, Common};
use crate::output::count;

/// Measure the model on photos of known people: folders or tar shards with a folder for each
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  vultus eval pairs --photos lfw-*.tar --pairs pairs.txt\n  vultus eval folder --photos people/ --report people.html"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Pairs(pairs::Args),
    Identify(identify::Args),
    Cluster(cluster::Args),
    Folder(folder::Args),
}

/// Where the photos are
#[derive(Debug, clap::Args)]
struct Photos {
    /// Folders, or tar shards, whose files are PERSON/PHOTO.jpg (or .png, .webp)
    #[arg(long = "photos", value_name = "PATH", required = true, num_args = 1..)]
    shards: Vec<PathBuf>,
    /// The photos are faces on the five-point template already: none is looked for
    #[arg(long)]
    aligned: bool,
    /// Compress each photo to a JPEG of this quality first, 1 to 100
    #[arg(long, value_name = "QUALITY", value_parser = clap::value_parser!(u8).range(1..=100), conflicts_with = "face_pixels")]
    jpeg: Option<u8>,
    /// Scale each photo down first, until its face's box has at most this many pixels
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..))]
    face_pixels: Option<u32>,
}

pub(crate) fn run(args: &Args, common: &Common, out: &mut dyn Write) -> anyhow::Result<Answer> {
    let recognizer = common.recognizer()?;
    match &args.what {
        What::Pairs(args) => pairs::run(args, &recognizer, common, out)?,
        What::Identify(args) => identify::run(args, &recognizer, common, out)?,
        What::Cluster(args) => cluster::run(args, &recognizer, common, out)?,
        What::Folder(args) => folder::run(args, &recognizer, common, out)?,
    }
    Ok(Answer::Yes)
}

/// Embedded photos, and what that took.
struct Embedded {
    faces: Vec<LabelledFace>,
    seconds: f64,
}

impl Photos {
    /// Embeds the photos that are wanted by name, showing progress on standard error.
    fn embed(&self, recognizer: &Recognizer, wanted: impl Fn(&str) -> bool) -> anyhow::Result<Embedded> {
        let bar = ProgressBar::no_length();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {pos} photos, {per_sec}, {msg}") {
            bar.set_style(style);
        }
        let (start, mut said) = (Instant::now(), Instant::now());
        let terminal = std::io::stderr().is_terminal();
        let photos = if self.aligned { evaluation::Photos::Aligned } else { evaluation::Photos::Whole };
        let degradation = self.jpeg.map(Degradation::Jpeg).or(self.face_pixels.map(Degradation::FacePixels));
        let look = Look { photos, degradation };
        let faces = embed_shards(recognizer, &self.shards, look, wanted, |progress| {
            let faces = count(progress.faces as u64, "face");
            if terminal {
                bar.set_position(progress.photos as u64);
                bar.set_message(faces);
            } else if said.elapsed() > Duration::from_secs(10) {
                eprintln!("{}, {faces}", count(progress.photos as u64, "photo"));
                said = Instant::now();
            }
        })?;
        bar.finish_and_clear();
        let reasons = faces.iter().filter_map(|face| match &face.outcome {
            Err(Missing::Photo(reason)) => Some((&face.photo, reason)),
            _ => None,
        });
        reasons.for_each(|(photo, reason)| eprintln!("{photo}: {reason}"));
        anyhow::ensure!(!faces.is_empty(), "--photos: the shards hold none of the photos that are asked for");
        Ok(Embedded { faces, seconds: start.elapsed().as_secs_f64() })
    }
}

impl Embedded {
    /// The faces that were found, whose each is as a number, and how many people these are.
    fn people(&self) -> (Vec<Embedding>, Vec<u32>, usize) {
        let mut numbers: HashMap<&str, u32> = HashMap::new();
        let found = self.faces.iter().filter_map(|face| {
            let next = numbers.len() as u32;
            face.embedding().map(|embedding| (embedding.clone(), *numbers.entry(&face.person).or_insert(next)))
        });
        let (embeddings, people) = found.unzip();
        (embeddings, people, numbers.len())
    }

    fn without_face(&self) -> usize {
        self.faces.iter().filter(|face| face.outcome.is_err()).count()
    }

    /// The photos and how fast they went, for people.
    fn describe(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let photos = self.faces.len();
        let rate = photos as f64 / self.seconds;
        let without = count(self.without_face() as u64, "photo");
        writeln!(out, "{photos} photos in {:.1} s ({rate:.1} a second), no face found in {without}", self.seconds)
    }

    /// The same as JSON.
    fn json(&self, recognizer: &Recognizer) -> Value {
        json!({
            "photos": self.faces.len(),
            "photos_without_face": self.without_face(),
            "seconds": self.seconds,
            "photos_per_second": self.faces.len() as f64 / self.seconds,
            "model": recognizer.digest(),
            "detector": recognizer.detector_name(),
        })
    }
}

/// A share as a percentage.
fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use std::path::Path;

    use clap::Parser;
    use vultus::Photo;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        eval: Args,
    }

    /// Three people of one colour each and of four photos, the last of them black in the case of the third.
    fn shard(folder: &Path) -> String {
        let path = folder.join("people.tar");
        let mut members = Vec::new();
        for (person, color) in [("Ana", [200, 40, 40]), ("Ben", [40, 200, 40]), ("Carl", [40, 40, 200])] {
            for photo in 1..=4u32 {
                let color = if (person, photo) == ("Carl", 4) { [0; 3] } else { color };
                let pixels = color.repeat(120 * (112 + photo as usize));
                let jpeg = Photo::from_rgb(120, 112 + photo, pixels).unwrap().to_jpeg(90).unwrap();
                members.push((format!("{person}/{person}_{photo:04}.jpg"), jpeg));
            }
        }
        std::fs::write(&path, tar(&members)).unwrap();
        path.display().to_string()
    }

    /// The plainest tar file, as POSIX.1-1988 has it.
    fn tar(members: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, content) in members {
            let mut header = [0u8; 512];
            header[..name.len()].copy_from_slice(name.as_bytes());
            header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
            header[148..156].fill(b' ');
            header[156] = b'0';
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            bytes.extend(header);
            bytes.extend(content);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }

    fn eval(args: &[&str]) -> anyhow::Result<String> {
        let program = Program::try_parse_from(["eval", "--test-double"].iter().chain(args))?;
        let mut out = Vec::new();
        assert_eq!(run(&program.eval, &program.common, &mut out)?, Answer::Yes);
        Ok(String::from_utf8(out)?)
    }

    #[test]
    fn pairs_embed_only_the_photos_of_the_pairs_and_counts_the_face_that_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let shard = shard(folder.path());
        let (pairs, npz) = (folder.path().join("pairs.txt"), folder.path().join("out.npz"));
        let text = "2 2\nAna 1 2\nBen 1 2\nAna 1 Ben 1\nAna 2 Carl 1\n\
                    Carl 1 2\nCarl 3 4\nAna 1 Carl 3\nBen 1 Carl 1\n";
        std::fs::write(&pairs, text).unwrap();
        let (pairs, npz_name) = (pairs.display().to_string(), npz.display().to_string());
        let base = ["pairs", "--photos", &shard, "--pairs", &pairs];
        let json = eval(&[base.as_slice(), &["--json", "--embeddings-out", &npz_name]].concat()).unwrap();
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["run"]["photos"], 8, "{json}");
        assert_eq!(json["pairs_without_face"], 1);
        // Of eight pairs one fails: the same pair whose second face was not found.
        assert_eq!(json["accuracy"]["mean"], 0.875);
        assert!(std::fs::metadata(npz).unwrap().len() > 8 * 512);
        let (page, table) = (folder.path().join("page.html"), folder.path().join("table.csv"));
        let text = eval(&[&base[..], &["--report", &page.display().to_string()]].concat()).unwrap();
        assert!(text.contains("accuracy  87.50 ±"), "{text}");
        let page = std::fs::read_to_string(page).unwrap();
        assert!(page.contains("<svg") && page.contains("accuracy  87.50 ±"), "{page}");
        // The same pairs as a table.
        let rows = "a,b,same,fold\nAna_0001,Ana_0002.jpg,1,1\nBen_0001,Ben_0002,1,1\nAna_0001,Ben_0001,0,1\n\
                    Ana_0002,Carl/Carl_0001.jpg,0,1\nCarl_0001,Carl_0002,1,2\nCarl_0003,Carl_0004,1,2\n\
                    Ana_0001,Carl_0003,0,2\nBen_0001,Carl_0001,0,2\n";
        std::fs::write(&table, rows).unwrap();
        let again = eval(&["pairs", "--photos", &shard, "--pairs", &table.display().to_string()]).unwrap();
        let figures = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(figures(&again), figures(&text));
    }

    #[test]
    fn a_folder_is_compared_with_itself_and_reported() {
        let folder = tempfile::tempdir().unwrap();
        for (person, color) in [("Ana", [200, 40, 40]), ("Ben", [40, 200, 40]), ("Carl", [40, 40, 200])] {
            std::fs::create_dir(folder.path().join(person)).unwrap();
            for photo in 1..=4u32 {
                let pixels = color.repeat(120 * (112 + photo as usize));
                let jpeg = Photo::from_rgb(120, 112 + photo, pixels).unwrap().to_jpeg(90).unwrap();
                std::fs::write(folder.path().join(person).join(format!("{photo}.jpg")), jpeg).unwrap();
            }
        }
        let photos = folder.path().display().to_string();
        let report = folder.path().join("report.json");
        let base = ["folder", "--photos", &photos, "--far", "0.5", "1e-9"];
        let text = eval(&[&base[..], &["--sweep", "--report", &report.display().to_string()]].concat()).unwrap();
        assert!(text.contains("12 faces of 3 people: 18 pairs of one person, 48 of two"), "{text}");
        assert!(text.contains("VAL       100.00 %  at FAR 5e-1"), "{text}");
        assert!(!text.contains("1e-9"), "no pairs are behind it: {text}");
        assert!(text.contains("rank 1    100.00 %  of 3 photos") && text.contains("BCubed F   1.0000"), "{text}");
        let json: Value = serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
        assert_eq!((&json["groups"], &json["rank_1"], &json["same_pairs"]), (&json!(3), &json!(1.0), &json!(18)));
        assert!(eval(&[&base[..], &["--report", "report.txt"]].concat()).is_err());
    }

    #[test]
    fn identify_holds_out_one_photo_of_each_person() {
        let folder = tempfile::tempdir().unwrap();
        let shard = shard(folder.path());
        let json: Value =
            serde_json::from_str(&eval(&["identify", "--photos", &shard, "--far", "1e-3", "--json"]).unwrap()).unwrap();
        assert_eq!((&json["probes"], &json["strangers"]), (&json!(3), &json!(1)), "{json}");
        assert_eq!(json["open_set"][0]["far"], 1e-3);
        assert_eq!(json["open_set"][0]["strangers_identified"], 0.0);
        assert!(eval(&["identify", "--photos", &shard]).unwrap().contains("rank 1"));
    }

    #[test]
    fn cluster_finds_the_colours() {
        let folder = tempfile::tempdir().unwrap();
        let shard = shard(folder.path());
        for more in [&[][..], &["--far", "1e-3"]] {
            let text = eval(&[&["cluster", "--photos", &shard, "--json"], more].concat()).unwrap();
            let json: Value = serde_json::from_str(&text).unwrap();
            assert_eq!((&json["groups"], &json["faces"]), (&json!(3), &json!(11)), "{json}");
            assert_eq!(json["agreement"]["pairwise"]["f"], 1.0);
        }
        assert!(eval(&["cluster", "--photos", &shard]).unwrap().contains("BCubed"));
    }

    #[test]
    fn a_rate_that_was_not_measured_and_shards_without_the_photos_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let shard = shard(folder.path());
        assert!(eval(&["cluster", "--photos", &shard, "--far", "1e-12"]).is_err());
        let pairs = folder.path().join("pairs.txt");
        std::fs::write(&pairs, "1\nZoe 1 2\nZoe 1 Yan 1\n").unwrap();
        let message = eval(&["pairs", "--photos", &shard, "--pairs", &pairs.display().to_string()]).unwrap_err();
        assert!(message.to_string().contains("none of the photos"), "{message}");
    }
}
