//! Writes a segment from others while the index goes on.
//!
//! A merge reads files that nobody changes and writes one that nobody knows of yet, so it shares nothing with the index but the wish to stop. The
//! index puts the outcome in the place of its sources, at a moment of its own; what was deleted from these meanwhile is deleted from the
//! outcome then. A long merge keeps how far it is (`part.rs`): one that was cut off goes on from there once the folder is open again. What it wrote of its
//! segment has no name in a manifest, and is written anew.

mod part;

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use roaring::RoaringBitmap;

pub(super) use part::{CutOff, EXTENSION};

use super::live::Live;
use super::manifest::Manifest;
use crate::graph::Progress;
use crate::segment::{self, Layout, Row, Segment};
use crate::stop::Stop;
use crate::storage::Storage;
use crate::{Error, Kept, Result};

/// A merge that is under way, or over.
pub(super) struct Merge {
    /// As they were when it began.
    sources: Vec<Live>,
    number: u64,
    stop: Stop,
    /// `None` comes back where nothing was left; being told to stop is an error.
    thread: Option<JoinHandle<Result<Option<Live>>>>,
}

/// What a merge reads, writes and may take.
pub(super) struct Job {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) sources: Vec<Live>,
    /// What a bridge to the outcome is built from; `None` where it is a source.
    pub(super) largest: Option<Live>,
    /// Of the file that it writes.
    pub(super) number: u64,
    pub(super) dimensions: usize,
    pub(super) graph_vectors_min: usize,
    pub(super) kept: Kept,
    /// As many as there are where this is zero.
    pub(super) threads: usize,
    /// Of the time that they work in.
    pub(super) share: f32,
    /// Rows that are inserted before it keeps again how far it is, or more.
    pub(super) kept_every: usize,
}

/// What takes the place of the sources.
pub(super) struct Outcome {
    pub(super) sources: Vec<Live>,
    pub(super) merged: Option<Live>,
}

impl Merge {
    /// # Errors
    /// `Io` where no thread can be started.
    pub(super) fn start(job: Job) -> Result<Self> {
        let stop = Stop::new(job.share);
        let (sources, number, path) = (job.sources.clone(), job.number, job.storage.path().to_owned());
        let until = stop.clone();
        let thread = thread::Builder::new().name("merge".into()).spawn(move || job.run(&until));
        Ok(Self { sources, number, stop, thread: Some(thread.map_err(Error::io(&path))?) })
    }

    pub(super) fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// The file that is being written.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Whether a segment is being merged.
    pub(super) fn reads(&self, number: u64) -> bool {
        self.sources.iter().any(|source| source.number == number)
    }

    /// Waits for the end, and lets nothing else keep it.
    ///
    /// # Errors
    /// What kept it from writing the file: `Corrupt` sources, `Io`.
    pub(super) fn outcome(mut self) -> Result<Outcome> {
        self.stop.hurry();
        let sources = std::mem::take(&mut self.sources);
        let merged = self.thread.take().map_or(Ok(None), join)?;
        Ok(Outcome { merged, sources })
    }
}

impl Drop for Merge {
    fn drop(&mut self) {
        self.stop.set();
        // What it was good for is of no interest any more.
        let _ = self.thread.take().map(join);
    }
}

/// A panic of the merge goes on in whoever asks for its outcome.
fn join(thread: JoinHandle<Result<Option<Live>>>) -> Result<Option<Live>> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

impl Job {
    fn run(self, stop: &Stop) -> Result<Option<Live>> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads).build();
        let pool = pool.map_err(|error| Error::io(self.storage.path())(io::Error::other(error)))?;
        pool.install(|| self.write(stop))
    }

    fn write(&self, stop: &Stop) -> Result<Option<Live>> {
        let vectors = self.sources.iter().map(|source| source.segment.vectors());
        let vectors: Vec<Cow<'_, [f32]>> = vectors.collect::<Result<_>>()?;
        let mut rows: Vec<Row<'_>> = Vec::new();
        let sources = self.sources.iter().zip(&vectors);
        sources.into_iter().try_for_each(|(source, vectors)| source.append_rows(vectors, &mut rows))?;
        if rows.is_empty() {
            return Ok(None);
        }
        rows.sort_unstable_by_key(|row| row.id);
        let graph = (rows.len() >= self.graph_vectors_min.max(2)).then_some(self.kept);
        let layout = Layout { dimensions: self.dimensions, graph, sequences: sequences(&self.sources) };
        let entries = self.sources.iter().map(Live::entry).collect();
        let sources =
            Manifest { dimensions: self.dimensions as u32, sequence: 0, next: self.number, segments: entries };
        let progress = Progress {
            begun: part::read(&*self.storage, self.number),
            every: self.kept_every,
            // What cannot be kept is done again, if it comes to that.
            tell: &|begun| drop(part::write(&*self.storage, self.number, &sources, begun)),
        };
        let stamp = segment::write(&*self.storage, self.number, &rows, layout, progress, stop)?;
        let segment = Segment::open(&*self.storage, self.number, stamp, self.dimensions)?;
        segment.warm_up()?;
        let mut merged = Live::new(self.number, segment, RoaringBitmap::new());
        if let Some(largest) = &self.largest {
            merged.reach_from(largest.number);
            merged.build_bridge(largest, stop);
        }
        Ok(Some(merged))
    }
}

/// From the first to the last of the caller's sequence numbers that the vectors are from.
fn sequences(sources: &[Live]) -> [u64; 2] {
    let each = sources.iter().map(|source| source.segment.sequences());
    each.reduce(|all, more| [all[0].min(more[0]), all[1].max(more[1])]).unwrap_or_default()
}

impl Outcome {
    /// Deletes from the outcome what was deleted from a source since the merge began.
    pub(super) fn follow(&mut self, now: &[Live]) -> Result<()> {
        let Some(merged) = &mut self.merged else { return Ok(()) };
        for source in &self.sources {
            let Some(live) = now.iter().find(|live| live.number == source.number) else { continue };
            for row in (&*live.deleted - &*source.deleted).iter() {
                merged.delete(live.segment.id(row)?)?;
            }
        }
        Ok(())
    }
}
