//! `vultus bench ann`: recall against speed of the index, width by width.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use vultus_index::{Index, Kept, Neighbor};

use super::measure::{self, Answers};
use super::report::{Point, Report};
use super::source::{Data, Source};
use super::vectors::Vectors;
use super::{Common, filters, lines, machine};
use crate::output;

/// Build an index, and measure recall, queries a second and latencies at each beam width
///
/// Vectors and queries are scaled to unit length first, since that is what the index holds: the nearest are those with the smallest angle,
/// as in the angular data sets of ann-benchmarks. For data that is meant for Euclidean distances this is another problem with other answers, so
/// the truth is always computed anew, by comparing with every vector. Searching runs in one thread, building in as many as there are
/// (RAYON_NUM_THREADS chooses).
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  vultus bench ann --generate faces --count 1000000 --out faces.json --plot faces.svg\n  \
                        vultus bench ann --data glove-100-angular.hdf5 --ef 20,80,320\n  \
                        vultus bench ann --data sift_base.fvecs --queries sift_query.fvecs --json"
)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// Neighbors that each query asks for
    #[arg(short, long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=lines::K_MAX as i64))]
    k: u16,
    /// Beam widths; one below k is raised to k
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1_000_000),
          default_values_t = [10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448])]
    ef: Vec<u32>,
    /// Also ask for the nearest among these shares of the vectors only, as filters do
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    allow: Vec<f64>,
    /// What the index keeps of the vectors, beside the codes it walks by; recall is always that among the vectors themselves, but among what is
    /// kept with --allow
    #[arg(long, value_enum, default_value_t = Keep::F32)]
    keep: Keep,
    /// How often all queries are asked at each width
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Where the index is built and stays: a new folder, or an empty one [default: a temporary one]
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Also write the figures as JSON
    #[arg(long, value_name = "FILE.json")]
    out: Option<PathBuf>,
    /// Also draw recall against queries a second, and against latencies
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

/// What an index keeps of vectors.
#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
enum Keep {
    /// All of them
    F32,
    /// The upper halves of their numbers
    Bf16,
    /// Three bits of each number
    Codes,
}

impl From<Keep> for Kept {
    fn from(keep: Keep) -> Self {
        match keep {
            Keep::F32 => Self::F32,
            Keep::Bf16 => Self::Bf16,
            Keep::Codes => Self::Codes,
        }
    }
}

pub(super) fn run(args: &Args, common: &Common, out: &mut dyn Write) -> anyhow::Result<()> {
    let is_share = |share: &f64| *share > 0.0 && *share <= 1.0;
    ensure!(args.allow.iter().all(is_share), "--allow: expected shares above 0, up to 1");
    let Data { name, vectors, queries, neighbors } = args.source.load()?;
    let temporary = tempfile::tempdir().context("a temporary folder for the index")?;
    let folder = args.folder.as_deref().unwrap_or(temporary.path());
    let built = measure::build(folder, &vectors, args.keep.into())?;
    let (count, dimensions) = (vectors.count(), vectors.dimensions());
    let first = queries.rows().next().context("there are no queries")?;
    let opened = lines::open_elsewhere(folder, first)?;
    let (index, _) = measure::open(folder, first)?;
    let k = usize::from(args.k);
    // Where the index does not have the vectors themselves, one that has them says how near its answers are.
    let elsewhere = tempfile::tempdir().context("a temporary folder for exact answers")?;
    let exact = (args.keep != Keep::F32).then(|| measure::unsealed(elsewhere.path(), &vectors)).transpose()?;
    let truth = measure::truth(exact.as_ref().unwrap_or(&index), &queries, k)?;
    let given = neighbors.map(|given| agreement(&given, &truth, &vectors, &queries));
    // Searching needs the memory more.
    drop(vectors);
    let report = Report {
        vultus: env!("CARGO_PKG_VERSION"),
        cpu: machine::cpu(),
        data: name,
        vectors: count,
        dimensions,
        queries: queries.count(),
        k,
        build_threads: rayon::current_num_threads(),
        bytes_per_vector: built.index_bytes as f64 / count as f64,
        built,
        opened,
        given_neighbors_found: given,
        points: points(args, &index, exact.as_ref(), &queries, &truth)?,
        filters: args
            .allow
            .iter()
            .map(|share| filters::measure(&index, &queries, k, *share))
            .collect::<Result<_, _>>()?,
    };
    if let Some(path) = &args.out {
        fs::write(path, format!("{}\n", serde_json::to_string_pretty(&report)?))
            .with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &args.plot {
        fs::write(path, report.plot()?).with_context(|| path.display().to_string())?;
    }
    if common.json {
        output::json(out, &report)?
    } else {
        report.describe(out)?
    }
    Ok(())
}

fn points(
    args: &Args,
    index: &Index,
    exact: Option<&Index>,
    queries: &Vectors,
    truth: &[Vec<Neighbor>],
) -> anyhow::Result<Vec<Point>> {
    let k = usize::from(args.k);
    let mut widths: Vec<usize> = args.ef.iter().map(|ef| (*ef as usize).max(k)).collect();
    widths.sort_unstable();
    widths.dedup();
    let point = |ef: usize| {
        let round = |_| measure::search(index, queries, k, ef);
        let rounds: Vec<Answers> = (0..args.rounds).map(round).collect::<anyhow::Result<_>>()?;
        // Every round finds the same.
        let found = &rounds[0].neighbors;
        let recall = match exact {
            None => measure::recall(found, truth),
            Some(exact) => measure::recall(&measure::measured_by(exact, queries, found)?, truth),
        };
        Ok(Point::new(ef, recall, &rounds))
    };
    widths.into_iter().map(point).collect()
}

/// The share of the neighbors that a file gives which are as near as the true ones.
fn agreement(given: &[Vec<u64>], truth: &[Vec<Neighbor>], vectors: &Vectors, queries: &Vectors) -> f64 {
    let (mut right, mut wanted) = (0, 0);
    for ((given, truth), query) in given.iter().zip(truth).zip(queries.rows()) {
        let given = &given[..given.len().min(truth.len())];
        let farthest = truth.last().map_or(0.0, |last| last.distance);
        let is_near = |row: &&u64| {
            let row = usize::try_from(**row).ok().and_then(|row| vectors.rows().nth(row));
            let distance = |row: &[f32]| row.iter().zip(query).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
            // Whoever wrote the file rounded elsewhere.
            row.is_some_and(|row| distance(row) <= farthest + 1e-5)
        };
        right += given.iter().filter(is_near).count();
        wanted += given.len();
    }
    right as f64 / wanted.max(1) as f64
}
