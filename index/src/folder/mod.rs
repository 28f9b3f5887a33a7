//! The index: a folder of segments, a manifest that says which are alive, and what is pending in memory.
//!
//! An id is alive in one place at most: replacing it deletes the row in the segment that had it. A seal writes new files
//! before the manifest that names them, and removes old ones after it, so at every moment the manifest on disk describes files that
//! are whole. Files that it does not name are left from a seal or a merge that did not finish; but for what such a merge goes on from, they are removed.

mod bridges;
mod live;
mod manifest;
mod merge;
mod pending;
mod plan;
mod recover;
mod scrub;
mod snapshot;

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::io::{ErrorKind, Write};
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use bridges::Bridges;
use live::Live;
use manifest::{Entry, Manifest};
use merge::{CutOff, Job, Merge, Outcome};
use plan::{Bounds, Size};
use roaring::RoaringBitmap;
use scrub::Scrub;

use crate::graph::Progress;
use crate::segment::{self, Layout, Row, Segment};
use crate::stop::Stop;
use crate::storage::durable::{self, TEMPORARY};
use crate::storage::{Disk, Storage};
use crate::{DIMENSIONS_MAX, Error, Options, Result};

pub use recover::Lost;
pub use snapshot::{Reader, Snapshot};

/// A folder of vectors, as its one writer has it. Any number of [`Reader`]s see what was published.
///
/// Everything that a [`Snapshot`] answers, an index answers of what it was told so far.
pub struct Index {
    storage: Arc<dyn Storage>,
    options: Options,
    state: Snapshot,
    /// Where ids are in what is pending.
    rows: HashMap<u64, usize>,
    /// The number of the next segment file.
    next: u64,
    /// Whether rows of segments were deleted since the last seal.
    has_new_tombstones: bool,
    reader: Reader,
    merge: Option<Merge>,
    bridges: Bridges,
    /// What the next merge is to be, since the last one before the folder was opened did not end.
    cut_off: Option<CutOff>,
    /// Of a merge that is over, until a manifest names it.
    outcome: Option<Outcome>,
    /// Merges that were put in place.
    merges: u64,
    /// Why the last merge that failed did.
    merge_failure: Option<String>,
    /// Why nothing is written any more.
    read_only: Option<String>,
    _scrub: Scrub,
}

impl Deref for Index {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.state
    }
}

impl Index {
    /// Opens the folder, or starts an empty index where there is none. What is in the files is verified when it is first read, and in the
    /// background.
    ///
    /// # Errors
    /// `DimensionsRange`, `Dimensions` unless the index was made with these, `Locked`, `Corrupt`, `Version`, `Io`.
    pub fn open(folder: &Path, options: Options) -> Result<Self> {
        // Before the folder is made.
        check_dimensions(options)?;
        Self::open_in(Disk::open(folder)?, options)
    }

    /// The same, in files of another kind.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_in(storage: impl Storage, options: Options) -> Result<Self> {
        let index = Self::load(storage, options, |_, error| Err(error))?;
        index.remove_unnamed();
        Ok(index)
    }

    /// - `unread`: is told of each segment that cannot be opened, and says whether to go on without it.
    fn load(
        storage: impl Storage,
        options: Options,
        mut unread: impl FnMut(Entry, Error) -> Result<()>,
    ) -> Result<Self> {
        check_dimensions(options)?;
        let storage: Arc<dyn Storage> = Arc::new(storage);
        let path = storage.path().join(manifest::FILE);
        let manifest = match storage.open(manifest::FILE) {
            Ok(bytes) => Manifest::decode((*bytes).as_ref(), &path)?,
            Err(error) if error.kind() == ErrorKind::NotFound => start(&*storage, &path, options)?,
            Err(error) => return Err(Error::io(&path)(error)),
        };
        let (expected, found) = (manifest.dimensions as usize, options.dimensions);
        if expected != found {
            return Err(Error::Dimensions { expected, found });
        }
        let mut state = Snapshot::empty(expected);
        state.sequence = manifest.sequence;
        for entry in manifest.segments {
            match open_live(&*storage, &entry, expected) {
                Ok(live) => state.segments.push(live),
                Err(error) => unread(entry, error)?,
            }
        }
        let cut_off = CutOff::find(&*storage, &state.segments);
        Ok(Self {
            storage,
            options,
            rows: HashMap::new(),
            next: cut_off.as_ref().map_or(0, |cut_off| cut_off.number + 1).max(manifest.next),
            has_new_tombstones: false,
            reader: Reader::new(state.clone()),
            merge: None,
            bridges: Bridges::default(),
            cut_off,
            outcome: None,
            merges: 0,
            merge_failure: None,
            read_only: None,
            _scrub: Scrub::start(&state.segments),
            state,
        })
    }

    /// Where other threads find what was published. One reader may be cloned for all.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Lets readers see everything that was added and removed so far, all of it at once. A seal publishes as well.
    pub fn publish(&mut self) {
        self.state.generation += 1;
        self.state.pending.make_sieves();
        self.reader.publish(self.state.clone());
    }

    /// Adds or replaces one vector. Searched at once; seen by readers once published, on disk after the next [`seal`](Self::seal).
    ///
    /// # Errors
    /// `Dimensions`, `NotUnit`; `Corrupt` where it cannot be told whether the id is in a segment.
    pub fn add(&mut self, id: u64, vector: &[f32]) -> Result<()> {
        self.state.check(vector)?;
        if let Some(&row) = self.rows.get(&id) {
            self.state.pending.set(row, vector);
            return Ok(());
        }
        self.delete_sealed(id)?;
        self.rows.insert(id, self.state.pending.count());
        self.state.pending.push(id, vector);
        Ok(())
    }

    /// Removes a vector; hidden at once. Returns whether it was there.
    ///
    /// # Errors
    /// `Corrupt` where that cannot be told.
    pub fn remove(&mut self, id: u64) -> Result<bool> {
        let Some(row) = self.rows.remove(&id) else { return self.delete_sealed(id) };
        if let Some(moved) = self.state.pending.swap_remove(row) {
            self.rows.insert(moved, row);
        }
        Ok(true)
    }

    fn delete_sealed(&mut self, id: u64) -> Result<bool> {
        for live in &mut self.state.segments {
            if live.delete(id)? {
                self.has_new_tombstones = true;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes everything added and removed so far durable, as the state at the caller's `sequence`, and publishes it.
    ///
    /// Deletions alone write only a small file; pending vectors become a segment, together with small ones of its size. Larger merges, and
    /// graphs, are then begun in the background; a later seal puts them in place, or [`settle`](Self::settle).
    ///
    /// # Errors
    /// `Io`; then the folder still opens, as it was before, and a seal may be tried again, unless what failed was to make the names of files
    /// durable: `ReadOnly` from then on, until the folder is opened anew. `Corrupt` where a segment that was to be written anew is.
    pub fn seal(&mut self, sequence: u64) -> Result<()> {
        if let Some(reason) = &self.read_only {
            return Err(Error::ReadOnly { path: self.storage.path().to_owned(), reason: reason.clone() });
        }
        if let Some(merge) = self.merge.take_if(|merge| merge.is_over()) {
            match merge.outcome() {
                Ok(outcome) => self.outcome = Some(outcome),
                // It is planned again below.
                Err(error) => self.merge_failure = Some(error.to_string()),
            }
        }
        if self.pending() > 0 || self.has_new_tombstones || sequence != self.sequence() || self.outcome.is_some() {
            self.write(sequence)?;
        }
        if self.merge.is_none() {
            self.begin_merge()?;
        }
        self.begin_bridges();
        Ok(())
    }

    /// Waits until every merge that is worth it is over and in place: the index is then as fast to search as it gets.
    ///
    /// # Errors
    /// Those of [`seal`](Self::seal), and of the merges.
    pub fn settle(&mut self) -> Result<()> {
        loop {
            self.seal(self.sequence())?;
            let Some(merge) = self.merge.take() else { break };
            self.outcome = Some(merge.outcome()?);
        }
        self.bridges.wait();
        Ok(())
    }

    /// Merges that were put in place since the index was opened.
    pub fn merges(&self) -> u64 {
        self.merges
    }

    /// Whether one is at work in the background.
    pub fn is_merging(&self) -> bool {
        self.merge.as_ref().is_some_and(|merge| !merge.is_over())
    }

    /// Why a merge in the background failed, if one did and none succeeded since. Answers are as good as before, if not as fast.
    pub fn merge_failure(&self) -> Option<&str> {
        self.merge_failure.as_deref()
    }

    fn write(&mut self, sequence: u64) -> Result<()> {
        if let Some(outcome) = &mut self.outcome {
            outcome.follow(&self.state.segments)?;
        }
        let replaced = |live: &Live| {
            let of = self.outcome.iter().flat_map(|outcome| &outcome.sources);
            of.into_iter().any(|source| source.number == live.number)
        };
        let is_busy = |live: &Live| self.merge.as_ref().is_some_and(|merge| merge.reads(live.number));
        let (busy, free): (Vec<&Live>, Vec<&Live>) =
            self.state.segments.iter().filter(|live| !replaced(live)).partition(|live| is_busy(live));
        let places = loop {
            let sizes: Vec<Size> = free.iter().map(|live| live.size()).collect();
            let places = plan::sealed(&sizes, self.pending(), self.bounds());
            // What turns out to be damaged is not planned again, and does not keep what is new from becoming durable.
            if places.iter().all(|at| free[*at].is_readable()) {
                break places;
            }
        };
        let (small, kept): (Vec<_>, Vec<_>) = free.into_iter().enumerate().partition(|(at, _)| places.contains(at));
        let fresh = self.write_pending(small.into_iter().map(|(_, live)| live), sequence)?;
        let number = fresh.as_ref().map(|live| live.number);
        let merged = self.outcome.as_ref().and_then(|outcome| outcome.merged.clone());
        let kept = kept.into_iter().map(|(_, live)| live);
        // What has nothing left is dropped.
        let kept = kept.filter(|live| live.alive() > 0).chain(busy).cloned();
        let mut segments: Vec<Live> = kept.chain(merged).chain(fresh).collect();
        segments.sort_by_key(|live| Reverse(live.alive()));
        if let Some((largest, others)) = segments.split_first_mut() {
            others.iter_mut().for_each(|live| live.reach_from(largest.number));
        }

        // Counted even if this seal fails later on: a number is never used twice.
        self.next = number.map_or(self.next, |number| number + 1);
        self.write_manifest(&segments, sequence)?;
        self.state.segments = segments;
        self.state.pending = pending::Pending::default();
        self.state.sequence = sequence;
        self.rows.clear();
        if self.outcome.take().is_some() {
            self.merges += 1;
            self.merge_failure = None;
        }
        self.has_new_tombstones = false;
        self.publish();
        self.remove_unnamed();
        Ok(())
    }

    /// Writes what is pending, and what is alive in some segments, to a new one. `None` where that is nothing.
    fn write_pending<'a>(&'a self, small: impl Iterator<Item = &'a Live>, sequence: u64) -> Result<Option<Live>> {
        let small: Vec<Live> = small.cloned().collect();
        let vectors: Vec<Cow<'_, [f32]>> = small.iter().map(|live| live.segment.vectors()).collect::<Result<_>>()?;
        let mut rows: Vec<Row<'_>> = self.state.pending.rows().collect();
        small.iter().zip(&vectors).try_for_each(|(live, vectors)| live.append_rows(vectors, &mut rows))?;
        if rows.is_empty() {
            return Ok(None);
        }
        rows.sort_unstable_by_key(|row| row.id);
        let after = small.iter().map(|live| live.segment.sequences()[0]).fold(self.sequence(), u64::min);
        let layout = Layout { dimensions: self.options.dimensions, graph: None, sequences: [after, sequence] };
        let never = Stop::default();
        let stamp = segment::write(&*self.storage, self.next, &rows, layout, Progress::NONE, &never)?;
        let segment = Segment::open(&*self.storage, self.next, stamp, self.options.dimensions)?;
        segment.warm_up()?;
        Ok(Some(Live::new(self.next, segment, RoaringBitmap::new())))
    }

    fn begin_merge(&mut self) -> Result<()> {
        let cut_off = self.cut_off.take();
        let begun = cut_off.and_then(|cut_off| Some((cut_off.number, cut_off.sources(&self.state.segments)?)));
        let (number, sources): (u64, Vec<Live>) = match begun {
            Some(begun) => begun,
            None => {
                let sizes: Vec<Size> = self.state.segments.iter().map(Live::size).collect();
                let places = plan::merged(&sizes, self.bounds());
                if places.is_empty() {
                    return Ok(());
                }
                self.next += 1;
                (self.next - 1, places.into_iter().map(|at| self.state.segments[at].clone()).collect())
            }
        };
        let largest =
            self.state.segments.first().filter(|live| !sources.iter().any(|source| source.number == live.number));
        self.merge = Some(Merge::start(Job {
            storage: self.storage.clone(),
            largest: largest.cloned(),
            sources,
            number,
            dimensions: self.options.dimensions,
            graph_vectors_min: self.options.graph_vectors_min,
            kept: self.options.kept,
            threads: self.options.merge_threads,
            share: self.options.merge_share,
            kept_every: self.options.merge_kept_every,
        })?);
        Ok(())
    }

    /// Builds bridges to what lacks one, but for what is about to get a graph: a merge of so much takes no longer.
    fn begin_bridges(&mut self) {
        let Some((largest, others)) = self.state.segments.split_first() else { return };
        let stays = |live: &Live| live.segment.has_graph() || live.segment.count() < self.options.graph_vectors_min;
        let missing = others.iter().filter(|live| live.lacks_bridge() && stays(live)).cloned().collect();
        self.bridges = Bridges::start(largest.clone(), missing, self.options.merge_share);
    }

    fn bounds(&self) -> Bounds {
        Bounds { graph: self.options.graph_vectors_min, merged: self.options.merged_vectors_max }
    }

    fn write_manifest(&mut self, segments: &[Live], sequence: u64) -> Result<()> {
        let segments = segments.iter().map(Live::entry).collect();
        let manifest = Manifest { dimensions: self.options.dimensions as u32, sequence, next: self.next, segments };
        let (prepared, ()) =
            durable::prepare(&*self.storage, manifest::FILE, |file| file.write_all(&manifest.encode()?))?;
        // From here on either of the two may be what a crash leaves, and a file that one of them names must stay.
        prepared.name().inspect_err(|error| self.read_only = Some(error.to_string()))
    }

    /// Removes files of segments that the manifest does not name and no merge writes, and temporary files. What cannot be removed now is met again on
    /// the next open.
    fn remove_unnamed(&self) {
        let named: Vec<String> = self.state.segments.iter().map(|live| segment::file(live.number)).collect();
        let cut_off = self.cut_off.as_ref().map(|cut_off| cut_off.number);
        let busy = self.merge.as_ref().map(Merge::number).or(cut_off).map(|number| format!("{number:06}."));
        let ours = [segment::EXTENSION, merge::EXTENSION, TEMPORARY];
        let is_ours = |name: &String| ours.iter().any(|extension| name.ends_with(extension));
        let is_busy = |name: &String| busy.as_ref().is_some_and(|busy| name.starts_with(busy));
        let names = self.storage.names().unwrap_or_default();
        for name in names.iter().filter(|name| is_ours(name) && !named.contains(name) && !is_busy(name)) {
            let _ = self.storage.remove(name);
        }
    }
}

fn check_dimensions(options: Options) -> Result<()> {
    if (1..=DIMENSIONS_MAX).contains(&options.dimensions) {
        return Ok(());
    }
    Err(Error::DimensionsRange { found: options.dimensions, max: DIMENSIONS_MAX })
}

fn open_live(storage: &dyn Storage, entry: &Entry, dimensions: usize) -> Result<Live> {
    let Entry { number, stamp, deleted } = entry;
    let segment = Segment::open(storage, *number, *stamp, dimensions)?;
    if deleted.max().is_some_and(|row| row as usize >= segment.count()) {
        let path = storage.path().join(manifest::FILE);
        return Err(Error::corrupt(&path, "deletes rows that do not exist"));
    }
    Ok(Live::new(*number, segment, deleted.clone()))
}

/// Writes the first manifest, so that a folder which lost its manifest can be told from a new one.
fn start(storage: &dyn Storage, path: &Path, options: Options) -> Result<Manifest> {
    let names = storage.names().map_err(Error::io(storage.path()))?;
    if names.iter().any(|name| name.ends_with(segment::EXTENSION)) {
        return Err(Error::corrupt(path, "is missing, though there are segments"));
    }
    let manifest = Manifest { dimensions: options.dimensions as u32, sequence: 0, next: 1, segments: Vec::new() };
    let (prepared, ()) = durable::prepare(storage, manifest::FILE, |file| file.write_all(&manifest.encode()?))?;
    prepared.name()?;
    Ok(manifest)
}
