//! A sealed file, mapped to be read.
//!
//! Only sealed files are mapped: they were written and synced under another name, and nobody writes to them again. So a full
//! disk is an error of the writer and never a signal to the reader.

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;

#[cfg(target_os = "linux")]
use super::durable::PIECE;

#[cfg(not(target_endian = "little"))]
compile_error!("sealed files are little-endian and read in place: this target needs a reader that swaps bytes");

/// The bytes of a sealed file.
pub(super) fn open(path: &Path) -> io::Result<Mmap> {
    let file = File::open(path)?;
    // SAFETY: sealed files are replaced and removed by name but never written to or truncated, and removing a name leaves
    // the mapping whole. Another program that writes into our folder breaks this; no lock can stop it.
    let map = unsafe { Mmap::map(&file) }?;
    #[cfg(target_os = "linux")]
    prefer_huge_pages(&map);
    Ok(map)
}

/// Has what is missing in memory read [`PIECE`] bytes at a time, and mapped as one page where the system can. A hint: nothing depends on it.
///
/// Not of a file that memory may have no room for: there, what a search reads must not drive out what the next one needs.
#[cfg(target_os = "linux")]
fn prefer_huge_pages(map: &Mmap) {
    if map.len() >= PIECE && memory_available().is_some_and(|available| map.len() as u64 <= available / 2) {
        // An error says that this system has none.
        let _ = map.advise(memmap2::Advice::HugePage);
    }
}

/// Bytes that files may take before something else has to go.
#[cfg(target_os = "linux")]
fn memory_available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(1024 * line.trim().trim_end_matches(" kB").parse::<u64>().ok()?)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_system_says_how_much_memory_is_available() {
        assert!(memory_available().is_some_and(|bytes| bytes > 1 << 20));
    }
}
