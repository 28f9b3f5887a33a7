//! Our side of `benches/peers/ann.py`: asked a line at a time, it answers with seconds. The protocol is that of `benches/peer.rs`.
//!
//! One question by hand:
//!
//! ```text
//! cargo bench -p vultus-index --bench peer -- make count=100000 queries=1000 folder=/tmp/ann
//! ```
//!
//! Vectors are in files of little-endian `f32`, ids of exact answers in files of `u32`.

mod face_like;

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, Write};
use std::path::Path;
use std::str::FromStr;
use std::time::Instant;

use anyhow::{Context, anyhow, bail};
use hnsw_rs::prelude::{DistL2, Hnsw};
use vultus_index::{Effort, Index, Options, Search};

const DIMENSIONS: usize = 128;

fn main() -> anyhow::Result<()> {
    let mut ours = Ours::default();
    let by_hand: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if !by_hand.is_empty() {
        println!("{}", ours.answer(&by_hand.join(" "))?);
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        match ours.answer(&line?) {
            Ok(answer) => writeln!(out, "ok {answer}")?,
            Err(error) => writeln!(out, "error {}", format!("{error:#}").replace('\n', " "))?,
        }
        out.flush()?;
    }
    Ok(())
}

/// What was opened or built by the questions before.
#[derive(Default)]
struct Ours {
    index: Option<Index>,
    hnsw_rs: Option<Hnsw<'static, f32, DistL2>>,
}

impl Ours {
    /// One question.
    fn answer(&mut self, line: &str) -> anyhow::Result<String> {
        let mut words = line.split_whitespace();
        let name = words.next().context("an empty question")?;
        let pair = |word| str::split_once(word, '=').ok_or_else(|| anyhow!("{word}: expected key=value"));
        let question = Question(words.map(pair).collect::<anyhow::Result<_>>()?);
        match name {
            "make" => make(&question),
            "truth" => self.truth(&question),
            "build" => build(&question),
            "open" => self.open(&question),
            "search" => {
                let index = self.index.as_ref().context("open comes first")?;
                search(&question, |query, k, ef| {
                    let found = index.search(query, &Search { k, effort: Effort::Width(ef), ..Search::default() })?;
                    Ok(found.iter().map(|found| found.id as u32).collect())
                })
            }
            "hnsw_rs-build" => self.build_hnsw_rs(&question),
            "hnsw_rs-search" => {
                let hnsw = self.hnsw_rs.as_ref().context("hnsw_rs-build comes first")?;
                search(&question, |query, k, ef| {
                    Ok(hnsw.search(query, k, ef).iter().map(|found| found.d_id as u32).collect())
                })
            }
            _ => bail!("unknown question {name}"),
        }
    }

    /// Maps an index and asks it for the first time.
    fn open(&mut self, question: &Question<'_>) -> anyhow::Result<String> {
        let queries = floats(question.get::<String>("queries")?)?;
        // One at a time has a folder.
        self.index = None;
        let begin = Instant::now();
        let index = Index::open(Path::new(&question.get::<String>("folder")?), Options::default())?;
        index.search(&queries[..DIMENSIONS], &Search::default())?;
        let seconds = begin.elapsed().as_secs_f64();
        self.index = Some(index);
        Ok(format!("seconds={seconds} resident={}", resident()?))
    }

    /// Writes the ids of the exact answers.
    fn truth(&self, question: &Question<'_>) -> anyhow::Result<String> {
        let index = self.index.as_ref().context("open comes first")?;
        let mut ids = Vec::new();
        for query in floats(question.get::<String>("queries")?)?.chunks_exact(DIMENSIONS) {
            let found =
                index.search(query, &Search { k: question.get("k")?, effort: Effort::Exact, ..Search::default() })?;
            ids.extend(found.iter().flat_map(|found| (found.id as u32).to_le_bytes()));
        }
        fs::write(question.get::<String>("output")?, ids)?;
        Ok(String::new())
    }

    fn build_hnsw_rs(&mut self, question: &Question<'_>) -> anyhow::Result<String> {
        let vectors = floats(question.get::<String>("vectors")?)?;
        let begin = (Instant::now(), cpu_seconds()?);
        let hnsw = Hnsw::new(16, vectors.len() / DIMENSIONS, 16, 200, DistL2);
        vectors.chunks_exact(DIMENSIONS).enumerate().for_each(|(id, vector)| hnsw.insert((vector, id)));
        self.hnsw_rs = Some(hnsw);
        Ok(format!("seconds={} cpu={}", begin.0.elapsed().as_secs_f64(), cpu_seconds()? - begin.1))
    }
}

/// Writes vectors and queries like those of faces.
fn make(question: &Question<'_>) -> anyhow::Result<String> {
    let folder: String = question.get("folder")?;
    let made = face_like::make(question.get("count")?, question.get("queries")?, DIMENSIONS);
    for (name, vectors) in [("vectors.f32", made.vectors), ("queries.f32", made.queries)] {
        let bytes: Vec<u8> = vectors.into_iter().flat_map(f32::to_le_bytes).collect();
        fs::write(Path::new(&folder).join(name), bytes)?;
    }
    Ok(String::new())
}

/// Builds an index in a new folder.
fn build(question: &Question<'_>) -> anyhow::Result<String> {
    let vectors = floats(question.get::<String>("vectors")?)?;
    let folder: String = question.get("folder")?;
    let begin = (Instant::now(), cpu_seconds()?);
    let mut index = Index::open(Path::new(&folder), Options::default())?;
    for (id, vector) in vectors.chunks_exact(DIMENSIONS).enumerate() {
        index.add(id as u64, vector)?;
    }
    index.seal(1)?;
    index.settle()?;
    let (seconds, cpu) = (begin.0.elapsed().as_secs_f64(), cpu_seconds()? - begin.1);
    let mut bytes = 0;
    for file in fs::read_dir(&folder)? {
        bytes += file?.metadata()?.len();
    }
    Ok(format!("seconds={seconds} cpu={cpu} bytes={bytes}"))
}

/// All queries, one by one.
fn search(
    question: &Question<'_>,
    run: impl Fn(&[f32], usize, usize) -> anyhow::Result<Vec<u32>>,
) -> anyhow::Result<String> {
    let queries = floats(question.get::<String>("queries")?)?;
    let truth: Vec<u32> = words(&fs::read(question.get::<String>("truth")?)?).map(u32::from_le_bytes).collect();
    let (k, ef) = (question.get("k")?, question.get("ef")?);
    let begin = Instant::now();
    let found: Vec<Vec<u32>> =
        queries.chunks_exact(DIMENSIONS).map(|query| run(query, k, ef)).collect::<anyhow::Result<_>>()?;
    let seconds = begin.elapsed().as_secs_f64();
    let hits = |(found, truth): (&Vec<u32>, &[u32])| found.iter().filter(|id| truth.contains(id)).count();
    let hits: usize = found.iter().zip(truth.chunks_exact(k)).map(hits).sum();
    Ok(format!("seconds={seconds} recall={}", hits as f64 / truth.len() as f64))
}

/// The `key=value` words of a question.
struct Question<'a>(HashMap<&'a str, &'a str>);

impl Question<'_> {
    fn get<T: FromStr>(&self, key: &str) -> anyhow::Result<T> {
        let value = self.0.get(key).ok_or_else(|| anyhow!("{key} is missing"))?;
        value.parse().map_err(|_| anyhow!("{key}={value}: not understood"))
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = [u8; 4]> {
    bytes.as_chunks::<4>().0.iter().copied()
}

fn floats(path: impl AsRef<Path>) -> anyhow::Result<Vec<f32>> {
    let bytes = fs::read(&path).with_context(|| path.as_ref().display().to_string())?;
    Ok(words(&bytes).map(f32::from_le_bytes).collect())
}

/// Bytes of this process that are in memory.
fn resident() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(1024 * line.trim().trim_end_matches(" kB").parse::<u64>()?)
}

/// Of this process, all threads.
fn cpu_seconds() -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().context("no name")?.split_whitespace().collect();
    // Hundredths of seconds in user and system mode.
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
}
