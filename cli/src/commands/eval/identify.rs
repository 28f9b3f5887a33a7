//! `vultus eval identify`: of every person one photo held out, is it found among all the others?

use std::io::Write;

use serde_json::json;
use vultus::Recognizer;
use vultus::evaluation::identification;

use super::{Common, Photos, percent};
use crate::output;

/// Hold out one photo of every person who has two, and look for it among all the others
///
/// Rank 1 is the share whose nearest face is of the same person. Then one person in ten is taken out altogether: at each
/// false-accept rate, how many of the others are identified, and how many of these strangers are taken for somebody.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: vultus eval identify --photos lfw-00.tar lfw-01.tar --far 1e-4 1e-5")]
pub(super) struct Args {
    #[command(flatten)]
    photos: Photos,
    /// False-accept rates of a single comparison [default: the strictest that was measured for the model]
    #[arg(long, value_name = "RATE", num_args = 1..)]
    far: Vec<f64>,
    /// Draws the photos and the strangers
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    seed: u64,
}

pub(super) fn run(args: &Args, recognizer: &Recognizer, common: &Common, out: &mut dyn Write) -> anyhow::Result<()> {
    let calibration = recognizer.calibration();
    let strictest = || calibration.points.first().map(|point| point.far).into_iter().collect();
    let rates: Vec<f64> = if args.far.is_empty() { strictest() } else { args.far.clone() };
    let thresholds = rates.iter().map(|far| calibration.threshold(*far)).collect::<Result<Vec<f32>, _>>()?;
    let embedded = args.photos.embed(recognizer, |_| true)?;
    let found = identification(&embedded.faces, &thresholds, args.seed)?;
    if common.json {
        let point = |(far, open): (&f64, &vultus::evaluation::OpenSet)| {
            json!({
                "far": far,
                "within": open.within,
                "identified": open.identified,
                "mistaken": open.mistaken,
                "unknown": open.unknown,
                "strangers_identified": open.strangers_identified,
            })
        };
        let answer = json!({
            "run": embedded.json(recognizer),
            "probes": found.probes,
            "probes_without_face": found.probes_without_face,
            "gallery": found.gallery,
            "rank_1": found.rank_1,
            "strangers": found.strangers,
            "enrolled": found.enrolled,
            "open_set": rates.iter().zip(&found.open_set).map(point).collect::<Vec<_>>(),
        });
        output::json(out, &answer)?;
        return Ok(());
    }
    embedded.describe(out)?;
    writeln!(
        out,
        "rank 1    {} of {} probes ({} without a face), among {} faces",
        percent(found.rank_1),
        found.probes,
        found.probes_without_face,
        found.gallery
    )?;
    writeln!(out, "open set  {} probes of people who are enrolled, {} strangers", found.enrolled, found.strangers)?;
    for (far, open) in rates.iter().zip(&found.open_set) {
        writeln!(
            out,
            "  at FAR {far:.1e}, distance {:.3}: identified {}, mistaken {}, unknown {}; strangers taken for somebody {}",
            open.within,
            percent(open.identified),
            percent(open.mistaken),
            percent(open.unknown),
            percent(open.strangers_identified)
        )?;
    }
    Ok(())
}
