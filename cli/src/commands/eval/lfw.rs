//! `vultus eval lfw`: are these two photos one person, over the pairs of LFW's View 2?

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;

use serde_json::json;
use vultus::evaluation::{Mean, PairList, verification, write_npz};
use vultus::{Embedding, Recognizer};

use super::{Common, Photos, percent};
use crate::output;

/// Verify the pairs of LFW's View 2: ten-fold accuracy, VAL at a false-accept rate, AUC and EER
///
/// Only the photos that occur in the pairs are looked at. A face that is not found is at distance 2 from every other: its
/// same pairs fail, its different pairs count as told apart, and how many pairs that concerns is printed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: vultus eval lfw --photos lfw-00.tar lfw-01.tar --pairs lfw_pairs.txt")]
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
}

pub(super) fn run(args: &Args, recognizer: &Recognizer, common: &Common, out: &mut dyn Write) -> anyhow::Result<()> {
    let list = PairList::read(&args.pairs)?;
    let wanted = list.photos();
    let embedded = args.photos.embed(recognizer, |photo| wanted.contains(photo))?;
    if let Some(path) = &args.embeddings_out {
        write_npz(path, embedded.faces.iter().map(|face| (face.photo.as_str(), face.embedding())))?;
    }
    let faces: HashMap<String, Option<Embedding>> =
        embedded.faces.iter().map(|face| (face.photo.clone(), face.embedding().cloned())).collect();
    let found = verification(&faces, &list, args.far)?;
    if common.json {
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
        output::json(out, &answer)?;
        return Ok(());
    }
    embedded.describe(out)?;
    writeln!(
        out,
        "{} pairs in {} folds; in {} of them a face was not found; {} left out as a photo is not in the shards",
        found.pairs, list.folds, found.pairs_without_face, found.pairs_without_photo
    )?;
    let mean = |mean: Mean| format!("{:.2} ± {:.2} %", mean.mean * 100.0, mean.standard_error * 100.0);
    writeln!(out, "accuracy  {}  (mean ± standard error; distance {:.3})", mean(found.accuracy), found.distance)?;
    let far = output::rate(found.far_found);
    writeln!(out, "VAL       {}  at FAR {:e} (found: {far})", mean(found.val), found.far)?;
    writeln!(out, "AUC       {:.4}", found.auc)?;
    writeln!(out, "EER       {}", percent(found.eer))?;
    let roc: Vec<String> =
        found.roc.iter().map(|point| format!("{} at {:e}", percent(point.rate), point.far)).collect();
    writeln!(out, "TAR       {}  (all pairs at once)", roc.join(", "))?;
    Ok(())
}
