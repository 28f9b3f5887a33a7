//! What a training run has measured so far: JSON lines as they come, and a picture of them.
//!
//! Beside `NAME.safetensors` lie `NAME.metrics.jsonl` and `NAME.svg`. Each line is either the mean of some steps (`loss`, `mined`, `accuracy`, `spread`, …)
//! or an evaluation on the held-out people (`val`: true-accept rates by false-accept rate). A run that is resumed drops the lines of
//! steps that it takes again.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};
use vultus::Calibration;
use vultus::training::Report;

use crate::plot::{self, Axis, Curve, Plot, Scale};

/// Steps that one line is the mean of.
const STEPS: usize = 20;

/// The lines of a run.
pub(crate) struct Metrics {
    lines: Vec<Value>,
    /// Steps since the last line.
    steps: Vec<Report>,
    file: PathBuf,
    picture: PathBuf,
    begun: bool,
}

impl Metrics {
    /// Goes on with what an earlier run left beside `out`.
    ///
    /// # Errors
    /// Names the file.
    pub(crate) fn beside(out: &Path) -> anyhow::Result<Self> {
        let (file, picture) = (out.with_extension("metrics.jsonl"), out.with_extension("svg"));
        let text = if file.exists() { read(&file)? } else { String::new() };
        // A line that was cut off by a crash is of steps after the last checkpoint.
        let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Ok(Self { lines, steps: Vec::new(), file, picture, begun: false })
    }

    /// After each step.
    ///
    /// # Errors
    /// Names the file that can't be written.
    pub(crate) fn step(&mut self, report: &Report) -> anyhow::Result<()> {
        if !self.begun {
            self.begun = true;
            self.lines.retain(|line| line["step"].as_u64().is_some_and(|step| step < report.step));
            let kept: String = self.lines.iter().map(|line| format!("{line}\n")).collect();
            fs::write(&self.file, kept).with_context(|| self.file.display().to_string())?;
        }
        let changed = self.steps.last().is_some_and(|last| last.stage != report.stage);
        if changed || self.steps.len() == STEPS {
            self.flush()?;
        }
        self.steps.push(report.clone());
        Ok(())
    }

    /// Writes the mean of the steps since the last line.
    fn flush(&mut self) -> anyhow::Result<()> {
        let Some(last) = self.steps.last() else { return Ok(()) };
        let mean = |of: fn(&Report) -> f64| self.steps.iter().map(of).sum::<f64>() / self.steps.len() as f64;
        let line = json!({
            "step": last.step,
            "stage": last.stage,
            "loss": mean(|r| r.loss.into()),
            "mined": mean(|r| r.mined.into()),
            "accuracy": mean(|r| r.accuracy.into()),
            "spread": mean(|r| r.spread.into()),
            "gradient_norm": mean(|r| r.gradient_norm),
            "learning_rate": last.learning_rate,
            "crops": last.crops,
            "seconds": last.seconds,
            "waited_seconds": last.waited_seconds,
        });
        self.steps.clear();
        self.add(line)
    }

    /// After an evaluation on held-out people.
    ///
    /// # Errors
    /// Names the file that can't be written.
    pub(crate) fn evaluated(&mut self, step: u64, calibration: &Calibration) -> anyhow::Result<()> {
        self.flush()?;
        let val = |far: f64| json!({ "far": far, "val": val_at(calibration, far) });
        self.add(json!({ "step": step, "val": [val(1e-4), val(1e-3), val(1e-2)] }))?;
        let picture = plot::svg(&self.plots())?;
        fs::write(&self.picture, picture).with_context(|| self.picture.display().to_string())
    }

    fn add(&mut self, line: Value) -> anyhow::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(&self.file);
        let written = file.as_mut().map_err(|error| std::io::Error::new(error.kind(), error.to_string()));
        written.and_then(|file| writeln!(file, "{line}")).with_context(|| self.file.display().to_string())?;
        self.lines.push(line);
        Ok(())
    }

    fn plots(&self) -> [Plot; 3] {
        let curve = |name: &str, of: &dyn Fn(&Value) -> Option<f64>| Curve {
            name: name.to_owned(),
            points: self.lines.iter().filter_map(|line| Some([line["step"].as_f64()?, of(line)?])).collect(),
        };
        let field = |name: &'static str| move |line: &Value| line[name].as_f64();
        let plot = |title: &str, label, scale, curves| Plot {
            title: title.to_owned(),
            x: Axis { label: "step", scale: Scale::Linear },
            y: Axis { label, scale },
            curves,
        };
        let val = |name: &str, at: usize| curve(name, &move |line: &Value| line["val"][at]["val"].as_f64());
        let shares = vec![
            curve("triplets that were mined", &field("mined")),
            curve("own person is the nearest", &field("accuracy")),
            curve("mean squared distance / 2", &|line| line["spread"].as_f64().map(|spread| spread / 2.0)),
        ];
        [
            plot("Loss", "loss", Scale::Linear, vec![curve("loss", &field("loss"))]),
            plot("Batches", "share", Scale::Share, shares),
            plot(
                "Held-out people",
                "VAL",
                Scale::Share,
                vec![val("FAR 1e-4", 0), val("FAR 1e-3", 1), val("FAR 1e-2", 2)],
            ),
        ]
    }
}

/// The share of same pairs that pass at the strictest point measured up to a false-accept rate.
pub(crate) fn val_at(calibration: &Calibration, far: f64) -> f64 {
    calibration.points.iter().take_while(|point| point.far <= far).last().map_or(0.0, |point| point.val)
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use super::*;

    fn report(step: u64, loss: f32) -> Report {
        let stage = if step <= 50 { "first" } else { "second" };
        Report {
            step,
            stage: stage.into(),
            loss,
            mined: 0.5,
            accuracy: 0.25,
            spread: 2.0,
            gradient_norm: 1.0,
            learning_rate: 0.1,
            batch_crops: 8,
            crops: 8 * step,
            seconds: 1.0,
            waited_seconds: 0.0,
        }
    }

    #[test]
    fn lines_are_means_and_a_resumed_run_takes_its_own_place() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("w.safetensors");
        let calibration = Calibration::measure("t", &[0.5, 1.5], &[1.0; 10]).unwrap();
        let run = |steps: std::ops::RangeInclusive<u64>, loss: f32| {
            let mut metrics = Metrics::beside(&out).unwrap();
            steps.for_each(|step| metrics.step(&report(step, loss + step as f32)).unwrap());
            metrics.evaluated(70, &calibration).unwrap();
        };
        let lines = || {
            let text = read(&out.with_extension("metrics.jsonl")).unwrap();
            text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
        };
        let steps = |lines: &[Value]| lines.iter().map(|line| line["step"].as_u64().unwrap()).collect::<Vec<_>>();
        run(1..=70, 0.0);
        let first = lines();
        assert_eq!(steps(&first), [20, 40, 50, 70, 70], "a line never mixes two stages");
        assert_eq!((&first[0]["loss"], &first[2]["loss"]), (&json!(10.5), &json!(45.5)));
        assert_eq!(first[4]["val"][1], json!({ "far": 1e-3, "val": 0.0 }));
        assert!(read(&out.with_extension("svg")).unwrap().contains("Held-out people"));
        // From a checkpoint at step 45, after a crash in the middle of a line.
        let mut file = OpenOptions::new().append(true).open(out.with_extension("metrics.jsonl")).unwrap();
        file.write_all(b"{\"step\": 7").unwrap();
        run(46..=70, 100.0);
        let second = lines();
        assert_eq!(steps(&second), [20, 40, 50, 70, 70]);
        assert_eq!((&second[1], &second[2]["loss"]), (&first[1], &json!(148.0)));
    }
}
