//! A sealed file, mapped to be read.
//!
//! Only sealed files are mapped: they were written and synced under another name, and nobody writes to them again. So a full
//! disk is an error of the writer and never a signal to the reader.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::{Error, Result};

#[cfg(not(target_endian = "little"))]
compile_error!("sealed files are little-endian and read in place: this target needs a reader that swaps bytes");

/// The bytes of a sealed file.
pub(super) struct Map(Mmap);

impl Map {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        // SAFETY: sealed files are replaced and removed by name but never written to or truncated, and removing a name leaves
        // the mapping whole. Another program that writes into our folder breaks this; no lock can stop it.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
        Ok(Self(map))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}
