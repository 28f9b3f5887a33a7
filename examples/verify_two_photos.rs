//! Are these two photos of one person? No gallery, nothing on disk: the recognizer is enough.
//!
//! `cargo run --release --example verify_two_photos [A B]`

use vultus::photo::Limits;
use vultus::{Photo, Recognizer};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let a = arguments.next().unwrap_or_else(|| "samples/people/p00/00.jpg".into());
    let b = arguments.next().unwrap_or_else(|| "samples/people/p00/01.jpg".into());

    let recognizer = Recognizer::bundled()?;
    let embedding = |path: &str| -> anyhow::Result<_> {
        Ok(recognizer.embedding(&Photo::decode(&std::fs::read(path)?, &Limits::default())?)?)
    };
    let distance = embedding(&a)?.distance(&embedding(&b)?);

    // What a distance means is measured, on people whom the model was not trained on.
    let calibration = recognizer.calibration();
    let within = calibration.threshold(1e-3)?;
    let answer = if distance <= within { "the same person" } else { "different people" };
    println!("{a} and {b}: {answer}");
    println!(
        "distance {distance:.3}, threshold {within:.3}; strangers are that near with odds {:.1e}",
        calibration.far_at(distance)
    );
    Ok(())
}
