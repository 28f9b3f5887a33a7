//! One immutable file of vectors: ids, vectors, and where that pays codes and a graph to find them by.
//!
//! A row is a vector's place in its segment. Which rows were deleted is not known here: the file never changes.

mod bridge;
mod checked;
mod header;
mod kept;
mod rerank;
mod search;
mod widths;
mod write;

use std::borrow::Cow;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::OnceLock;

use checked::{Checked, Damaged};
use header::{Header, LEN, Sections};
use kept::Vectors;

use crate::graph::Graph;
use crate::quantiser::Quantiser;
use crate::sieve::Sieve;
use crate::storage::Storage;
use crate::{Error, Kept, Result};

pub(crate) use bridge::{Bridge, Ends};
pub(crate) use write::{Layout, write};

/// A sieve takes time to make, and 128 bytes or more for each row. A larger segment is one that is about to get a graph.
const SIEVE_ROWS_MAX: usize = 1 << 15;

/// A segment file, to be read in place.
pub(crate) struct Segment {
    /// For messages.
    path: PathBuf,
    header: Header,
    sections: Sections,
    stamp: Stamp,
    bytes: Checked,
    /// Whether the ids are in order, once somebody asked.
    ids_are_sound: OnceLock<bool>,
    /// Of all rows, where there is no graph and somebody asked.
    sieve: OnceLock<Sieve>,
}

/// What a manifest says about a segment file: enough to tell any other file from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stamp {
    pub(crate) bytes: u64,
    /// The header's checksum, which covers the checksums of all sections.
    pub(crate) crc: u32,
}

/// A vector on its way into a segment.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) id: u64,
    pub(crate) vector: &'a [f32],
}

/// The ids of a segment, all in order.
#[derive(Clone, Copy)]
pub(crate) struct Ids<'a> {
    /// The id of each row.
    pub(crate) ids: &'a [u64],
    /// Rows by ascending id.
    pub(crate) by_id: &'a [u32],
}

impl Segment {
    /// Opens the file. Its header, its length and its checksums' checksum are compared now, a block when it is first read.
    pub(crate) fn open(storage: &dyn Storage, number: u64, stamp: Stamp, dimensions: usize) -> Result<Self> {
        let name = file(number);
        let path = storage.path().join(&name);
        let corrupt = |what: &str| Error::corrupt(&path, what);
        let bytes = storage.open(&name).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => corrupt("is missing, though the manifest names it"),
            _ => Error::io(&path)(error),
        })?;
        let all = (*bytes).as_ref();
        if all.as_ptr().align_offset(header::ALIGN as usize) != 0 {
            return Err(Error::io(&path)(std::io::Error::other("the storage gives bytes that are not aligned")));
        }
        let head: &[u8; LEN] = all.first_chunk().ok_or_else(|| corrupt("is shorter than a header"))?;
        let header = Header::decode(head, &path)?;
        if stamp != (Stamp { bytes: all.len() as u64, crc: header::crc(head) }) {
            return Err(corrupt("is not the file that the manifest names"));
        }
        if header.bytes() != all.len() as u64 || header.dimensions as usize != dimensions {
            return Err(corrupt("holds something else than its header and the manifest say"));
        }
        let sections = header.sections();
        if crc32fast::hash(&all[sections.checks.clone()]) != header.checks_crc {
            return Err(corrupt("the checksum of the checksums is wrong"));
        }
        let bytes = Checked::new(bytes, sections.checks.clone());
        Ok(Self { path, header, sections, stamp, bytes, ids_are_sound: OnceLock::new(), sieve: OnceLock::new() })
    }

    /// Compares every block with its checksum that nobody read before; `between` is asked after each whether to go on.
    pub(crate) fn check(&self, between: impl FnMut() -> bool) {
        self.bytes.check_all(between);
    }

    /// Reads all of it once, so that no search is the first to: for a file that was just written.
    ///
    /// # Errors
    /// `Corrupt` where what was written is not what is read.
    pub(crate) fn warm_up(&self) -> Result<()> {
        self.check(|| true);
        self.ids()?;
        self.sieve().map(drop)
    }

    /// Whether all of it was compared with its checksums, and is as it was written.
    pub(crate) fn is_all_sound(&self) -> bool {
        self.bytes.is_all_sound()
    }

    /// What is known to be damaged, in words; empty where nothing is.
    pub(crate) fn damage(&self) -> Vec<Error> {
        let mut found: Vec<Error> = self.bytes.damaged().map(|range| self.corrupt(Damaged(range))).collect();
        if self.ids_are_sound.get() == Some(&false) {
            found.push(Error::corrupt(&self.path, "ids do not ascend"));
        }
        found
    }

    fn corrupt(&self, Damaged(Range { start, end }): Damaged) -> Error {
        Error::corrupt(&self.path, format!("the checksum of bytes {start} to {end} is wrong"))
    }

    fn get(&self, range: &Range<usize>) -> Result<&[u8]> {
        self.bytes.get(range.clone()).map_err(|damaged| self.corrupt(damaged))
    }

    /// What tells this file from any other.
    pub(crate) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The caller's sequence numbers behind which and up to which its vectors were written.
    pub(crate) fn sequences(&self) -> [u64; 2] {
        self.header.sequences
    }

    pub(crate) fn has_graph(&self) -> bool {
        self.header.has_graph()
    }

    /// Whether there is a graph that is not walked, since an older release wrote it.
    pub(crate) fn has_old_graph(&self) -> bool {
        self.header.has_old_graph()
    }

    /// Whether there is a graph to walk.
    pub(crate) fn is_walked(&self) -> bool {
        self.has_graph() && !self.has_old_graph()
    }

    /// Vectors in the file, those deleted since included.
    pub(crate) fn count(&self) -> usize {
        self.header.count as usize
    }

    pub(crate) fn ids(&self) -> Result<Ids<'_>> {
        let by_id: &[u32] = bytemuck::cast_slice(self.get(&self.sections.by_id)?);
        let ids: &[u64] = bytemuck::cast_slice(self.get(&self.sections.ids)?);
        let are_sound = || {
            let are_rows = by_id.iter().all(|row| (*row as usize) < ids.len());
            are_rows && by_id.is_sorted_by(|a, b| ids[*a as usize] < ids[*b as usize])
        };
        if !self.ids_are_sound.get_or_init(are_sound) {
            return Err(Error::corrupt(&self.path, "ids do not ascend"));
        }
        Ok(Ids { ids, by_id })
    }

    /// The id of a row. Panics where there is no such row.
    pub(crate) fn id(&self, row: u32) -> Result<u64> {
        assert!((row as usize) < self.count(), "row {row} of {}", self.count());
        let at = self.sections.ids.start + 8 * row as usize;
        Ok(bytemuck::cast_slice(self.get(&(at..at + 8))?)[0])
    }

    /// One vector for each row, one behind the other.
    pub(crate) fn vectors(&self) -> Result<Cow<'_, [f32]>> {
        Ok(self.kept()?.rows(0..self.count(), self.header.dimensions as usize))
    }

    /// Compares what the vectors are read from with its checksums.
    pub(crate) fn check_vectors(&self) -> Result<()> {
        self.kept().map(drop)
    }

    /// What is kept of all vectors.
    fn kept(&self) -> Result<Vectors<'_>> {
        self.get(&self.sections.vectors)?;
        if self.header.kept == Kept::Codes {
            self.get(&self.sections.codes)?;
        }
        self.unchecked_kept()
    }

    /// The same, of which nobody may rely on a row before [`check_row`](Self::check_row) said so.
    fn unchecked_kept(&self) -> Result<Vectors<'_>> {
        let [bytes, codes] = [&self.sections.vectors, &self.sections.codes].map(|at| self.bytes.unchecked(at.clone()));
        let quantiser = if self.header.kept == Kept::Codes { self.quantiser()? } else { Quantiser::view(&[]) };
        Ok(Vectors::view(self.header.kept, bytes, quantiser, codes))
    }

    /// Compares what a row's vector is read from with its checksums. Panics where there is no such row.
    fn check_row(&self, row: u32) -> Result<()> {
        assert!((row as usize) < self.count(), "row {row} of {}", self.count());
        if self.bytes.is_all_sound() {
            return Ok(());
        }
        let check = |section: &Range<usize>| {
            let each = section.len() / self.count();
            let at = section.start + each * row as usize;
            self.bytes.check(at..at + each).map_err(|damaged| self.corrupt(damaged))
        };
        check(&self.sections.vectors)?;
        if self.header.kept == Kept::Codes { check(&self.sections.codes) } else { Ok(()) }
    }

    /// What rules out most rows of a small segment without a graph; made the first time that it is asked for.
    pub(crate) fn sieve(&self) -> Result<Option<&Sieve>> {
        if self.has_graph() || self.count() > SIEVE_ROWS_MAX {
            return Ok(None);
        }
        let vectors = self.vectors()?;
        Ok(Some(self.sieve.get_or_init(|| Sieve::new(&vectors, self.header.dimensions as usize))))
    }

    /// Panics where there is no such row.
    pub(crate) fn vector(&self, row: u32) -> Result<Cow<'_, [f32]>> {
        self.check_row(row)?;
        let row = row as usize;
        Ok(self.unchecked_kept()?.rows(row..row + 1, self.header.dimensions as usize))
    }

    fn quantiser(&self) -> Result<Quantiser<'_>> {
        let quantiser = Quantiser::view(bytemuck::cast_slice(self.get(&self.sections.quantiser)?));
        if !quantiser.is_sound() {
            return Err(Error::corrupt(&self.path, "the quantiser has no levels"));
        }
        Ok(quantiser)
    }

    /// The graph, without its lists having been compared with their checksums.
    fn graph(&self) -> Result<Graph<'_>> {
        let section = &self.sections.graph;
        let head = section.start..section.end.min(section.start + Graph::HEAD_BYTES);
        self.get(&head)?;
        let bytes = self.bytes.unchecked(section.clone());
        let graph = Graph::view(bytes, self.count(), self.header.dimensions as usize);
        let graph = graph.map_err(|what| Error::corrupt(&self.path, what))?;
        for range in graph.entries_bytes() {
            self.get(&(section.start + range.start..section.start + range.end))?;
        }
        Ok(graph)
    }
}

impl<'a> Ids<'a> {
    /// Ids that are at least `from`, ascending, and their rows.
    pub(crate) fn from(self, from: u64) -> impl Iterator<Item = (u64, u32)> + use<'a> {
        let first = self.by_id.partition_point(|row| self.ids[*row as usize] < from);
        self.by_id[first..].iter().map(move |row| (self.ids[*row as usize], *row))
    }

    /// The row of an id, deleted or not.
    pub(crate) fn row_of(self, id: u64) -> Option<u32> {
        let at = self.by_id.binary_search_by_key(&id, |row| self.ids[*row as usize]).ok()?;
        Some(self.by_id[at])
    }
}

/// The file name of a segment.
pub(crate) fn file(number: u64) -> String {
    format!("{number:06}{EXTENSION}")
}

/// Ends the names of segment files.
pub(crate) const EXTENSION: &str = ".seg";
