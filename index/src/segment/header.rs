//! Segment header, version 1: the first 64 bytes of every `*.seg` file.
//!
//! | offset | bytes | field      | meaning                                                                  |
//! |-------:|------:|------------|--------------------------------------------------------------------------|
//! |      0 |     8 | magic      | `VULTSEG\n`                                                              |
//! |      8 |     4 | version    | 1; a reader refuses every number it does not know                        |
//! |     12 |     4 | dimensions | floats per vector                                                        |
//! |     16 |     8 | count      | vectors in this segment, fewer than 2³²                                  |
//! |     24 |     8 | vectors_at | byte offset of the vectors: the first multiple of 64 behind the ids      |
//! |     32 |     8 | graph_at   | byte offset of the graph: the first multiple of 64 behind the vectors    |
//! |     40 |     8 | bytes      | of the file; equal to graph_at where there is no graph                   |
//! |     48 |     4 | ids_crc    | CRC-32 of bytes 64..vectors_at: the ids, `u64` ascending, and zeros      |
//! |     52 |     4 | vectors_crc| CRC-32 of bytes vectors_at..graph_at: the vectors, `f32`, and zeros      |
//! |     56 |     4 | graph_crc  | CRC-32 of bytes graph_at..bytes; its table is in `graph/mod.rs`          |
//! |     60 |     4 | crc        | CRC-32 of bytes 0..60; stands here in every version                      |
//!
//! Integers and floats are little-endian, each CRC is the IEEE one. The four CRCs cover every byte, padding too, so `crc` alone
//! says which file this is: the manifest repeats it. A change to this table is a new version, a new golden file in
//! `tests/format/` and a line in CHANGELOG.md; old golden files are never regenerated.

use std::path::Path;

use crate::{Error, Result};

pub(super) const LEN: usize = 64;
const MAGIC: [u8; 8] = *b"VULTSEG\n";
const VERSION: u32 = 1;
/// Sections start at multiples of this: a cache line, and more than any of our types asks for.
const ALIGN: u64 = 64;

/// What a segment holds, and where.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Header {
    pub(super) dimensions: u32,
    pub(super) count: u32,
    pub(super) bytes: u64,
    pub(super) ids_crc: u32,
    pub(super) vectors_crc: u32,
    pub(super) graph_crc: u32,
}

impl Header {
    pub(super) fn vectors_at(&self) -> u64 {
        (LEN as u64 + u64::from(self.count) * 8).next_multiple_of(ALIGN)
    }

    pub(super) fn graph_at(&self) -> u64 {
        (self.vectors_at() + u64::from(self.count) * u64::from(self.dimensions) * 4).next_multiple_of(ALIGN)
    }

    pub(super) fn encode(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(12, &self.dimensions.to_le_bytes());
        put(16, &u64::from(self.count).to_le_bytes());
        put(24, &self.vectors_at().to_le_bytes());
        put(32, &self.graph_at().to_le_bytes());
        put(40, &self.bytes.to_le_bytes());
        put(48, &self.ids_crc.to_le_bytes());
        put(52, &self.vectors_crc.to_le_bytes());
        put(56, &self.graph_crc.to_le_bytes());
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
        if version != VERSION {
            return Err(Error::Version { path: path.to_owned(), found: version, known: VERSION });
        }
        let header = Self {
            dimensions: u32_at(bytes, 12),
            count: u32::try_from(u64_at(bytes, 16)).map_err(|_| corrupt("holds more vectors than fit"))?,
            bytes: u64_at(bytes, 40),
            ids_crc: u32_at(bytes, 48),
            vectors_crc: u32_at(bytes, 52),
            graph_crc: u32_at(bytes, 56),
        };
        if header.dimensions as usize > crate::DIMENSIONS_MAX {
            return Err(corrupt("vectors have more dimensions than fit"));
        }
        if u64_at(bytes, 24) != header.vectors_at() || u64_at(bytes, 32) != header.graph_at() {
            return Err(corrupt("sections are not where the count says"));
        }
        if header.bytes < header.graph_at() {
            return Err(corrupt("the file ends before its graph begins"));
        }
        Ok(header)
    }
}

/// The header's own checksum, as it stands in the file.
pub(super) fn crc(bytes: &[u8; LEN]) -> u32 {
    u32_at(bytes, 60)
}

fn u32_at(bytes: &[u8; LEN], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8; LEN], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    const GOOD: Header =
        Header { dimensions: 128, count: 3, bytes: 1664, ids_crc: 1, vectors_crc: 2, graph_crc: u32::MAX };

    #[test]
    fn a_header_reads_back_as_written() {
        assert_eq!(Header::decode(&GOOD.encode(), Path::new("t.seg")).unwrap(), GOOD);
    }

    #[test]
    fn any_flipped_bit_is_refused() {
        for bit in 0..LEN * 8 {
            let mut bad = GOOD.encode();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&bad, Path::new("t.seg")).is_err(), "bit {bit} went unnoticed");
        }
    }

    #[test]
    fn a_newer_version_is_named_and_not_called_damage() {
        let mut newer = GOOD.encode();
        newer[8] = 2;
        let crc = crc32fast::hash(&newer[..60]);
        newer[60..].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(Header::decode(&newer, Path::new("t.seg")), Err(Error::Version { found: 2, .. })));
    }

    #[test]
    fn a_header_that_promises_more_than_the_file_holds_is_refused() {
        let short = Header { bytes: GOOD.graph_at() - 1, ..GOOD };
        assert!(Header::decode(&short.encode(), Path::new("t.seg")).is_err());
    }
}
