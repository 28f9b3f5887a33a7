//! `vultus eval pairs`: are these two photos one person?

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;

use serde_json::json;
use vultus::evaluation::{Mean, PairList, verification, write_npz};
use vultus::{Embedding, Recognizer};

use super::{Common, Photos, percent, report};
use crate::output;

/// Verify the pairs of a file, such as LFW's: accuracy by folds, VAL at a false-accept rate, AUC and EER
///
/// The file is that of LFW's View 2, or a table with the columns a, b, same and perhaps fold (from 1), separated by commas.
/// The threshold of a fold is chosen on the others; where there is one fold only, on itself.
/// Only the photos that occur in the pairs are looked at. A face that is not found is at distance 2 from every other: its
/// same pairs fail, its different pairs count as told apart, and how many pairs that concerns is printed.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: vultus eval pairs --photos lfw-00.tar lfw-01.tar --pairs lfw_pairs.txt --report lfw.html"
)]
pub(super) struct Args {
    #[command(flatten)]
    photos: Photos,
    /// The pairs file
    #[arg(long, value_name = "FILE")]
    pairs: PathBuf,
    /// False-accept rate of VAL
    #[arg(long, value_name = "RATE", default_value_t = 1e-3)]
    far: f64,
    /// Also write the embeddings as NumPy reads them, for scripts/lfw_eval.py
    #[arg(long, value_name = "FILE.npz")]
    embeddings_out: Option<PathBuf>,
    #[command(flatten)]
    report: report::ReportFile,
}

pub(super) fn run(args: &Args, recognizer: &Recognizer, common: &Common, out: &mut dyn Write) -> anyhow::Result<()> {
    let list = PairList::read(&args.pairs)?;
    let wanted = list.photos();
    let embedded = args.photos.embed(recognizer, |photo| wanted.contains(photo))?;
    if let Some(path) = &args.embeddings_out {
        write_npz(path, embedded.faces.iter().map(|face| (face.photo.as_str(), face.embedding())))?;
    }
    let mut faces: HashMap<String, Option<Embedding>> = HashMap::new();
    for face in &embedded.faces {
        let before = faces.insert(face.photo.clone(), face.embedding().cloned());
        anyhow::ensure!(
            before.is_none(),
            "{}: two photos have this name, and a pair can't tell them apart",
            face.photo
        );
    }
    let found = verification(&faces, &list, args.far)?;
    let mut text = String::new();
    writeln!(
        text,
        "{} pairs in {} folds; in {} of them a face was not found; {} left out as a photo is not there",
        found.pairs, list.folds, found.pairs_without_face, found.pairs_without_photo
    )?;
    let mean = |mean: Mean| format!("{:.2} ± {:.2} %", mean.mean * 100.0, mean.standard_error * 100.0);
    writeln!(text, "accuracy  {}  (mean ± standard error; distance {:.3})", mean(found.accuracy), found.distance)?;
    let far = output::rate(found.far_found);
    writeln!(text, "VAL       {}  at FAR {:e} (found: {far})", mean(found.val), found.far)?;
    writeln!(text, "AUC       {:.4}", found.auc)?;
    writeln!(text, "EER       {}", percent(found.eer))?;
    let roc: Vec<String> =
        found.roc.iter().map(|point| format!("{} at {:e}", percent(point.rate), point.far)).collect();
    writeln!(text, "TAR       {}  (all pairs at once)", roc.join(", "))?;
    let mean = |mean: Mean| json!({ "mean": mean.mean, "standard_error": mean.standard_error });
    let answer = json!({
        "run": embedded.json(recognizer),
        "pairs": found.pairs,
        "pairs_without_photo": found.pairs_without_photo,
        "pairs_without_face": found.pairs_without_face,
        "accuracy": mean(found.accuracy),
        "distance": found.distance,
        "far": found.far,
        "val": mean(found.val),
        "far_found": found.far_found,
        "auc": found.auc,
        "eer": found.eer,
        "roc": found.roc.iter().map(|point| json!({ "far": point.far, "tar": point.rate })).collect::<Vec<_>>(),
    });
    if common.json {
        output::json(out, &answer)?;
    } else {
        embedded.describe(out)?;
        write!(out, "{text}")?;
    }
    let roc = found.curve.iter().map(|point| [point.far, point.rate]).collect();
    args.report.write(report::Report { title: "Pairs", text: &text, json: &answer, roc })
}
