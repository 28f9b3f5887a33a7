//! A sealed file, mapped to be read.
//!
//! Only sealed files are mapped: they were written and synced under another name, and nobody writes to them again. So a full
//! disk is an error of the writer and never a signal to the reader.

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;

#[cfg(not(target_endian = "little"))]
compile_error!("sealed files are little-endian and read in place: this target needs a reader that swaps bytes");

/// The bytes of a sealed file.
pub(super) fn open(path: &Path) -> io::Result<Mmap> {
    let file = File::open(path)?;
    // SAFETY: sealed files are replaced and removed by name but never written to or truncated, and removing a name leaves
    // the mapping whole. Another program that writes into our folder breaks this; no lock can stop it.
    unsafe { Mmap::map(&file) }
}
