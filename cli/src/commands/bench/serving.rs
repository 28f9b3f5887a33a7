//! `vultus bench serving`: what answers cost while the index is written to.

use std::io::Write;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;
use vultus_index::{Effort, Index, Kept, Options, Search, Snapshot};

use super::report::{Latency, percentile, sorted};
use super::source::{Data, Source};
use super::vectors::Vectors;
use super::{Common, machine, measure};
use crate::output;

/// Before something is due by less than this, a thread waits awake: the system wakes sleepers too late.
const AWAKE: Duration = Duration::from_micros(200);

/// How long a turn takes.
const SECOND: Duration = Duration::from_secs(1);

/// How long it is measured what one thread can answer.
const CAPACITY: Duration = Duration::from_secs(2);

/// Ask at a steady rate while vectors are added, sealed and merged, and compare with asking alone
///
/// Half of the vectors are indexed first, the others are added meanwhile. Queries come at a fixed rate, a share of what one thread can answer,
/// whether the one before was answered or not; a latency counts from when its query was due (an open loop, so that a stall is seen by all who
/// wait for it).
///
/// Seconds of asking alone, of the index as it was before anything was added, and seconds of adding and asking take turns, and what counts is the middle
/// one: a machine that others use, too, is slower for seconds now and then, and at this load queries pile up then, whether anybody writes or not. How
/// slow it is then is told by the p99 that nine of ten seconds keep to. Before each round all that was added is merged, and it is measured what one thread can answer.
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
    /// Seconds of a round that it asks alone, and as many while vectors are added
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Rounds
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
    /// Of each round.
    queries_per_second: Vec<f64>,
    seals: u64,
    merges: u64,
    alone: Seconds,
    /// All seconds in which vectors were added, and those of them in which some were sealed, or a merge was at work.
    writing: Seconds,
    sealing: Seconds,
    merging: Seconds,
    merge_failure: Option<String>,
}

/// Seconds in which the same went on.
#[derive(Serialize)]
struct Seconds {
    seconds: usize,
    /// Of the middle second: microseconds from when a query was due to its answer.
    p50_us: f64,
    p99_us: f64,
    /// What the p99 of nine of ten seconds is not above.
    p99_us_of_nine_in_ten: f64,
    /// Of the middle second: its p99, as a multiple of that of the last second of asking alone.
    p99_ratio: f64,
}

/// What one second was like.
struct Second {
    latency: Latency,
    /// Its p99, as a multiple of that of the last second with nobody writing.
    p99_ratio: f64,
    doing: Doing,
}

/// What the index did in a second.
#[derive(Clone, Copy, Default)]
struct Doing {
    is_sealing: bool,
    is_merging: bool,
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
    let first_id = vectors.count() as u64;
    let mut writes = Writes { vectors: &more, first_id, added: 0, batches: 0, seals: 0, seconds: 0, args };
    let (mut rates, mut alone, mut writing) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        index.settle()?;
        let settled = reader.snapshot();
        let queries_per_second = args.load * capacity(&settled, &queries, &search)?;
        rates.push(queries_per_second);
        let load = Load { queries: &queries, search, queries_per_second };
        let mut p99_alone = None;
        for _ in 0..args.seconds {
            // A merge that is not over yet goes on: then it is no second of asking alone.
            let is_alone = !index.is_merging();
            let latency = load.second(|| settled.clone())?;
            if is_alone {
                p99_alone = Some(latency.p99);
                alone.push(Second { latency, p99_ratio: 1.0, doing: Doing::default() });
            }
            let (latency, doing) = thread::scope(|scope| {
                let writer = scope.spawn(|| writes.second(&mut index));
                let latency = load.second(|| reader.snapshot());
                let doing = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                anyhow::Ok((latency?, doing))
            })?;
            if let Some(p99_alone) = p99_alone {
                writing.push(Second { p99_ratio: latency.p99 / p99_alone, latency, doing });
            }
        }
    }
    index.settle()?;
    let report = Report {
        vultus: env!("CARGO_PKG_VERSION"),
        cpu: machine::cpu(),
        data: name,
        vectors_before: vectors.count(),
        vectors_after: index.count(),
        queries_per_second: rates,
        seals: writes.seals,
        merges: index.merges(),
        alone: Seconds::of(&alone, |_| true),
        writing: Seconds::of(&writing, |_| true),
        sealing: Seconds::of(&writing, |doing| doing.is_sealing),
        merging: Seconds::of(&writing, |doing| doing.is_merging),
        merge_failure: index.merge_failure().map(str::to_owned),
    };
    if common.json { Ok(output::json(out, &report)?) } else { report.describe(out) }
}

/// Queries a second that one thread answers with nothing else to do, in the mean over some time: what a machine does in its best moments is no
/// measure of what it bears.
fn capacity(settled: &Snapshot, queries: &Vectors, search: &Search<'_>) -> anyhow::Result<f64> {
    let answer_all = || queries.rows().try_for_each(|query| settled.search(query, search).map(drop));
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
    queries_per_second: f64,
}

impl Load<'_> {
    /// Microseconds from when each query of one second was due to its answer.
    fn second(&self, snapshot: impl Fn() -> Arc<Snapshot>) -> anyhow::Result<Latency> {
        let (begin, mut latencies) = (Instant::now(), Vec::new());
        let due = (0u32..).map(|number| begin + Duration::from_secs_f64(f64::from(number) / self.queries_per_second));
        for (due, query) in due.take_while(|due| *due - begin < SECOND).zip(self.queries.rows().cycle()) {
            wait_until(due);
            snapshot().search(query, &self.search)?;
            latencies.push(1e6 * due.elapsed().as_secs_f64());
        }
        Ok(Latency::of(latencies))
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
    added: usize,
    batches: u32,
    seals: u64,
    /// In which vectors were added.
    seconds: u32,
    args: &'a Args,
}

impl Writes<'_> {
    /// Adds for a second what is due by then, and seals what was added since the last seal once it is enough; what went on.
    fn second(&mut self, index: &mut Index) -> anyhow::Result<Doing> {
        let Args { inserts, batch, seal_every, .. } = self.args;
        let (begin, mut doing) = (Instant::now(), Doing { is_sealing: false, is_merging: index.is_merging() });
        while begin.elapsed() < SECOND {
            // Of the time in which vectors are added.
            let due = f64::from(self.batches) * f64::from(*batch) / f64::from(*inserts) - f64::from(self.seconds);
            if due >= SECOND.as_secs_f64() {
                break;
            }
            wait_until(begin + Duration::from_secs_f64(due.max(0.0)));
            for vector in self.vectors.rows().skip(self.added).take(*batch as usize) {
                index.add(self.first_id + self.added as u64, vector)?;
                self.added += 1;
            }
            index.publish();
            self.batches += 1;
            if self.batches.is_multiple_of(*seal_every) {
                index.seal(index.sequence() + 1)?;
                self.seals += 1;
                doing.is_sealing = true;
            }
            doing.is_merging |= index.is_merging();
        }
        self.seconds += 1;
        Ok(doing)
    }
}

impl Seconds {
    /// - `counts`: whether a second in which that went on does.
    fn of(all: &[Second], counts: impl Fn(Doing) -> bool) -> Self {
        let counting = || all.iter().filter(|second| counts(second.doing));
        let of_each =
            |figure: fn(&Second) -> f64, percent| percentile(&sorted(counting().map(figure).collect()), percent);
        Self {
            seconds: counting().count(),
            p50_us: of_each(|second| second.latency.p50, 50.0),
            p99_us: of_each(|second| second.latency.p99, 50.0),
            p99_us_of_nine_in_ten: of_each(|second| second.latency.p99, 90.0),
            p99_ratio: of_each(|second| second.p99_ratio, 50.0),
        }
    }
}

impl Report {
    fn describe(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let Self { cpu, data, vectors_before, vectors_after, queries_per_second, seals, merges, .. } = self;
        writeln!(out, "{data}: {vectors_before} vectors, {vectors_after} afterwards; {cpu}")?;
        let rates = sorted(queries_per_second.clone());
        let [least, most] = [0.0, 100.0].map(|percent| percentile(&rates, percent));
        writeln!(out, "{least:.0} to {most:.0} queries a second, {seals} seals, {merges} merges")?;
        writeln!(out, "                        of the middle second, in microseconds   of nine in ten")?;
        writeln!(out, "              seconds        p50        p99    p99 / p99 alone         p99 up to")?;
        let rows = [("alone", &self.alone), ("adding", &self.writing), ("  sealing", &self.sealing)];
        for (name, of) in rows.into_iter().chain([("  merging", &self.merging)]) {
            let Seconds { seconds, p50_us, p99_us, p99_us_of_nine_in_ten, p99_ratio } = of;
            write!(out, "{name:<12} {seconds:>8} {p50_us:>10.0} {p99_us:>10.0} {p99_ratio:>18.2}")?;
            writeln!(out, " {p99_us_of_nine_in_ten:>17.0}")?;
        }
        self.merge_failure.iter().try_for_each(|failure| writeln!(out, "a merge failed: {failure}"))?;
        Ok(())
    }
}
