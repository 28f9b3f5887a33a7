//! Files that are whole or not there: written under a temporary name, synced, renamed, and the folder synced.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::{Error, Result};

/// Of files that are being written.
pub(crate) const TEMPORARY: &str = "tmp";

/// Writes a file that is durable on return, and replaces one of the same name in one step. On an error the old file is untouched.
pub(crate) fn write<T>(path: &Path, content: impl FnOnce(&mut BufWriter<File>) -> io::Result<T>) -> Result<T> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".");
    temporary.push(TEMPORARY);
    let temporary = Path::new(&temporary);
    let written = write_and_sync(temporary, content).and_then(|written| {
        fs::rename(temporary, path)?;
        Ok(written)
    });
    if written.is_err() {
        // What is left over is removed on the next open as well.
        let _ = fs::remove_file(temporary);
    }
    let written = written.map_err(Error::io(path))?;
    if let Some(folder) = path.parent() {
        sync_folder(folder).map_err(Error::io(folder))?;
    }
    Ok(written)
}

fn write_and_sync<T>(path: &Path, content: impl FnOnce(&mut BufWriter<File>) -> io::Result<T>) -> io::Result<T> {
    let mut file = BufWriter::new(File::create(path)?);
    let written = content(&mut file)?;
    file.flush()?;
    file.get_ref().sync_all()?;
    Ok(written)
}

/// A rename is durable when its folder is.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Elsewhere a folder cannot be opened as a file.
#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}
