//! `vultus bench lines`: the index as a child process, for harnesses in other languages.
//!
//! A question is a line of JSON on standard input and, right behind its line break, as many bytes of little-endian `f32` as it says in
//! `bytes`; so is an answer on standard output, whose bytes are `u32`.
//!
//! | question                                           | bytes of it     | `ok` of the answer                                   | bytes of it |
//! |----------------------------------------------------|-----------------|------------------------------------------------------|-------------|
//! | `{"ask": {"build": {"folder": F, "dimensions": D}}, …`  | all vectors     | `build_seconds`, `build_cpu_seconds`, `index_bytes`  |             |
//! | `{"ask": {"open": {"folder": F, "dimensions": D}}, …`   | one query       | `first_answer_seconds`, `resident_bytes` and before  |             |
//! | `{"ask": {"search": {"k": K, "ef": EF}}, …`             | queries         | `seconds`, of all one by one                         | K rows each |
//! | `{"ask": {"truth": {"k": K}}, …`                        | queries         | `seconds`                                            | K rows each |
//!
//! Each with `"bytes": N}` at its end. Vectors and queries are of unit length; a vector is known by its row. Where fewer than K are
//! there, the rest is 4294967295. What fails is answered by `{"error": TEXT, "bytes": 0}`, and the next question is as
//! welcome; only a line that can't be read ends the program, since nobody knows what follows it.

use std::io::{BufRead, Read as _, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use vultus_index::{Index, Kept, Neighbor};

use super::measure::{self, Opened};
use super::vectors::Vectors;

/// The most neighbours that a query may ask for.
pub(super) const K_MAX: usize = 10_000;
/// Where there is no neighbour.
const NONE: u32 = u32::MAX;

/// Answer a harness: JSON lines and vectors on standard input and output, as benches/ann-benchmarks speaks them
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    ask: Ask,
    bytes: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Ask {
    Build { folder: PathBuf, dimensions: usize },
    Open { folder: PathBuf, dimensions: usize },
    Search { k: usize, ef: usize },
    Truth { k: usize },
}

pub(super) fn run(_: &Args, input: &mut dyn BufRead, out: &mut dyn Write) -> anyhow::Result<()> {
    let (mut line, mut bytes) = (String::new(), Vec::new());
    let mut open = None;
    loop {
        line.clear();
        if input.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let question: Question = serde_json::from_str(&line).context("the question can't be read")?;
        bytes.clear();
        let read = input.take(question.bytes).read_to_end(&mut bytes)?;
        ensure!(read as u64 == question.bytes, "the question ends after {read} of {} bytes", question.bytes);
        let (answer, rows) = match answer(&question.ask, &bytes, &mut open) {
            Ok((found, rows)) => (json!({"ok": found, "bytes": 4 * rows.len()}), rows),
            Err(error) => (json!({"error": format!("{error:#}"), "bytes": 0}), Vec::new()),
        };
        let rows: Vec<u8> = rows.into_iter().flat_map(u32::to_le_bytes).collect();
        out.write_all(&[format!("{answer}\n").as_bytes(), &rows].concat())?;
        out.flush()?;
    }
}

/// An index and its dimensions.
type Open = Option<(Index, usize)>;

fn answer(ask: &Ask, bytes: &[u8], open: &mut Open) -> anyhow::Result<(Value, Vec<u32>)> {
    match ask {
        Ask::Build { folder, dimensions } => {
            let vectors = rows_of(bytes, *dimensions)?;
            Ok((serde_json::to_value(measure::build(folder, &vectors, Kept::F32)?)?, Vec::new()))
        }
        Ask::Open { folder, dimensions } => {
            let query = rows_of(bytes, *dimensions)?;
            ensure!(folder.is_dir(), "{}: no index there", folder.display());
            // An index keeps others off its folder, and so would the one that is still open.
            *open = None;
            let (index, opened) = measure::open(folder, query.rows().next().context("open needs a query")?)?;
            *open = Some((index, *dimensions));
            Ok((serde_json::to_value(opened)?, Vec::new()))
        }
        Ask::Search { k, .. } | Ask::Truth { k } => {
            let (index, dimensions) = open.as_ref().context("no index is open")?;
            let queries = rows_of(bytes, *dimensions)?;
            ensure!((1..=K_MAX).contains(k), "k is {k}, expected 1 to {K_MAX}");
            let begin = Instant::now();
            let (neighbors, seconds) = match ask {
                Ask::Search { ef, .. } => {
                    let found = measure::search(index, &queries, *k, *ef)?;
                    (found.neighbors, found.seconds)
                }
                _ => (measure::truth(index, &queries, *k)?, begin.elapsed().as_secs_f64()),
            };
            Ok((json!({"seconds": seconds}), neighbors.iter().flat_map(|found| padded(found, *k)).collect()))
        }
    }
}

fn rows_of(bytes: &[u8], dimensions: usize) -> anyhow::Result<Vectors> {
    let (numbers, rest) = bytes.as_chunks::<4>();
    let whole = dimensions > 0 && numbers.len().is_multiple_of(dimensions) && rest.is_empty();
    ensure!(whole, "{} bytes, expected rows of {dimensions} numbers of 4", bytes.len());
    Ok(Vectors::new(dimensions, numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()))
}

fn padded(found: &[Neighbor], k: usize) -> impl Iterator<Item = u32> {
    found.iter().map(|found| found.id as u32).chain(std::iter::repeat(NONE)).take(k)
}

/// Opens an index in a new process of this program, so that what building took is not counted.
///
/// # Errors
/// Those of the index, and of starting a process.
pub(super) fn open_elsewhere(folder: &Path, query: &[f32]) -> anyhow::Result<Opened> {
    let bytes: Vec<u8> = query.iter().flat_map(|x| x.to_le_bytes()).collect();
    let ask = json!({"open": {"folder": folder, "dimensions": query.len()}});
    let program = std::env::current_exe()?;
    let mut command = Command::new(program);
    command.args(["bench", "lines"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().context("starting another process of this program")?;
    let mut input = child.stdin.take().context("the other process has no standard input")?;
    input.write_all(format!("{}\n", json!({"ask": ask, "bytes": bytes.len()})).as_bytes())?;
    input.write_all(&bytes)?;
    drop(input);
    let output = child.wait_with_output()?;
    let line = output.stdout.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut answer: Value = serde_json::from_slice(line).context("the other process gave no answer")?;
    if let Some(error) = answer["error"].as_str() {
        bail!("{error}");
    }
    Ok(serde_json::from_value(answer["ok"].take())?)
}
