//! Files that are whole or not there: written under a temporary name, synced, renamed, and the folder synced.

use std::io::{self, BufWriter, Write};

use super::{NewFile, Storage};
use crate::{Error, Result};

/// Ends the names of files that are being written.
pub(crate) const TEMPORARY: &str = ".tmp";

/// A file on its way, as the code that writes it sees it.
pub(crate) type Writer = BufWriter<Box<dyn NewFile>>;

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
        let mut file = BufWriter::new(storage.create(&prepared.temporary)?);
        let written = content(&mut file)?;
        file.flush()?;
        file.get_mut().sync()?;
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
