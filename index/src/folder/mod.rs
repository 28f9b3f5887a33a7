//! The index: a folder of segments, a manifest that says which are alive, and what is pending in memory.
//!
//! An id is alive in one place at most: replacing it deletes the row in the segment that had it. A seal writes new files
//! before the manifest that names them, and removes old ones after it, so at every moment the manifest on disk describes files that
//! are whole. Files that it does not name are left from a seal that did not finish, and are removed.

pub(crate) mod durable;
mod manifest;
mod pending;
mod plan;

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use manifest::{Entry, Manifest};
use pending::Pending;
use plan::Size;
use roaring::RoaringBitmap;

use crate::graph::Scratch;
use crate::nearest::Nearest;
use crate::segment::{self, Layout, Row, Segment};
use crate::{DIMENSIONS_MAX, Error, Neighbor, Options, Result, Search};

/// Locked while the index is open.
const LOCK_FILE: &str = "lock";
/// A vector is of unit length when its squared length is this close to 1: what rounding in `f32` leaves, and some.
const UNIT_TOLERANCE: f32 = 1e-3;

/// A folder of vectors. One writer (`&mut`), many readers (`&`).
pub struct Index {
    folder: PathBuf,
    options: Options,
    sequence: u64,
    /// The number of the next segment file.
    next: u64,
    segments: Vec<Live>,
    pending: Pending,
    /// Whether rows of segments were deleted since the last seal.
    has_new_tombstones: bool,
    /// One for each search that ran at the same time as others.
    scratches: Mutex<Vec<Scratch>>,
    /// Held until the index is dropped.
    _lock: File,
}

/// A segment and the rows deleted from it.
struct Live {
    number: u64,
    segment: Segment,
    deleted: RoaringBitmap,
}

impl Index {
    /// Opens the folder, or starts an empty index where there is none. Every byte of every file is verified.
    ///
    /// # Errors
    /// `DimensionsRange`, `Dimensions` unless the index was made with these, `Locked`, `Corrupt`, `Version`, `Io`.
    pub fn open(folder: &Path, options: Options) -> Result<Self> {
        if !(1..=DIMENSIONS_MAX).contains(&options.dimensions) {
            return Err(Error::DimensionsRange { found: options.dimensions, max: DIMENSIONS_MAX });
        }
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let mut index = Self {
            folder: folder.to_owned(),
            options,
            sequence: 0,
            next: 1,
            segments: Vec::new(),
            pending: Pending::new(options.dimensions),
            has_new_tombstones: false,
            scratches: Mutex::default(),
            _lock: lock(&folder.join(LOCK_FILE))?,
        };
        let path = folder.join(manifest::FILE);
        match fs::read(&path) {
            Ok(bytes) => index.load(Manifest::decode(&bytes, &path)?)?,
            Err(error) if error.kind() == ErrorKind::NotFound => index.start(&path)?,
            Err(error) => return Err(Error::io(&path)(error)),
        }
        index.remove_unnamed();
        Ok(index)
    }

    fn load(&mut self, manifest: Manifest) -> Result<()> {
        let (expected, found) = (manifest.dimensions as usize, self.options.dimensions);
        if expected != found {
            return Err(Error::Dimensions { expected, found });
        }
        for Entry { number, stamp, deleted } in manifest.segments {
            let path = segment::file(&self.folder, number);
            let segment = Segment::open(path, stamp, expected)?;
            segment.verify()?;
            if deleted.max().is_some_and(|row| row as usize >= segment.count()) {
                return Err(Error::corrupt(&self.folder.join(manifest::FILE), "deletes rows that do not exist"));
            }
            self.segments.push(Live { number, segment, deleted });
        }
        self.sequence = manifest.sequence;
        self.next = manifest.next;
        Ok(())
    }

    /// Writes the first manifest, so that a folder which lost its manifest can be told from a new one.
    fn start(&self, manifest: &Path) -> Result<()> {
        if self.files().any(|path| path.extension().is_some_and(|extension| extension == segment::EXTENSION)) {
            return Err(Error::corrupt(manifest, "is missing, though there are segments"));
        }
        self.write_manifest(Vec::new(), 0)
    }

    /// Adds or replaces one vector. Searched at once; on disk after the next [`seal`](Self::seal).
    ///
    /// # Errors
    /// `Dimensions`, `NotUnit`.
    pub fn add(&mut self, id: u64, vector: &[f32]) -> Result<()> {
        self.check(vector)?;
        self.delete_sealed(id);
        self.pending.add(id, vector);
        Ok(())
    }

    /// Removes a vector; hidden at once. Returns whether it was there.
    pub fn remove(&mut self, id: u64) -> bool {
        self.pending.remove(id) || self.delete_sealed(id)
    }

    fn delete_sealed(&mut self, id: u64) -> bool {
        let was_alive =
            self.segments.iter_mut().any(|live| live.segment.row_of(id).is_some_and(|row| live.deleted.insert(row)));
        self.has_new_tombstones |= was_alive;
        was_alive
    }

    /// Makes everything added and removed so far durable, as the state at the caller's `sequence`.
    ///
    /// Deletions alone write only a small file; pending vectors become a segment, merged with its small neighbours.
    ///
    /// # Errors
    /// `Io`; then the folder still opens, as it was before.
    pub fn seal(&mut self, sequence: u64) -> Result<()> {
        if self.pending.count() == 0 && !self.has_new_tombstones && sequence == self.sequence {
            return Ok(());
        }
        let sizes: Vec<Size> = self.segments.iter().map(Live::size).collect();
        let merged = plan::merged(&sizes, self.pending.count(), self.options.graph_vectors_min);
        let fresh = self.write_merged(&merged, sequence)?;
        let kept = (0..self.segments.len()).filter(|at| !merged.contains(at)).map(|at| &self.segments[at]);
        self.write_manifest(kept.chain(&fresh).map(Live::entry).collect(), sequence)?;

        let mut at = 0..;
        self.segments.retain(|_| at.next().is_some_and(|at| !merged.contains(&at)));
        self.segments.extend(fresh);
        self.pending.clear();
        self.has_new_tombstones = false;
        self.sequence = sequence;
        self.remove_unnamed();
        Ok(())
    }

    /// Writes what is alive in the segments at these places, and what is pending, to a new segment. `None` where that is nothing.
    fn write_merged(&mut self, merged: &[usize], sequence: u64) -> Result<Option<Live>> {
        let sealed = merged.iter().flat_map(|at| self.segments[*at].rows());
        let mut rows: Vec<Row<'_>> = sealed.chain(self.pending.rows()).collect();
        if rows.is_empty() {
            return Ok(None);
        }
        rows.sort_unstable_by_key(|row| row.id);
        let number = self.next;
        let path = segment::file(&self.folder, number);
        let after = merged.iter().map(|at| self.segments[*at].segment.sequences()[0]).fold(self.sequence, u64::min);
        let Options { dimensions, graph_vectors_min } = self.options;
        let stamp =
            segment::write(&path, &rows, Layout { dimensions, graph_vectors_min, sequences: [after, sequence] })?;
        // Counted even if this seal fails later on: a number is never used twice.
        self.next += 1;
        let segment = Segment::open(path, stamp, self.options.dimensions)?;
        Ok(Some(Live { number, segment, deleted: RoaringBitmap::new() }))
    }

    fn write_manifest(&self, segments: Vec<Entry>, sequence: u64) -> Result<()> {
        let manifest = Manifest { dimensions: self.options.dimensions as u32, sequence, next: self.next, segments };
        durable::write(&self.folder.join(manifest::FILE), |file| file.write_all(&manifest.encode()?))
    }

    /// Removes segment files and temporary files that the manifest does not name. What cannot be removed now is met again on
    /// the next open.
    fn remove_unnamed(&self) {
        let named: Vec<PathBuf> = self.segments.iter().map(|live| segment::file(&self.folder, live.number)).collect();
        let ours = [segment::EXTENSION, durable::TEMPORARY];
        let is_ours = |path: &PathBuf| path.extension().is_some_and(|found| ours.iter().any(|ours| found == *ours));
        for path in self.files().filter(|path| is_ours(path) && !named.contains(path)) {
            let _ = fs::remove_file(path);
        }
    }

    fn files(&self) -> impl Iterator<Item = PathBuf> {
        fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.path())
    }

    /// The caller's sequence number at the last seal; 0 in a new index.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Vectors that are only in memory.
    pub fn pending(&self) -> usize {
        self.pending.count()
    }

    /// Vectors that answers can contain.
    pub fn count(&self) -> usize {
        self.pending.count() + self.segments.iter().map(|live| live.size().alive).sum::<usize>()
    }

    /// The nearest vectors, nearest first, ties by id.
    ///
    /// # Errors
    /// `Dimensions`, `NotUnit`.
    pub fn search(&self, query: &[f32], search: &Search<'_>) -> Result<Vec<Neighbor>> {
        self.check(query)?;
        if search.k == 0 {
            return Ok(Vec::new());
        }
        let mut nearest = Nearest::new(search.k);
        let mut scratch = self.scratches().pop().unwrap_or_default();
        for live in &self.segments {
            live.segment.search(query, search, &live.deleted, &mut scratch, &mut nearest);
        }
        self.scratches().push(scratch);
        let is_allowed = |id| search.allowed.is_none_or(|allowed| allowed.contains(id));
        self.pending.search(query, is_allowed, &mut nearest);
        let sorted = nearest.into_sorted().into_iter();
        Ok(sorted.map(|found| Neighbor { id: found.key, distance: found.distance }).collect())
    }

    fn scratches(&self) -> impl std::ops::DerefMut<Target = Vec<Scratch>> {
        // A scratch is reset before it is used, so a panic elsewhere leaves nothing to fear in it.
        self.scratches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stored ids in ascending order, at most `limit`, from the first at or above `from`.
    pub fn scroll(&self, from: u64, limit: usize) -> Vec<u64> {
        let mut ids: Vec<u64> = self.pending.ids_from(from).take(limit).collect();
        for live in &self.segments {
            ids.extend(live.ids_from(from).take(limit));
        }
        ids.sort_unstable();
        ids.truncate(limit);
        ids
    }

    /// The vector stored under an id.
    pub fn vector(&self, id: u64) -> Option<&[f32]> {
        self.pending.vector(id).or_else(|| self.segments.iter().find_map(|live| live.vector(id)))
    }

    fn check(&self, vector: &[f32]) -> Result<()> {
        if vector.len() != self.options.dimensions {
            return Err(Error::Dimensions { expected: self.options.dimensions, found: vector.len() });
        }
        let squared_length: f32 = vector.iter().map(|x| x * x).sum();
        // False for NaN as well.
        let is_unit = (squared_length - 1.0).abs() <= UNIT_TOLERANCE;
        if is_unit { Ok(()) } else { Err(Error::NotUnit { squared_length }) }
    }
}

impl Live {
    fn size(&self) -> Size {
        let count = self.segment.count();
        Size { count, alive: count - self.deleted.len() as usize }
    }

    fn entry(&self) -> Entry {
        Entry { number: self.number, stamp: self.segment.stamp(), deleted: self.deleted.clone() }
    }

    /// What is alive, by ascending id.
    fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let alive = self.segment.ids_from(0).filter(|(_, row)| !self.deleted.contains(*row));
        alive.map(|(id, row)| Row { id, vector: self.segment.vector(row) })
    }

    /// Ids from `from` on, ascending.
    fn ids_from(&self, from: u64) -> impl Iterator<Item = u64> {
        self.segment.ids_from(from).filter(|(_, row)| !self.deleted.contains(*row)).map(|(id, _)| id)
    }

    fn vector(&self, id: u64) -> Option<&[f32]> {
        let row = self.segment.row_of(id)?;
        (!self.deleted.contains(row)).then(|| self.segment.vector(row))
    }
}

fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).map_err(Error::io(path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(Error::io(path)(source)),
    }
}
