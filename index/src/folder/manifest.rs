//! The file `manifest`, version 1: which segments are alive, and what was deleted from each.
//!
//! | bytes      | field       | meaning                                                                          |
//! |-----------:|-------------|----------------------------------------------------------------------------------|
//! |          8 | magic       | `VULTMAN\n`                                                                      |
//! |          4 | version     | 1; a reader refuses every number it does not know                                |
//! |          4 | dimensions  | floats per vector                                                                |
//! |          8 | sequence    | the caller's sequence number                                                     |
//! |          8 | next        | the number of the next segment file; never used before                           |
//! |          4 | segments    | how many follow                                                                  |
//! |          8 | number      | the first segment is the file `<number, six digits>.seg`                         |
//! |          8 | bytes       | its size                                                                         |
//! |          4 | crc         | the checksum in its header                                                       |
//! |          4 | deleted     | bytes of the next field                                                          |
//! |    deleted | tombstones  | its deleted rows, a Roaring bitmap in the portable format                        |
//! |          … |             | the next segment, from `number` on                                               |
//! |          4 | checksum    | CRC-32 (IEEE) of everything before; the last four bytes in every version         |
//!
//! Integers are little-endian. A change to this table is a new version, a new golden file in `tests/format/` and a line in
//! CHANGELOG.md; old golden files are never regenerated.

use std::io::{self, Read, Write};
use std::path::Path;

use roaring::RoaringBitmap;

use crate::segment::Stamp;
use crate::{Error, Result};

pub(super) const FILE: &str = "manifest";
const MAGIC: [u8; 8] = *b"VULTMAN\n";
const VERSION: u32 = 1;

/// The state of a folder.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Manifest {
    pub(super) dimensions: u32,
    pub(super) sequence: u64,
    pub(super) next: u64,
    pub(super) segments: Vec<Entry>,
}

/// A segment that is alive.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) stamp: Stamp,
    /// Rows deleted since the segment was written.
    pub(super) deleted: RoaringBitmap,
}

impl Manifest {
    pub(super) fn encode(&self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        out.write_all(&MAGIC)?;
        out.write_all(&VERSION.to_le_bytes())?;
        out.write_all(&self.dimensions.to_le_bytes())?;
        out.write_all(&self.sequence.to_le_bytes())?;
        out.write_all(&self.next.to_le_bytes())?;
        out.write_all(&(self.segments.len() as u32).to_le_bytes())?;
        for entry in &self.segments {
            out.write_all(&entry.number.to_le_bytes())?;
            out.write_all(&entry.stamp.bytes.to_le_bytes())?;
            out.write_all(&entry.stamp.crc.to_le_bytes())?;
            out.write_all(&(entry.deleted.serialized_size() as u32).to_le_bytes())?;
            entry.deleted.serialize_into(&mut out)?;
        }
        let checksum = crc32fast::hash(&out);
        out.write_all(&checksum.to_le_bytes())?;
        Ok(out)
    }

    pub(super) fn decode(bytes: &[u8], path: &Path) -> Result<Self> {
        let corrupt = |what: &str| Error::corrupt(path, what);
        let (content, checksum) = bytes.split_last_chunk().ok_or_else(|| corrupt("is too short"))?;
        if !content.starts_with(&MAGIC) {
            return Err(corrupt("does not start like a manifest"));
        }
        if crc32fast::hash(content) != u32::from_le_bytes(*checksum) {
            return Err(corrupt("the checksum is wrong"));
        }
        let mut fields = &content[MAGIC.len()..];
        let version = take(&mut fields).map(u32::from_le_bytes).map_err(|_| corrupt("has no version"))?;
        if version != VERSION {
            return Err(Error::Version { path: path.to_owned(), found: version, known: VERSION });
        }
        Self::decode_fields(fields).map_err(|reason| corrupt(&format!("its fields do not add up: {reason}")))
    }

    fn decode_fields(mut fields: &[u8]) -> io::Result<Self> {
        let fields = &mut fields;
        let mut manifest = Self {
            dimensions: u32::from_le_bytes(take(fields)?),
            sequence: u64::from_le_bytes(take(fields)?),
            next: u64::from_le_bytes(take(fields)?),
            segments: Vec::new(),
        };
        for _ in 0..u32::from_le_bytes(take(fields)?) {
            let number = u64::from_le_bytes(take(fields)?);
            let stamp = Stamp { bytes: u64::from_le_bytes(take(fields)?), crc: u32::from_le_bytes(take(fields)?) };
            let deleted_bytes = u32::from_le_bytes(take(fields)?) as usize;
            let (deleted, rest) = fields.split_at_checked(deleted_bytes).ok_or(io::ErrorKind::UnexpectedEof)?;
            *fields = rest;
            manifest.segments.push(Entry { number, stamp, deleted: RoaringBitmap::deserialize_from(deleted)? });
        }
        if !fields.is_empty() {
            return Err(io::Error::other("bytes are left over"));
        }
        Ok(manifest)
    }
}

fn take<const N: usize>(fields: &mut &[u8]) -> io::Result<[u8; N]> {
    let mut field = [0; N];
    fields.read_exact(&mut field)?;
    Ok(field)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn good() -> Manifest {
        let entry = |number| Entry {
            number,
            stamp: Stamp { bytes: 4096, crc: 77 },
            deleted: [1, 5, 70_000].into_iter().map(|row| row + number as u32).collect(),
        };
        Manifest { dimensions: 128, sequence: 12, next: 9, segments: vec![entry(3), entry(8)] }
    }

    #[test]
    fn a_manifest_reads_back_as_written() {
        assert_eq!(Manifest::decode(&good().encode().unwrap(), Path::new("manifest")).unwrap(), good());
    }

    #[test]
    fn any_flipped_bit_is_refused() {
        let good = good().encode().unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::decode(&bad, Path::new("manifest")).is_err(), "bit {bit} went unnoticed");
        }
    }

    #[test]
    fn any_truncation_is_refused_even_with_a_checksum_that_fits() {
        let good = good().encode().unwrap();
        for length in 0..good.len() {
            assert!(Manifest::decode(&good[..length], Path::new("manifest")).is_err(), "cut at {length}");
            let mut resealed = good[..length].to_vec();
            resealed.extend(crc32fast::hash(&good[..length]).to_le_bytes());
            if resealed != good {
                assert!(Manifest::decode(&resealed, Path::new("manifest")).is_err(), "cut and resealed at {length}");
            }
        }
    }

    #[test]
    fn a_newer_version_is_named_and_not_called_damage() {
        let mut newer = good().encode().unwrap();
        newer[8] = 2;
        let end = newer.len() - 4;
        let checksum = crc32fast::hash(&newer[..end]);
        newer[end..].copy_from_slice(&checksum.to_le_bytes());
        let decoded = Manifest::decode(&newer, Path::new("manifest"));
        assert!(matches!(decoded, Err(Error::Version { found: 2, .. })));
    }
}
