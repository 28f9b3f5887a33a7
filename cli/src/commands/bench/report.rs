//! What `vultus bench ann` found: as JSON, as a table and as curves.

use std::io::Write;

use serde::Serialize;

use super::filters::Filtered;
use super::measure::{Answers, Built, Opened};
use crate::output;
use crate::plot::{self, Axis, Curve, Plot, Scale};

/// All figures. A figure that the system does not tell is null.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) vultus: &'static str,
    pub(super) cpu: String,
    /// The file, or what was made.
    pub(super) data: String,
    pub(super) vectors: usize,
    pub(super) dimensions: usize,
    pub(super) queries: usize,
    pub(super) k: usize,
    pub(super) build_threads: usize,
    #[serde(flatten)]
    pub(super) built: Built,
    pub(super) bytes_per_vector: f64,
    /// In a process of its own.
    #[serde(flatten)]
    pub(super) opened: Opened,
    /// The share of the file's own nearest neighbors that the exact search finds, where the file has some that can be compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) given_neighbors_found: Option<f64>,
    /// One thread, one query after the other; by growing `ef`.
    pub(super) points: Vec<Point>,
    /// Where they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) filters: Vec<Filtered>,
}

/// What one beam width gives.
#[derive(Serialize)]
pub(super) struct Point {
    pub(super) ef: usize,
    pub(super) recall: f64,
    pub(super) queries_per_second: f64,
    pub(super) latency_us: Latency,
}

/// Microseconds of one query.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p95: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

impl Point {
    /// The rate is that of the middle round; latencies are those of all rounds.
    pub(super) fn new(ef: usize, recall: f64, rounds: &[Answers]) -> Self {
        let each = rounds.iter().flat_map(|round| &round.seconds_each).map(|seconds| 1e6 * seconds).collect();
        let rates = rounds.iter().map(|round| round.seconds_each.len() as f64 / round.seconds).collect();
        Self { ef, recall, queries_per_second: median(rates), latency_us: Latency::of(each) }
    }
}

impl Latency {
    pub(super) fn of(each: Vec<f64>) -> Self {
        let each = sorted(each);
        let [p50, p95, p99, max] = [50.0, 95.0, 99.0, 100.0].map(|percent| percentile(&each, percent));
        Self { p50, p95, p99, max }
    }
}

/// The one in the middle; of two the lower one.
fn median(values: Vec<f64>) -> f64 {
    percentile(&sorted(values), 50.0)
}

pub(super) fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// The least value that so many percent of all are not above; 0 of none.
pub(super) fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

impl Report {
    /// A table for people.
    ///
    /// # Errors
    /// Only those of `out`.
    pub(super) fn describe(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let seconds = |seconds: Option<f64>| seconds.map_or("unknown".to_owned(), |seconds| format!("{seconds:.1}"));
        let bytes = |bytes: Option<u64>| bytes.map_or("unknown".to_owned(), output::bytes);
        writeln!(out, "{}: {} vectors of {} dimensions, {}", self.data, self.vectors, self.dimensions, self.cpu)?;
        writeln!(
            out,
            "built in {:.1} s by {} ({} s of CPU time): {}, {:.0} bytes a vector",
            self.built.build_seconds,
            output::count(self.build_threads as u64, "thread"),
            seconds(self.built.build_cpu_seconds),
            output::bytes(self.built.index_bytes),
            self.bytes_per_vector
        )?;
        writeln!(
            out,
            "first answer {:.1} ms after opening, {} in memory then",
            1e3 * self.opened.first_answer_seconds,
            bytes(self.opened.resident_bytes)
        )?;
        if let Some(found) = self.given_neighbors_found {
            writeln!(out, "of the neighbors in the file {:.2} % are found by exact search", 100.0 * found)?;
        }
        writeln!(out, "\n{} queries in one thread; latencies in microseconds", self.queries)?;
        let recall = format!("recall@{}", self.k);
        writeln!(
            out,
            "{:>6} {recall:>10} {:>10} {:>8} {:>8} {:>8} {:>8}",
            "ef", "queries/s", "p50", "p95", "p99", "max"
        )?;
        for Point { ef, recall, queries_per_second, latency_us: Latency { p50, p95, p99, max } } in &self.points {
            let rate = format!("{queries_per_second:.0}");
            writeln!(out, "{ef:>6} {recall:>10.4} {rate:>10} {p50:>8.0} {p95:>8.0} {p99:>8.0} {max:>8.0}")?;
        }
        if !self.filters.is_empty() {
            writeln!(out, "\nwhere a share is allowed: microseconds, and those of comparing with all of it")?;
            writeln!(out, "{:>8} {:>10} {recall:>10} {:>8} {:>8}", "share", "vectors", "search", "exact")?;
        }
        for Filtered { share, allowed, recall, microseconds, exact_microseconds } in &self.filters {
            writeln!(out, "{share:>8} {allowed:>10} {recall:>10.4} {microseconds:>8.0} {exact_microseconds:>8.0}")?;
        }
        Ok(())
    }

    /// The usual curves, as SVG.
    ///
    /// # Errors
    /// Those of [`plot::svg`].
    pub(super) fn plot(&self) -> anyhow::Result<String> {
        let curve = |name: &str, y: fn(&Point) -> f64| Curve {
            name: name.into(),
            points: self.points.iter().map(|point| [point.recall, y(point)]).collect(),
        };
        let plot = |what: &str, label, curves| Plot {
            title: format!("{what}: {} x {} {}", self.vectors, self.dimensions, self.data),
            x: Axis { label: "recall", scale: Scale::Fitted },
            y: Axis { label, scale: Scale::Log },
            curves,
        };
        let latencies = vec![
            curve("p50", |point| point.latency_us.p50),
            curve("p95", |point| point.latency_us.p95),
            curve("p99", |point| point.latency_us.p99),
        ];
        plot::svg(&[
            plot("Queries a second, one thread", "queries/s", vec![curve("vultus", |point| point.queries_per_second)]),
            plot("Latency", "microseconds", latencies),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let latency = Latency::of((1..=200).rev().map(f64::from).collect());
        assert_eq!(latency, Latency { p50: 100.0, p95: 190.0, p99: 198.0, max: 200.0 });
        assert_eq!(Latency::of(vec![7.0]), Latency { p50: 7.0, p95: 7.0, p99: 7.0, max: 7.0 });
    }

    #[test]
    fn the_rate_is_that_of_the_middle_round() {
        let round = |seconds| Answers { neighbors: Vec::new(), seconds, seconds_each: vec![seconds / 4.0; 4] };
        let point = Point::new(10, 1.0, &[round(1.0), round(4.0), round(2.0)]);
        assert_eq!((point.queries_per_second, point.latency_us.max), (2.0, 1e6));
    }
}
