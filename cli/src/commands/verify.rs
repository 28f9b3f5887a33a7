//! `vultus verify A B`: are these two the same person?

use std::io::Write;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context as _;
use vultus::Task;
use vultus::catalog::FaceId;
use vultus::gallery::Verified;
use vultus_api::wire;

use super::{Answer, Common, read_photo};
use crate::output;
use crate::threshold::Threshold;

/// Say whether two faces are the same person: exit code 0 when they are, 1 when not
#[derive(Debug, clap::Args)]
#[command(after_help = "Of a photo, the largest usable face counts. Without --far or --within the threshold is the \
                        model's at a false-accept rate of 1e-3.\n\n\
                        Examples:\n  vultus verify passport.jpg selfie.jpg\n  vultus verify selfie.jpg face:17 --far 1e-4")]
pub(crate) struct Args {
    /// A photo, or `face:ID` for a face in the gallery
    #[arg(value_name = "PHOTO|face:ID")]
    a: Side,
    /// The other one
    #[arg(value_name = "PHOTO|face:ID")]
    b: Side,
    #[command(flatten)]
    threshold: Threshold,
}

/// One side of the question.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Side {
    Photo(PathBuf),
    Face(FaceId),
}

impl FromStr for Side {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("face:") {
            Some(id) => id.parse().map(|id| Self::Face(FaceId(id))).map_err(|_| format!("{id:?} is no face id")),
            None => Ok(Self::Photo(text.into())),
        }
    }
}

pub(crate) fn run(args: &Args, common: &Common, out: &mut dyn Write) -> anyhow::Result<Answer> {
    // Two photos need no gallery.
    let sides = [&args.a, &args.b];
    let gallery =
        if sides.iter().any(|side| matches!(side, Side::Face(_))) { Some(common.existing_gallery()?) } else { None };
    let recognizer = match &gallery {
        Some(gallery) => gallery.recognizer().clone(),
        None => common.recognizer()?,
    };
    let within = args.threshold.distance(recognizer.calibration(), Task::Verify, 2)?;
    let embedding = |side: &Side| match (side, &gallery) {
        (Side::Face(id), Some(gallery)) => Ok(gallery.face(*id)?.embedding),
        (Side::Face(id), None) => anyhow::bail!("face:{id}: no gallery"),
        (Side::Photo(path), _) => recognizer.embedding(&read_photo(path)?).with_context(|| path.display().to_string()),
    };
    let distance = embedding(&args.a)?.distance(&embedding(&args.b)?);
    let far = recognizer.calibration().far_at(distance);
    let verified = Verified { same: distance <= within, distance, within, far };
    if common.json {
        output::json(out, &wire::Verified::from(&verified))?;
    } else {
        let (answer, relation) = if verified.same { ("same person", "within") } else { ("different people", "beyond") };
        writeln!(out, "{answer}: distance {distance:.3}, {relation} the threshold of {within:.3}")?;
        writeln!(out, "{} of pairs of strangers are that near", output::rate(far))?;
    }
    Ok(if verified.same { Answer::Yes } else { Answer::No })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_is_a_photo_unless_it_says_face() {
        assert_eq!("face:17".parse(), Ok(Side::Face(FaceId(17))));
        assert_eq!("./face:17".parse(), Ok(Side::Photo("./face:17".into())));
        assert!("face:x".parse::<Side>().is_err());
    }
}
