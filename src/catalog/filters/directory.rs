//! The folder that tantivy writes to, with a checksum on the two files that tantivy itself leaves without one.
//!
//! Segment files end in a CRC that `validate_checksum` compares. `meta.json`, which says what is committed and what
//! is deleted, and `.managed.json` have none: a flipped byte there could bring deleted faces back. Both go through
//! `atomic_read` and `atomic_write` only, so that is where a last line is added and checked:
//!
//! | bytes | field | meaning                                                         |
//! |------:|-------|-----------------------------------------------------------------|
//! |     n | JSON  | tantivy's bytes                                                 |
//! |     1 | end   | line feed                                                       |
//! |     8 | crc   | CRC-32 (IEEE) of the first n bytes, as lower-case hex digits    |
//!
//! After the rename the folder is synced too, which tantivy does only before it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tantivy::directory::error::{DeleteError, LockError, OpenDirectoryError, OpenReadError, OpenWriteError};
use tantivy::directory::{
    Directory, DirectoryLock, FileHandle, Lock, MmapDirectory, WatchCallback, WatchHandle, WritePtr,
};

/// Bytes after the JSON: a line feed and eight digits.
const SEAL_BYTES: usize = 9;

/// A mapped folder whose small files are checksummed.
#[derive(Clone, Debug)]
pub(super) struct SealedDirectory(MmapDirectory);

impl SealedDirectory {
    pub(super) fn open(folder: &Path) -> Result<Self, OpenDirectoryError> {
        MmapDirectory::open(folder).map(Self)
    }
}

fn seal(json: &[u8]) -> String {
    format!("\n{:08x}", crc32fast::hash(json))
}

impl Directory for SealedDirectory {
    fn atomic_read(&self, path: &Path) -> Result<Vec<u8>, OpenReadError> {
        let mut bytes = self.0.atomic_read(path)?;
        let split = bytes.len().saturating_sub(SEAL_BYTES);
        let found = bytes.split_off(split);
        if found != seal(&bytes).as_bytes() {
            let error = io::Error::new(io::ErrorKind::InvalidData, "its checksum does not hold");
            return Err(OpenReadError::wrap_io_error(error, path.to_owned()));
        }
        Ok(bytes)
    }

    fn atomic_write(&self, path: &Path, data: &[u8]) -> io::Result<()> {
        self.0.atomic_write(path, &[data, seal(data).as_bytes()].concat())?;
        self.0.sync_directory()
    }

    /// Nobody waits for changes: the one reader is told by the one writer.
    fn watch(&self, _: WatchCallback) -> tantivy::Result<WatchHandle> {
        Ok(WatchHandle::empty())
    }

    fn get_file_handle(&self, path: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        self.0.get_file_handle(path)
    }

    fn delete(&self, path: &Path) -> Result<(), DeleteError> {
        self.0.delete(path)
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenReadError> {
        self.0.exists(path)
    }

    /// A file of that name can only be the rest of a commit that was killed: names of committed files are never given
    /// again, but the numbers of a commit that did not happen are.
    fn open_write(&self, path: &Path) -> Result<WritePtr, OpenWriteError> {
        match self.0.open_write(path) {
            Err(OpenWriteError::FileAlreadyExists(_)) if self.0.delete(path).is_ok() => self.0.open_write(path),
            opened => opened,
        }
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.0.sync_directory()
    }

    fn acquire_lock(&self, lock: &Lock) -> Result<DirectoryLock, LockError> {
        self.0.acquire_lock(lock)
    }
}
