//! Segment file, version 5: the first 64 bytes of every `*.seg` file, and where its sections are.
//!
//! | offset | bytes | field      | meaning                                                                      |
//! |-------:|------:|------------|------------------------------------------------------------------------------|
//! |      0 |     8 | magic      | `VULTSEG\n`                                                                  |
//! |      8 |     4 | version    | 5; 4 and 3 are read but for their graphs, and every other number is refused  |
//! |     12 |     4 | dimensions | floats per vector                                                            |
//! |     16 |     4 | count      | vectors in this segment, fewer than 2³¹                                      |
//! |     20 |     4 | kept       | how `vectors` are stored: 0 `f32`, 1 bf16, 2 fine codes                      |
//! |     24 |     8 | after      | the vectors are from writes behind this sequence number of the caller        |
//! |     32 |     8 | until      | up to this one                                                               |
//! |     40 |     8 | checks_at  | byte offset of the checksums: where the last section ends                    |
//! |     48 |     8 | bytes      | of the file: checks_at, and four for each block of 64 KiB from byte 64 to it |
//! |     56 |     4 | checks_crc | CRC-32 of the checksums                                                      |
//! |     60 |     4 | crc        | CRC-32 of bytes 0..60; stands here in every version                          |
//!
//! The sections follow, each from a multiple of 64 on, with zeros in between:
//!
//! | section   | bytes                        | what                                                                     |
//! |-----------|------------------------------|--------------------------------------------------------------------------|
//! | ids       | 8 × count                    | `u64`, one for each row                                                  |
//! | by_id     | 4 × count                    | `u32`: the rows by ascending id                                          |
//! | vectors   | 4 × dimensions × count       | `f32`; or                                                                |
//! |           | 2 × dimensions × count       | their upper halves; or                                                   |
//! |           | 48 × ⌈dimensions/128⌉ × count | three bits more than their codes have; `fine.rs`                         |
//! | quantiser | 8 × dimensions               | `f32`: the lowest level of each dimension, then the steps; `quantiser.rs` |
//! | codes     | 64 × ⌈dimensions/128⌉ × count | one code for each row; `quantiser.rs`                                    |
//! | graph     | up to checks_at              | `graph/mod.rs`                                                           |
//! | checksums | 4 a block                    | `u32`: CRC-32 of each block                                              |
//!
//! The last three before the checksums are not there in a segment without a graph, and its vectors are `f32`. Rows stand in an order that keeps neighbours together where
//! there is a graph, and by id where not. Integers and floats are little-endian, each CRC is the IEEE one. The CRCs cover every byte, so `crc`
//! alone says which file this is: the manifest repeats it. A change to this table is a new version, a new golden file in `tests/format/` and a
//! line in CHANGELOG.md; old golden files are never regenerated.

use std::ops::Range;
use std::path::Path;

use super::kept::row_bytes;
use crate::quantiser::code_bytes;
use crate::{Error, Kept, Result};

pub(super) const LEN: usize = 64;
const MAGIC: [u8; 8] = *b"VULTSEG\n";
const VERSION: u32 = 5;
/// The oldest whose graphs are walked; where they are older, all is compared until the segment is written anew.
const GRAPH_VERSION_MIN: u32 = 5;
/// The oldest where vectors may be kept in other ways than whole.
const KEPT_VERSION_MIN: u32 = 4;
/// The oldest that is read.
const VERSION_MIN: u32 = 3;
/// By their numbers in the file.
const KEPT: [Kept; 3] = [Kept::F32, Kept::Bf16, Kept::Codes];
/// Sections start at multiples of this: a cache line, and more than any of our types asks for.
pub(super) const ALIGN: u64 = 64;
/// Bytes that have one checksum.
pub(super) const BLOCK: usize = 1 << 16;
/// Rows have 31 bits where a search sorts them.
pub(super) const COUNT_MAX: usize = 1 << 31;

/// What a segment holds, and where.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) dimensions: u32,
    pub(super) count: u32,
    pub(super) kept: Kept,
    /// Of the caller's sequence numbers.
    pub(super) sequences: [u64; 2],
    pub(super) checks_at: u64,
    pub(super) checks_crc: u32,
}

/// Where the sections are, as bytes of the file; empty for those that are not there.
#[derive(Clone, Debug)]
pub(super) struct Sections {
    pub(super) ids: Range<usize>,
    pub(super) by_id: Range<usize>,
    pub(super) vectors: Range<usize>,
    pub(super) quantiser: Range<usize>,
    pub(super) codes: Range<usize>,
    pub(super) graph: Range<usize>,
    pub(super) checks: Range<usize>,
}

impl Header {
    /// The ends of the sections that every segment has, and of those that only one with a graph has.
    fn ends(dimensions: u32, count: u32, kept: Kept) -> [[u64; 2]; 5] {
        let vector_bytes = row_bytes(kept, dimensions as usize) as u64;
        let (dimensions, count) = (u64::from(dimensions), u64::from(count));
        let sizes = [
            8 * count,
            4 * count,
            vector_bytes * count,
            8 * dimensions,
            code_bytes(dimensions as usize) as u64 * count,
        ];
        let mut at = LEN as u64;
        sizes.map(|size| {
            let section = [at, at + size];
            at = (at + size).next_multiple_of(ALIGN);
            section
        })
    }

    /// A header whose checksums are still to come.
    ///
    /// - `graph`: bytes of the graph, if there is one, and what is kept of the vectors.
    pub(super) fn new(dimensions: u32, count: u32, sequences: [u64; 2], graph: Option<(usize, Kept)>) -> Self {
        let kept = graph.map_or(Kept::F32, |(_, kept)| kept);
        let [_, _, vectors, _, codes] = Self::ends(dimensions, count, kept);
        let checks_at = match graph {
            Some((bytes, _)) => codes[1].next_multiple_of(ALIGN) + bytes as u64,
            None => vectors[1],
        };
        Self {
            version: VERSION,
            dimensions,
            count,
            kept,
            sequences,
            checks_at: checks_at.next_multiple_of(ALIGN),
            checks_crc: 0,
        }
    }

    pub(super) fn has_graph(&self) -> bool {
        self.checks_at > Self::ends(self.dimensions, self.count, self.kept)[2][1].next_multiple_of(ALIGN)
    }

    /// Whether there is a graph that an older release wrote.
    pub(super) fn has_old_graph(&self) -> bool {
        self.has_graph() && self.version < GRAPH_VERSION_MIN
    }

    /// Bytes of the file.
    pub(super) fn bytes(&self) -> u64 {
        self.checks_at + 4 * (self.checks_at - LEN as u64).div_ceil(BLOCK as u64)
    }

    /// For a header that was decoded and a file that is as long as it says.
    pub(super) fn sections(&self) -> Sections {
        let ends = Self::ends(self.dimensions, self.count, self.kept);
        let [ids, by_id, vectors, quantiser, codes] = ends.map(|[from, to]| from as usize..to as usize);
        let checks = self.checks_at as usize..self.bytes() as usize;
        let none = self.checks_at as usize..self.checks_at as usize;
        if !self.has_graph() {
            return Sections { ids, by_id, vectors, quantiser: none.clone(), codes: none.clone(), graph: none, checks };
        }
        let graph = codes.end.next_multiple_of(ALIGN as usize)..self.checks_at as usize;
        Sections { ids, by_id, vectors, quantiser, codes, graph, checks }
    }

    pub(super) fn encode(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &MAGIC);
        put(8, &self.version.to_le_bytes());
        put(12, &self.dimensions.to_le_bytes());
        put(16, &self.count.to_le_bytes());
        put(20, &(self.kept as u32).to_le_bytes());
        put(24, &self.sequences[0].to_le_bytes());
        put(32, &self.sequences[1].to_le_bytes());
        put(40, &self.checks_at.to_le_bytes());
        put(48, &self.bytes().to_le_bytes());
        put(56, &self.checks_crc.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; LEN], path: &Path) -> Result<Self> {
        let corrupt = |what: &str| Error::corrupt(path, what);
        if bytes[..8] != MAGIC {
            return Err(corrupt("does not start like a segment"));
        }
        if crc(bytes) != crc32fast::hash(&bytes[..60]) {
            return Err(corrupt("the header's checksum is wrong"));
        }
        let version = u32_at(bytes, 8);
        if !(VERSION_MIN..=VERSION).contains(&version) {
            return Err(Error::Version { path: path.to_owned(), found: version, known: VERSION });
        }
        let count = Some(u32_at(bytes, 16)).filter(|count| (*count as usize) < COUNT_MAX);
        let kept =
            KEPT.get(u32_at(bytes, 20) as usize).filter(|kept| **kept == Kept::F32 || version >= KEPT_VERSION_MIN);
        let header = Self {
            version,
            dimensions: u32_at(bytes, 12),
            count: count.ok_or_else(|| corrupt("holds more vectors than fit"))?,
            kept: *kept.ok_or_else(|| corrupt("keeps its vectors in no known way"))?,
            sequences: [u64_at(bytes, 24), u64_at(bytes, 32)],
            checks_at: u64_at(bytes, 40),
            checks_crc: u32_at(bytes, 56),
        };
        if header.dimensions as usize > crate::DIMENSIONS_MAX {
            return Err(corrupt("vectors have more dimensions than fit"));
        }
        let [_, _, vectors, _, codes] = Self::ends(header.dimensions, header.count, header.kept);
        let is_flat = header.checks_at == vectors[1].next_multiple_of(ALIGN) && header.kept == Kept::F32;
        let is_whole = is_flat || header.checks_at > codes[1];
        // Far from overflow, and from what any file system holds.
        if !is_whole || !header.checks_at.is_multiple_of(ALIGN) || header.checks_at > 1 << 60 {
            return Err(corrupt("sections are not where the count says"));
        }
        if u64_at(bytes, 48) != header.bytes() {
            return Err(corrupt("the file is not as long as its sections"));
        }
        Ok(header)
    }
}

/// The header's own checksum, as it stands in the file.
pub(super) fn crc(bytes: &[u8; LEN]) -> u32 {
    u32_at(bytes, 60)
}

fn u32_at(bytes: &[u8; LEN], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn u64_at(bytes: &[u8; LEN], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn good() -> Header {
        Header { checks_crc: 7, ..Header::new(128, 3, [5, 9], Some((640, Kept::F32))) }
    }

    #[test]
    fn a_header_reads_back_as_written_and_sections_follow_each_other() {
        let flat = Header::new(128, 3, [0, 9], None);
        let shorter = [Kept::Bf16, Kept::Codes].map(|kept| Header::new(128, 3, [5, 9], Some((640, kept))));
        for header in [good(), flat].into_iter().chain(shorter) {
            assert_eq!(Header::decode(&header.encode(), Path::new("t.seg")).unwrap(), header);
        }
        let Sections { ids, by_id, vectors, quantiser, codes, graph, checks } = good().sections();
        assert_eq!([ids, by_id, vectors, quantiser], [64..88, 128..140, 192..1728, 1728..2752]);
        assert_eq!([codes, graph, checks], [2752..2944, 2944..3584, 3584..3588]);
        assert!(flat.sections().graph.is_empty() && !flat.has_graph());
        assert_eq!(flat.sections().checks, 1728..1732);
        assert_eq!(shorter.map(|header| header.sections().vectors), [192..960, 192..336]);
    }

    #[test]
    fn any_flipped_bit_is_refused() {
        for bit in 0..LEN * 8 {
            let mut bad = good().encode();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&bad, Path::new("t.seg")).is_err(), "bit {bit} went unnoticed");
        }
    }

    /// A header with other bytes, and the checksum that belongs to them.
    fn resealed(at: usize, bytes: &[u8]) -> [u8; LEN] {
        let mut changed = good().encode();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        let crc = crc32fast::hash(&changed[..60]);
        changed[60..].copy_from_slice(&crc.to_le_bytes());
        changed
    }

    #[test]
    fn another_version_is_named_and_not_called_damage() {
        for version in [1, 2, 6] {
            let decoded = Header::decode(&resealed(8, &[version]), Path::new("t.seg"));
            assert!(matches!(decoded, Err(Error::Version { found, .. }) if found == u32::from(version)));
        }
    }

    #[test]
    fn a_header_that_promises_other_sections_than_the_file_holds_is_refused() {
        for at in [0u64, 1727, 1792, 2944, 3585, u64::MAX - 63] {
            assert!(Header::decode(&resealed(40, &at.to_le_bytes()), Path::new("t.seg")).is_err(), "{at}");
        }
        for count in [1000u32, 1 << 31, u32::MAX] {
            assert!(Header::decode(&resealed(16, &count.to_le_bytes()), Path::new("t.seg")).is_err(), "{count}");
        }
        for kept in [3u32, u32::MAX] {
            assert!(Header::decode(&resealed(20, &kept.to_le_bytes()), Path::new("t.seg")).is_err(), "{kept}");
        }
    }
}
