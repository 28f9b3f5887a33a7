//! `vultus eval folder`: every face of known people with every other.

use std::fmt::Write as _;
use std::io::Write;

use serde_json::json;
use vultus::clustering::{Method, agreement, cluster};
use vultus::evaluation::{all_pairs, identification};
use vultus::{Recognizer, Task};

use super::{Common, Photos, percent, report};
use crate::output;

/// Compare all faces with all: VAL at false-accept rates, rank 1 and the clustering of a folder with a folder for each person
///
/// Photos in which no face was found are left out of VAL and of the clustering, and are wrong in rank 1; they are counted. A rate with fewer than ten
/// pairs of two people behind it is not printed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: vultus eval folder --photos people/ --report people.html")]
pub(super) struct Args {
    #[command(flatten)]
    photos: Photos,
    /// False-accept rates of VAL
    #[arg(long, value_name = "RATE", num_args = 1.., default_values_t = [1e-2, 1e-3, 1e-4, 1e-5, 1e-6])]
    far: Vec<f64>,
    /// Merge groups up to this mean squared distance, 0 to 4 [default: what follows from the number of faces]
    #[arg(long, value_name = "DISTANCE")]
    cut: Option<f32>,
    /// Also try cuts from 0.02 to 2, and say which one groups best: to choose a cut on people that are not those to report on
    #[arg(long, conflicts_with = "cut")]
    sweep: bool,
    /// Draws the photo of each person that is held out for rank 1
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    report: report::ReportFile,
}

/// Cuts that are tried.
const SWEEP: std::ops::RangeInclusive<u16> = 1..=100;

pub(super) fn run(args: &Args, recognizer: &Recognizer, common: &Common, out: &mut dyn Write) -> anyhow::Result<()> {
    let embedded = args.photos.embed(recognizer, |_| true)?;
    let (embeddings, people, names) = embedded.people();
    let pairs = all_pairs(&embeddings, &people)?;
    let points: Vec<_> = args.far.iter().filter_map(|far| Some((*far, pairs.at(*far)?))).collect();
    let found = identification(&embedded.faces, &[], args.seed)?;
    let grouped = |cut: f32| -> anyhow::Result<_> {
        let partition = cluster(&embeddings, Method::AverageLinkage { cut })?;
        Ok((cut, partition.groups(), agreement(&partition.labels, &people)?))
    };
    let mut best = grouped(match args.cut {
        Some(cut) => cut,
        None => recognizer.calibration().default_threshold(Task::Cluster, embeddings.len() as u64)?,
    })?;
    if args.sweep {
        for step in SWEEP {
            let next = grouped(f32::from(step) / 50.0)?;
            if next.2.bcubed.f > best.2.bcubed.f {
                best = next;
            }
        }
    }
    let (cut, groups, agreement) = best;
    let roc: Vec<[f64; 2]> = pairs.curve().iter().map(|point| [point.far, point.val]).collect();

    let mut text = String::new();
    writeln!(
        text,
        "{} faces of {} people: {} pairs of one person, {} of two",
        embeddings.len(),
        names,
        pairs.same_pairs,
        pairs.different_pairs
    )?;
    for (far, point) in &points {
        let behind = (point.far * pairs.different_pairs as f64).round();
        writeln!(
            text,
            "VAL       {:>7}  at FAR {far:.0e}, distance {:.3} ({behind} pairs of two people are behind it)",
            percent(point.val),
            point.distance
        )?;
    }
    writeln!(
        text,
        "rank 1    {:>7}  of {} photos held out ({} without a face), among {} faces",
        percent(found.rank_1),
        found.probes,
        found.probes_without_face,
        found.gallery
    )?;
    let of = agreement.bcubed;
    writeln!(
        text,
        "BCubed F  {:>7.4}  (precision {:.4}, recall {:.4}) in {groups} groups, cut at distance {cut:.3}{}",
        of.f,
        of.precision,
        of.recall,
        if args.sweep { ", the best of those tried" } else { "" }
    )?;
    let answer = json!({
        "run": embedded.json(recognizer),
        "faces": embeddings.len(),
        "people": names,
        "same_pairs": pairs.same_pairs,
        "different_pairs": pairs.different_pairs,
        "points": points.iter().map(|(far, point)| json!({
            "far": far, "distance": point.distance, "val": point.val, "far_found": point.far,
        })).collect::<Vec<_>>(),
        "probes": found.probes,
        "probes_without_face": found.probes_without_face,
        "rank_1": found.rank_1,
        "cut": cut,
        "groups": groups,
        "agreement": agreement,
        "roc": roc,
    });
    if common.json {
        output::json(out, &answer)?;
    } else {
        embedded.describe(out)?;
        write!(out, "{text}")?;
    }
    args.report.write(report::Report { title: "All faces with all", text: &text, json: &answer, roc })
}
