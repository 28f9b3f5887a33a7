//! hnsw_rs behind the questions of `vultus bench lines` (`cli/src/commands/bench/lines.rs`), for `benches/peers/ann.py`.
//!
//! `build` keeps its graph in memory and needs no folder; `search` is the same. By hand it has nothing to say.

use std::io::{BufRead, Read, Write};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use hnsw_rs::prelude::{DistL2, Hnsw};
use serde_json::{Value, json};

/// The paper's M and efConstruction, as `ann.py` gives them to every peer.
const M: usize = 16;
const EF_CONSTRUCTION: usize = 200;
/// The most layers that hnsw_rs has; all that it can write to disk has as many.
const LAYERS: usize = 16;

fn main() -> anyhow::Result<()> {
    let (mut input, mut out) = (std::io::stdin().lock(), std::io::stdout().lock());
    let (mut line, mut open) = (String::new(), None);
    while input.read_line(&mut line)? > 0 {
        let question: Value = serde_json::from_str(&line)?;
        let mut bytes = vec![0; question["bytes"].as_u64().context("a question says its bytes")? as usize];
        input.read_exact(&mut bytes)?;
        let numbers: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let (found, rows) = answer(&question["ask"], &numbers, &mut open)?;
        writeln!(out, "{}", json!({"ok": found, "bytes": 4 * rows.len()}))?;
        out.write_all(&rows.into_iter().flat_map(u32::to_le_bytes).collect::<Vec<_>>())?;
        out.flush()?;
        line.clear();
    }
    Ok(())
}

/// The graph and the dimensions of its vectors.
type Open = Option<(Hnsw<'static, f32, DistL2>, usize)>;

fn answer(ask: &Value, numbers: &[f32], open: &mut Open) -> anyhow::Result<(Value, Vec<u32>)> {
    let size = |of: &Value| of.as_u64().map(|size| size as usize).context("a size");
    if let Some(build) = ask.get("build") {
        let dimensions = size(&build["dimensions"])?;
        ensure!(dimensions > 0, "vectors have dimensions");
        let begin = Instant::now();
        let hnsw = Hnsw::new(M, numbers.len() / dimensions, LAYERS, EF_CONSTRUCTION, DistL2);
        numbers.chunks_exact(dimensions).enumerate().for_each(|(id, vector)| hnsw.insert((vector, id)));
        *open = Some((hnsw, dimensions));
        let seconds = begin.elapsed().as_secs_f64();
        // One thread, so that both are the same.
        Ok((json!({"build_seconds": seconds, "build_cpu_seconds": seconds}), Vec::new()))
    } else if let Some(search) = ask.get("search") {
        let (hnsw, dimensions) = open.as_ref().context("build comes first")?;
        let (k, ef) = (size(&search["k"])?, size(&search["ef"])?);
        let begin = Instant::now();
        let found: Vec<_> = numbers.chunks_exact(*dimensions).map(|query| hnsw.search(query, k, ef)).collect();
        let seconds = begin.elapsed().as_secs_f64();
        let ids = |found: Vec<hnsw_rs::prelude::Neighbour>| {
            found.into_iter().map(|found| found.d_id as u32).chain(std::iter::repeat(u32::MAX)).take(k)
        };
        Ok((json!({"seconds": seconds}), found.into_iter().flat_map(ids).collect()))
    } else {
        bail!("build and search are all that can be asked, not {ask}")
    }
}
