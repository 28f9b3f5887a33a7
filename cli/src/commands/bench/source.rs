//! Which vectors are measured, and `vultus bench vectors`: the same for other programs.

use std::convert::Infallible;
use std::io::Write;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context as _, ensure};
use serde::Serialize;

use super::Common;
use super::generate::{self, Kind};
use super::vectors::{self, Vectors};
use crate::output;

/// Vectors that are made where nothing says how many.
const COUNT: usize = 100_000;

/// Where the vectors come from
#[derive(Debug, clap::Args)]
pub(super) struct Source {
    /// Vectors: .fvecs, .bvecs, .npy (float32 or float64), or .hdf5 as ann-benchmarks has it (`train`, and `test` for queries)
    #[arg(long, value_name = "FILE", required_unless_present = "generate", conflicts_with = "generate")]
    data: Option<PathBuf>,
    /// Make vectors instead of reading them
    #[arg(long, value_enum, value_name = "KIND")]
    generate: Option<Kind>,
    /// Vectors: of a file the first [default: all; 100000 are made]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    count: Option<u64>,
    /// How many queries, or a file of them; those of a number are the first of the file's own (`test`), or else held out of the vectors
    #[arg(long, value_name = "N|FILE", default_value = "1000")]
    queries: Queries,
}

#[derive(Clone, Debug)]
enum Queries {
    Count(usize),
    File(PathBuf),
}

impl FromStr for Queries {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.parse().map_or_else(|_| Self::File(text.into()), Self::Count))
    }
}

/// What is measured: vectors and queries of unit length.
pub(super) struct Data {
    /// The file, or the kind that was made.
    pub(super) name: String,
    pub(super) vectors: Vectors,
    pub(super) queries: Vectors,
    /// What the file says are the nearest of each query.
    pub(super) neighbors: Option<Vec<Vec<u64>>>,
}

impl Source {
    /// Reads or makes the vectors.
    ///
    /// # Errors
    /// Names the file, what was expected and what was found.
    pub(super) fn load(&self) -> anyhow::Result<Data> {
        let data = match &self.data {
            Some(path) => self.read(path)?,
            None => self.make()?,
        };
        let (expected, found) = (data.vectors.dimensions(), data.queries.dimensions());
        ensure!(expected == found, "--queries: {found} dimensions, the vectors have {expected}");
        Ok(data)
    }

    fn make(&self) -> anyhow::Result<Data> {
        let kind = self.generate.context("--generate or --data is needed")?;
        let Queries::Count(queries @ 1..) = self.queries else {
            anyhow::bail!("--queries: with --generate, expected how many to make, at least one");
        };
        let count = self.count.map_or(COUNT, |count| count as usize);
        let [mut vectors, mut queries] = generate::make(kind, count, queries);
        vectors.normalise()?;
        queries.normalise()?;
        Ok(Data { name: format!("{kind:?}").to_lowercase(), vectors, queries, neighbors: None })
    }

    fn read(&self, path: &std::path::Path) -> anyhow::Result<Data> {
        let limit = self.count.map_or(usize::MAX, |count| count as usize);
        let name = path.display().to_string();
        let (vectors, queries, neighbors) = match &self.queries {
            Queries::File(file) => {
                let queries = vectors::read(file, usize::MAX)?;
                (vectors::read(path, limit)?.vectors, queries.queries.unwrap_or(queries.vectors), None)
            }
            Queries::Count(wanted) => {
                ensure!(*wanted > 0, "--queries: expected at least one");
                // Vectors to hold out of are read beyond the count.
                let read = vectors::read(path, limit.saturating_add(*wanted))?;
                let mut vectors = read.vectors;
                if let Some(mut queries) = read.queries {
                    let all = vectors.count() <= limit;
                    vectors.truncate(limit);
                    queries.truncate(*wanted);
                    ensure!(queries.count() > 0, "{name}: `test` holds no queries");
                    (vectors, queries, read.neighbors.filter(|_| all))
                } else {
                    let count = vectors.count();
                    ensure!(
                        *wanted < count,
                        "{name}: {count} vectors, too few to hold out {wanted} of them; --queries takes another number, or a file"
                    );
                    let queries = vectors.hold_out(*wanted);
                    (vectors, queries, None)
                }
            }
        };
        Ok(Data { name, vectors, queries, neighbors })
    }
}

/// Write vectors and queries, scaled to unit length, as arrays for NumPy
///
/// They are what `vultus bench ann` measures with the same options, in files that other programs read: vectors.npy and queries.npy.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  vultus bench vectors --generate sift --count 10000 --out sift/")]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// Folder for the two files; made where there is none
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document {
    data: String,
    vectors: usize,
    queries: usize,
    dimensions: usize,
}

pub(super) fn run(args: &Args, common: &Common, out: &mut dyn Write) -> anyhow::Result<()> {
    let data = args.source.load()?;
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    vectors::write(&args.out.join("vectors.npy"), &data.vectors)?;
    vectors::write(&args.out.join("queries.npy"), &data.queries)?;
    let (vectors, queries, dimensions) = (data.vectors.count(), data.queries.count(), data.vectors.dimensions());
    if common.json {
        output::json(out, &Document { data: data.name, vectors, queries, dimensions })?;
    } else {
        writeln!(
            out,
            "wrote {vectors} vectors and {queries} queries of {dimensions} dimensions into {}",
            args.out.display()
        )?;
    }
    Ok(())
}
