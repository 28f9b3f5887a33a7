//! A page for people, or JSON for programs, beside what is printed: figures and curves of one evaluation.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;

use crate::contact_sheet::escape;
use crate::plot::{self, Axis, Curve, Plot, Scale};

/// Where the report goes
#[derive(Debug, clap::Args)]
pub(super) struct ReportFile {
    /// Also write a report with the figures and the ROC: a page (.html) or JSON (.json)
    #[arg(long, value_name = "FILE", value_parser = file)]
    report: Option<PathBuf>,
}

fn file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("html" | "json") => Ok(path),
        _ => Err("expected a name that ends in .html or .json".into()),
    }
}

/// What an evaluation found.
pub(super) struct Report<'a> {
    /// What was measured.
    pub(super) title: &'a str,
    /// As it was printed.
    pub(super) text: &'a str,
    /// The same and more for programs.
    pub(super) json: &'a Value,
    /// False-accept rate and true-accept rate.
    pub(super) roc: Vec<[f64; 2]>,
}

impl ReportFile {
    /// Writes the report if one is wanted.
    ///
    /// # Errors
    /// Names the file.
    pub(super) fn write(&self, report: Report<'_>) -> anyhow::Result<()> {
        let Some(path) = &self.report else { return Ok(()) };
        let page = path.extension().is_some_and(|extension| extension == "html");
        let text = if page { report.page()? } else { format!("{:#}\n", report.json) };
        save(path, &text)
    }
}

/// Writes a whole file.
///
/// # Errors
/// Names the file.
fn save(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

const STYLE: &str = "body { margin: 2rem auto; max-width: 50rem; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif; color: #1c1e21; background: #fff; }
h1 { font-size: 1.5rem; } pre { overflow-x: auto; padding: 1rem; background: #f2f2f0; } svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; } td, th { padding: .2rem 1rem .2rem 0; text-align: right; border-bottom: 1px solid #dededa; }";

impl Report<'_> {
    fn page(self) -> anyhow::Result<String> {
        let mut rows = String::new();
        for [far, tar] in self.roc.iter().rev().step_by(10) {
            write!(rows, "<tr><td>{far:.1e}</td><td>{:.2} %</td></tr>", 100.0 * tar)?;
        }
        let curve = Curve { name: "this model".into(), points: self.roc };
        let picture = plot::svg(&[Plot {
            title: "Receiver operating characteristic".into(),
            x: Axis { label: "false-accept rate", scale: Scale::Log },
            y: Axis { label: "true-accept rate", scale: Scale::Share },
            curves: vec![curve],
        }])?;
        let (title, text) = (escape(self.title), escape(self.text));
        Ok(format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style></head>\n\
             <body><h1>{title}</h1>\n<pre>{text}</pre>\n{picture}\n\
             <table><tr><th>false accepts</th><th>true accepts</th></tr>{rows}</table></body></html>\n"
        ))
    }
}
