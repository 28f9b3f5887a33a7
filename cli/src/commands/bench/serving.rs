//! `vultus bench serving`: what answers cost while the index is written to.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;
use vultus_index::{Effort, Index, Kept, Options, Reader, Search};

use super::report::Latency;
use super::source::{Data, Source};
use super::vectors::Vectors;
use super::{Common, machine, measure};
use crate::output;

/// Before something is due by less than this, a thread waits awake: the system wakes sleepers too late.
const AWAKE: Duration = Duration::from_micros(200);

/// How long it is measured what one thread can answer.
const CAPACITY: Duration = Duration::from_secs(4);

/// Ask at a steady rate while vectors are added, sealed and merged, and compare with asking alone
///
/// Half of the vectors are indexed first, the others are added meanwhile. Queries come at a fixed rate, a share of what one thread can answer,
/// whether the one before was answered or not; a latency counts from when its query was due (an open loop, so that a stall is seen by all who
/// wait for it). Rounds take turns, since a machine is not always as fast: what one thread can answer, asking alone, asking while vectors are
/// added, and a pause until all of them are merged.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  vultus bench serving --generate faces --count 400000 --inserts 200")]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// Neighbors that each query asks for
    #[arg(short, long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    k: u16,
    /// Recall that each query asks for
    #[arg(long, value_name = "SHARE", default_value_t = 0.95)]
    recall: f32,
    /// Share of one thread's capacity that queries take
    #[arg(long, value_name = "SHARE", default_value_t = 0.7)]
    load: f64,
    /// Vectors added a second
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    inserts: u32,
    /// Vectors that readers come to see together
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Batches between two seals
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    seal_every: u32,
    /// Seconds that a round asks alone, and then while vectors are added
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Rounds
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Share of the time that a merge works in
    #[arg(long, value_name = "SHARE", default_value_t = 0.3)]
    merge_share: f32,
}

/// What was found.
#[derive(Serialize)]
struct Report {
    vultus: &'static str,
    cpu: String,
    data: String,
    vectors_before: usize,
    vectors_after: usize,
    /// In the mean over the rounds.
    queries_per_second: f64,
    /// Answers came this much later than they were due, with nobody writing.
    idle_us: Latency,
    writing_us: Latency,
    p99_ratio: f64,
    seals: u64,
    /// Put in place by one of these; pauses have others.
    merges: u64,
    merge_failure: Option<String>,
}

pub(super) fn run(args: &Args, common: &Common, out: &mut dyn Write) -> anyhow::Result<()> {
    let Data { name, mut vectors, queries, .. } = args.source.load()?;
    anyhow::ensure!((0.0..=1.0).contains(&args.load) && args.load > 0.0, "--load: expected a share above 0, up to 1");
    anyhow::ensure!(vectors.count() > 1, "expected more vectors than one");
    let more = vectors.hold_out(vectors.count() / 2);
    let folder = tempfile::tempdir().context("a temporary folder for the index")?;
    measure::build(folder.path(), &vectors, Kept::F32)?;
    // Whoever serves keeps a core for that.
    let (merge_threads, merge_share) = (1, args.merge_share);
    let options = Options { dimensions: vectors.dimensions(), merge_threads, merge_share, ..Options::default() };
    let mut index = Index::open(folder.path(), options)?;
    let search = Search { k: usize::from(args.k), effort: Effort::Recall(args.recall), ..Search::default() };
    let reader = index.reader();
    let run = Duration::from_secs(u64::from(args.seconds));
    let mut writes = Writes { vectors: &more, first_id: vectors.count() as u64, added: 0, seals: 0, args };
    let (mut idle, mut writing, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    let mut merges = 0;
    for _ in 0..args.rounds {
        let rate = args.load * capacity(&reader, &queries, &search)?;
        let load = Load { queries: &queries, search, every: Duration::from_secs_f64(1.0 / rate) };
        rates.push(rate);
        idle.extend(load.latencies(&reader, run)?);
        let (is_done, merges_before) = (AtomicBool::new(false), index.merges());
        thread::scope(|scope| {
            let writer = scope.spawn(|| writes.go_on(&mut index, &is_done));
            let latencies = load.latencies(&reader, run);
            is_done.store(true, Relaxed);
            writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            writing.extend(latencies?);
            anyhow::Ok(())
        })?;
        merges += index.merges() - merges_before;
        index.settle()?;
    }
    let (idle, writing) = (Latency::of(idle), Latency::of(writing));
    let report = Report {
        vultus: env!("CARGO_PKG_VERSION"),
        cpu: machine::cpu(),
        data: name,
        vectors_before: vectors.count(),
        vectors_after: index.count(),
        queries_per_second: rates.iter().sum::<f64>() / rates.len() as f64,
        p99_ratio: writing.p99 / idle.p99,
        idle_us: idle,
        writing_us: writing,
        seals: writes.seals,
        merges,
        merge_failure: index.merge_failure().map(str::to_owned),
    };
    if common.json { Ok(output::json(out, &report)?) } else { report.describe(out) }
}

/// Queries a second that one thread answers with nothing else to do, in the mean over some time: what a machine does in its best moments is no
/// measure of what it bears.
fn capacity(reader: &Reader, queries: &Vectors, search: &Search<'_>) -> anyhow::Result<f64> {
    let answer_all = || queries.rows().try_for_each(|query| reader.snapshot().search(query, search).map(drop));
    // The first time reads and compares what was not in memory.
    answer_all()?;
    let (begin, mut answered) = (Instant::now(), 0);
    while begin.elapsed() < CAPACITY {
        answer_all()?;
        answered += queries.count();
    }
    Ok(answered as f64 / begin.elapsed().as_secs_f64())
}

/// Queries that come at a steady rate.
struct Load<'a> {
    queries: &'a Vectors,
    search: Search<'a>,
    every: Duration,
}

impl Load<'_> {
    /// Microseconds from when each query was due to its answer.
    fn latencies(&self, reader: &Reader, run: Duration) -> anyhow::Result<Vec<f64>> {
        let (begin, mut latencies) = (Instant::now(), Vec::new());
        for (number, query) in (0u32..).zip(self.queries.rows().cycle()) {
            let due = begin + self.every * number;
            if due - begin > run {
                break;
            }
            wait_until(due);
            reader.snapshot().search(query, &self.search)?;
            latencies.push(1e6 * due.elapsed().as_secs_f64());
        }
        Ok(latencies)
    }
}

fn wait_until(due: Instant) {
    while let Some(left) = due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        if left > AWAKE { thread::sleep(left - AWAKE) } else { std::hint::spin_loop() }
    }
}

/// Vectors that are added at a steady rate.
struct Writes<'a> {
    vectors: &'a Vectors,
    /// Of the first of them.
    first_id: u64,
    added: u32,
    seals: u64,
    args: &'a Args,
}

impl Writes<'_> {
    /// Adds and seals until it is told to end, or there are no more.
    fn go_on(&mut self, index: &mut Index, is_done: &AtomicBool) -> anyhow::Result<()> {
        let Args { inserts, batch, seal_every, .. } = self.args;
        let (begin, before) = (Instant::now(), self.added);
        for vector in self.vectors.rows().skip(before as usize) {
            index.add(self.first_id + u64::from(self.added), vector)?;
            self.added += 1;
            if !self.added.is_multiple_of(*batch) {
                continue;
            }
            index.publish();
            if self.added.is_multiple_of(batch.saturating_mul(*seal_every)) {
                index.seal(index.sequence() + 1)?;
                self.seals += 1;
            }
            wait_until(begin + Duration::from_secs_f64(f64::from(self.added - before) / f64::from(*inserts)));
            if is_done.load(Relaxed) {
                break;
            }
        }
        Ok(())
    }
}

impl Report {
    fn describe(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let Self { cpu, data, vectors_before, vectors_after, queries_per_second, seals, merges, .. } = self;
        writeln!(out, "{data}: {vectors_before} vectors, {vectors_after} afterwards; {cpu}")?;
        writeln!(out, "{queries_per_second:.0} queries a second; {seals} seals and {merges} merges while writing")?;
        writeln!(out, "microseconds      p50      p95      p99      max")?;
        for (name, Latency { p50, p95, p99, max }) in [("alone", &self.idle_us), ("while writing", &self.writing_us)] {
            writeln!(out, "{name:<13} {p50:>8.0} {p95:>8.0} {p99:>8.0} {max:>8.0}")?;
        }
        writeln!(out, "p99 while writing is {:.2} times that alone", self.p99_ratio)?;
        self.merge_failure.iter().try_for_each(|failure| writeln!(out, "a merge failed: {failure}"))?;
        Ok(())
    }
}
