//! The file `<number>.part`, version 1: how far a merge is that will be the segment of this number, so that one that was cut off goes on from there.
//!
//! | bytes | field    | meaning                                                                                                           |
//! |------:|----------|-------------------------------------------------------------------------------------------------------------------|
//! |     8 | magic    | `VULTPRT\n`                                                                                                       |
//! |     4 | version  | 1                                                                                                                 |
//! |     4 | bytes    | of the next field                                                                                                 |
//! |       | sources  | the segments that are merged, and what was deleted from them when that began: as a manifest has them, with its own checksum |
//! |     4 | rows_crc | CRC-32 of the rows' codes in their order, as the builder has them                                                 |
//! |     8 | inserted | rows that have their links                                                                                        |
//! |     … | links    | `u32`: the lists of all rows                                                                                      |
//! |     4 | checksum | CRC-32 of everything before                                                                                       |
//!
//! Integers are little-endian. Nothing depends on it: where it is damaged, of another version or of segments that are gone, a merge begins at the
//! beginning, and the file is removed.

use std::io::Write as _;
use std::sync::Arc;

use super::super::live::Live;
use super::super::manifest::{Entry, Manifest};
use crate::Result;
use crate::graph::Begun;
use crate::storage::Storage;
use crate::storage::durable;

/// Ends the names of these files.
pub(in super::super) const EXTENSION: &str = ".part";
const MAGIC: [u8; 8] = *b"VULTPRT\n";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 16;

/// A merge that was cut off.
pub(in super::super) struct CutOff {
    /// Of the segment that it was to write.
    pub(in super::super) number: u64,
    sources: Vec<Entry>,
}

impl CutOff {
    /// What a folder has of one, if its sources are all there, and no segment has its number: an older release may have given it away.
    pub(in super::super) fn find(storage: &dyn Storage, segments: &[Live]) -> Option<Self> {
        let names = storage.names().ok()?;
        let numbers = names.iter().filter_map(|name| name.strip_suffix(EXTENSION)?.parse().ok());
        let is_free = |number: &u64| *number < u64::MAX && segments.iter().all(|live| live.number != *number);
        let of = |number| {
            let bytes = storage.open(&name(number)).ok()?;
            let (head, _) = split((*bytes).as_ref())?;
            let manifest = Manifest::decode(head, &storage.path().join(name(number))).ok()?;
            let cut_off = Self { number, sources: manifest.segments };
            cut_off.sources(segments).is_some().then_some(cut_off)
        };
        numbers.filter(is_free).filter_map(of).max_by_key(|cut_off: &Self| cut_off.number)
    }

    /// Its sources as they were when it began, if they are all among the segments.
    pub(in super::super) fn sources(&self, segments: &[Live]) -> Option<Vec<Live>> {
        let source = |entry: &Entry| {
            let is_it = |live: &&Live| {
                let is_same = live.number == entry.number && live.segment.stamp() == entry.stamp;
                // Nothing comes back from being deleted.
                is_same && entry.deleted.is_subset(&live.deleted)
            };
            let live = segments.iter().find(is_it)?;
            Some(Live { deleted: Arc::new(entry.deleted.clone()), ..live.clone() })
        };
        self.sources.iter().map(source).collect()
    }
}

/// How far the merge is that writes the segment of this number; `None` where nothing is kept of it, or not as it was written.
pub(super) fn read(storage: &dyn Storage, number: u64) -> Option<Begun> {
    let bytes = storage.open(&name(number)).ok()?;
    let (content, checksum) = (*bytes).as_ref().split_last_chunk()?;
    if crc32fast::hash(content) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let (_, rest) = split(content)?;
    let (rows_crc, rest) = rest.split_first_chunk()?;
    let (inserted, rest) = rest.split_first_chunk()?;
    let (links, []) = rest.as_chunks::<4>() else { return None };
    Some(Begun {
        rows_crc: u32::from_le_bytes(*rows_crc),
        inserted: u64::from_le_bytes(*inserted) as usize,
        links: links.iter().map(|link| u32::from_le_bytes(*link)).collect(),
    })
}

/// Keeps how far it is, in the place of what was kept of it before.
///
/// # Errors
/// `Io`.
pub(super) fn write(storage: &dyn Storage, number: u64, sources: &Manifest, begun: &Begun) -> Result<()> {
    let name = name(number);
    let (prepared, ()) = durable::prepare(storage, &name, |file| {
        let sources = sources.encode()?;
        let head = [&MAGIC[..], &VERSION.to_le_bytes(), &(sources.len() as u32).to_le_bytes(), &sources].concat();
        let fields = [&begun.rows_crc.to_le_bytes()[..], &(begun.inserted as u64).to_le_bytes()].concat();
        let mut crc = crc32fast::Hasher::new();
        // The target is little-endian, or `storage/map.rs` would not compile.
        for bytes in [&head, &fields, bytemuck::cast_slice(&begun.links)] {
            crc.update(bytes);
            file.write_all(bytes)?;
        }
        file.write_all(&crc.finalize().to_le_bytes())
    })?;
    prepared.name()
}

/// The sources, and what follows them.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let is_known = head.starts_with(&MAGIC) && head[8..12] == VERSION.to_le_bytes();
    let length = u32::from_le_bytes([head[12], head[13], head[14], head[15]]);
    if is_known { rest.split_at_checked(length as usize) } else { None }
}

fn name(number: u64) -> String {
    format!("{number:06}{EXTENSION}")
}
