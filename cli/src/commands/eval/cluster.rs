//! `vultus eval cluster`: do the groups that are found agree with who the photos show?

use std::io::Write;
use std::time::Instant;

use serde_json::json;
use vultus::clustering::{Method, PrecisionRecall, agreement, cluster};
use vultus::{Recognizer, Task};

use super::{Common, Photos};
use crate::output;

/// Group all faces by average linkage and compare with the people they show
///
/// Photos in which no face was found are left out of the figures, and counted.
#[derive(Debug, clap::Args)]
#[command(after_help = "Without --far or --cut the cut follows from the number of faces.\n\n\
                        Example: vultus eval cluster --photos lfw-00.tar lfw-01.tar --far 1e-4")]
pub(super) struct Args {
    #[command(flatten)]
    photos: Photos,
    /// Merge groups up to the distance at this false-accept rate, as measured for the model
    #[arg(long, value_name = "RATE", conflicts_with = "cut")]
    far: Option<f64>,
    /// Merge groups up to this mean squared distance, 0 to 4
    #[arg(long, value_name = "DISTANCE")]
    cut: Option<f32>,
}

pub(super) fn run(args: &Args, recognizer: &Recognizer, common: &Common, out: &mut dyn Write) -> anyhow::Result<()> {
    let calibration = recognizer.calibration();
    let asked = args.far.map(|far| calibration.threshold(far)).transpose()?.or(args.cut);
    let embedded = args.photos.embed(recognizer, |_| true)?;
    let (embeddings, truth, people) = embedded.people();
    let cut = asked.map_or_else(|| calibration.default_threshold(Task::Cluster, embeddings.len() as u64), Ok)?;
    let start = Instant::now();
    let partition = cluster(&embeddings, Method::AverageLinkage { cut })?;
    let seconds = start.elapsed().as_secs_f64();
    let agreement = agreement(&partition.labels, &truth)?;
    if common.json {
        let answer = json!({
            "run": embedded.json(recognizer),
            "faces": embeddings.len(),
            "people": people,
            "groups": partition.groups(),
            "cut": cut,
            "far": calibration.far_at(cut),
            "seconds": seconds,
            "agreement": agreement,
        });
        output::json(out, &answer)?;
        return Ok(());
    }
    embedded.describe(out)?;
    writeln!(
        out,
        "{} faces of {} people in {} groups, {seconds:.2} s (cut at distance {cut:.3}, FAR {})",
        embeddings.len(),
        people,
        partition.groups(),
        output::rate(calibration.far_at(cut))
    )?;
    let figures =
        |of: PrecisionRecall| format!("F {:.4} (precision {:.4}, recall {:.4})", of.f, of.precision, of.recall);
    writeln!(out, "BCubed    {}", figures(agreement.bcubed))?;
    writeln!(out, "pairwise  {}", figures(agreement.pairwise))?;
    Ok(())
}
