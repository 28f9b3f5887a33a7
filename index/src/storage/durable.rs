//! Files that are whole or not there: written under a temporary name, synced, renamed, and the folder synced.

use std::io::{self, Write};

use super::{NewFile, Storage};
use crate::{Error, Result};

/// Ends the names of files that are being written.
pub(crate) const TEMPORARY: &str = ".tmp";

/// Bytes that are written at once, from multiples of as many on: a huge page of most CPUs. What is written at once, some file systems keep together in memory
/// (XFS, and ext4 since Linux 6.16) and map as one page. A walk over a large index lands in another page with each step, and finds few large ones faster than many small ones.
pub(super) const PIECE: usize = 1 << 21;

/// A file on its way, as the code that writes it sees it.
pub(crate) struct Writer {
    file: Box<dyn NewFile>,
    /// What of the piece at hand is not written yet.
    piece: Vec<u8>,
}

impl Writer {
    fn new(file: Box<dyn NewFile>) -> Self {
        Self { file, piece: Vec::new() }
    }

    /// Goes back to the first byte.
    pub(crate) fn rewind(&mut self) -> io::Result<()> {
        self.flush()?;
        self.file.rewind()
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        let taken = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.piece)?;
        self.piece.clear();
        Ok(())
    }
}

/// A file that is durable under its temporary name. Without [`name`](Self::name) it is removed.
pub(crate) struct Prepared<'a> {
    storage: &'a dyn Storage,
    name: &'a str,
    temporary: String,
}

/// Writes what will be the file `name`.
///
/// # Errors
/// `Io`; then nothing was changed.
pub(crate) fn prepare<'a, T>(
    storage: &'a dyn Storage,
    name: &'a str,
    content: impl FnOnce(&mut Writer) -> io::Result<T>,
) -> Result<(Prepared<'a>, T)> {
    let prepared = Prepared { storage, name, temporary: format!("{name}{TEMPORARY}") };
    let write = || {
        let mut file = Writer::new(storage.create(&prepared.temporary)?);
        let written = content(&mut file)?;
        file.flush()?;
        file.file.sync()?;
        Ok(written)
    };
    // On an error what is prepared so far is dropped, and so removed.
    let written = write().map_err(Error::io(&storage.path().join(name)))?;
    Ok((prepared, written))
}

impl Prepared<'_> {
    /// Gives the file its name, durably, in the place of one that has it.
    ///
    /// # Errors
    /// `Io`; then it is not known which of the two files will be there after a crash.
    pub(crate) fn name(self) -> Result<()> {
        let renamed = self.storage.rename(&self.temporary, self.name);
        renamed.map_err(Error::io(&self.storage.path().join(self.name)))?;
        self.storage.sync().map_err(Error::io(self.storage.path()))
    }
}

impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        // Not there once it was renamed. What is left over else is removed on the next open as well.
        let _ = self.storage.remove(&self.temporary);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Recorded(Arc<Mutex<Record>>);

    #[derive(Default)]
    struct Record {
        /// Where each write began.
        begins: Vec<u64>,
        file: io::Cursor<Vec<u8>>,
    }

    impl Write for Recorded {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let Record { begins, file } = &mut *self.0.lock().unwrap();
            begins.push(file.position());
            file.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl io::Seek for Recorded {
        fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
            self.0.lock().unwrap().file.seek(to)
        }
    }

    impl NewFile for Recorded {
        fn sync(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn files_are_written_in_pieces_that_are_aligned() {
        let recorded = Recorded::default();
        let mut writer = Writer::new(Box::new(recorded.clone()));
        let bytes: Vec<u8> = (0..2 * PIECE + 100).map(|at| (at % 251) as u8).collect();
        // Short and long, none of which fits.
        let (short, long) = bytes.split_at(70_001);
        short.chunks(64).for_each(|some| writer.write_all(some).unwrap());
        writer.write_all(long).unwrap();
        writer.rewind().unwrap();
        writer.write_all(&[7]).unwrap();
        writer.flush().unwrap();
        let Record { begins, file } = &*recorded.0.lock().unwrap();
        assert_eq!(*begins, [0, PIECE as u64, 2 * PIECE as u64, 0]);
        assert_eq!((file.get_ref()[0], &file.get_ref()[1..]), (7, &bytes[1..]));
    }
}
