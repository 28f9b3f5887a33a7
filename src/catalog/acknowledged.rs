//! `catalog.acknowledged`: the highest sequence number that a caller was told is durable.
//!
//! redb finds its newest commit through one bit of its header that no checksum covers, and keeps the commit before that
//! one readable. Flip the bit and the file opens, valid, without the last commit. This file, twelve bytes written after
//! each commit, says that a commit is missing. It is a witness and no more: written without fsync, and believed only
//! when its checksum is right, so losing it loses nothing.
//!
//! | offset | bytes | field    | meaning                                   |
//! |-------:|------:|----------|-------------------------------------------|
//! |      0 |     8 | sequence | of the last acknowledged commit           |
//! |      8 |     4 | crc      | CRC-32 (IEEE) of bytes 0..8               |
//!
//! Integers are little-endian.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

pub(super) struct Acknowledged {
    path: PathBuf,
    file: File,
    highest: u64,
}

impl Acknowledged {
    /// Opens the witness, or starts one, and hears it.
    ///
    /// # Errors
    /// `Corrupt` when it has seen a later commit than `sequence`; `Io`.
    pub(super) fn open(path: &Path, sequence: u64) -> Result<Self> {
        let mut options = File::options();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(path).map_err(Error::io(path))?;
        let mut bytes = Vec::new();
        Read::by_ref(&mut file).take(13).read_to_end(&mut bytes).map_err(Error::io(path))?;
        if let Some(seen) = decode(&bytes).filter(|seen| *seen > sequence) {
            let what = format!(
                "the catalog ends at commit {sequence}, but commit {seen} was acknowledged: it is damaged or an older copy; \
                 restore the whole folder from a backup, or remove this file to accept the older state"
            );
            return Err(Error::corrupt(path, what));
        }
        let mut witness = Self { path: path.to_owned(), file, highest: sequence };
        witness.write(sequence)?;
        Ok(witness)
    }

    /// Notes that a commit is about to be acknowledged. Threads may come here in another order than they committed.
    pub(super) fn write(&mut self, sequence: u64) -> Result<()> {
        self.highest = self.highest.max(sequence);
        let written = self.file.seek(SeekFrom::Start(0)).and_then(|_| self.file.write_all(&encode(self.highest)));
        written.map_err(Error::io(&self.path))
    }
}

fn encode(sequence: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&sequence.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..8]);
    bytes[8..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<u64> {
    let (sequence, crc) = bytes.split_at_checked(8)?;
    let right = crc == crc32fast::hash(sequence).to_le_bytes();
    right.then(|| sequence.try_into().map(u64::from_le_bytes).ok()).flatten()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]
mod tests {
    use super::*;

    #[test]
    fn an_older_catalog_is_noticed_and_a_damaged_witness_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.acknowledged");
        Acknowledged::open(&path, 0).unwrap().write(7).unwrap();
        assert!(matches!(Acknowledged::open(&path, 6), Err(Error::Corrupt { .. })));
        assert!(Acknowledged::open(&path, 7).is_ok());
        for bit in 0..12 * 8 {
            let mut bytes = encode(7);
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, bytes).unwrap();
            assert!(Acknowledged::open(&path, 0).is_ok(), "bit {bit}");
        }
    }
}
