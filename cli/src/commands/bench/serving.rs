//! `vultus bench serving`: what answers cost while the index is written to.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;
use vultus_index::{Effort, Index, Kept, Options, Reader, Search};

use super::report::{Latency, median};
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
/// wait for it). A round is what one thread can answer, asking alone, asking while vectors are added, and a pause until all of them are merged.
/// What counts is the middle round: a machine that others use, too, is slower for seconds now and then, and at this load queries pile up then,
/// whether anybody writes or not.
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
    /// Rounds; of an even number the lower one of the two in the middle counts
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
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
    rounds: Vec<Round>,
    /// Of the middle round.
    p99_ratio: f64,
    merge_failure: Option<String>,
}

#[derive(Serialize)]
struct Round {
    queries_per_second: f64,
    /// Answers came this much later than they were due, with nobody writing.
    idle_us: Latency,
    writing_us: Latency,
    p99_ratio: f64,
    seals: u64,
    /// Put in place by one of these; the pause has others.
    merges: u64,
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
    let mut rounds = Vec::new();
    for _ in 0..args.rounds {
        let queries_per_second = args.load * capacity(&reader, &queries, &search)?;
        let load = Load { queries: &queries, search, every: Duration::from_secs_f64(1.0 / queries_per_second) };
        let idle_us = Latency::of(load.latencies(&reader, run)?);
        let (is_done, seals, merges) = (AtomicBool::new(false), writes.seals, index.merges());
        let writing_us = thread::scope(|scope| {
            let writer = scope.spawn(|| writes.go_on(&mut index, &is_done));
            let latencies = load.latencies(&reader, run);
            is_done.store(true, Relaxed);
            writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            anyhow::Ok(Latency::of(latencies?))
        })?;
        let (seals, merges) = (writes.seals - seals, index.merges() - merges);
        let p99_ratio = writing_us.p99 / idle_us.p99;
        rounds.push(Round { queries_per_second, idle_us, writing_us, p99_ratio, seals, merges });
        index.settle()?;
    }
    let report = Report {
        vultus: env!("CARGO_PKG_VERSION"),
        cpu: machine::cpu(),
        data: name,
        vectors_before: vectors.count(),
        vectors_after: index.count(),
        p99_ratio: median(rounds.iter().map(|round| round.p99_ratio).collect()),
        rounds,
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
        let Self { cpu, data, vectors_before, vectors_after, rounds, .. } = self;
        writeln!(out, "{data}: {vectors_before} vectors, {vectors_after} afterwards; {cpu}")?;
        writeln!(out, "                     microseconds alone     while writing")?;
        writeln!(out, "queries/s  seals  merges     p50      p99     p50      p99   ratio of p99")?;
        for Round { queries_per_second, idle_us, writing_us, p99_ratio, seals, merges } in rounds {
            write!(out, "{queries_per_second:>9.0} {seals:>6} {merges:>7} {:>7.0} {:>8.0}", idle_us.p50, idle_us.p99)?;
            writeln!(out, " {:>7.0} {:>8.0} {p99_ratio:>14.2}", writing_us.p50, writing_us.p99)?;
        }
        writeln!(out, "p99 while writing is {:.2} times that alone, in the middle round", self.p99_ratio)?;
        self.merge_failure.iter().try_for_each(|failure| writeln!(out, "a merge failed: {failure}"))?;
        Ok(())
    }
}
