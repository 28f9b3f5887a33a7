//! Where an index keeps its files: a folder of names, behind a trait that tests put their faults into.
//!
//! What an index asks for is little: new files that are written front to back (and their first bytes once more), renames, and files
//! that are read in place once they are whole. [`Disk`] is the real one.

mod disk;
pub(crate) mod durable;
#[expect(unsafe_code, reason = "maps files")]
mod map;

use std::io::{self, Seek, Write};
use std::path::Path;

pub use disk::Disk;

/// A folder. Names are of files in it; there are no folders inside.
///
/// A file's bytes are durable once its [`sync`](NewFile::sync) returned, its name once [`sync`](Self::sync) of the folder did.
pub trait Storage: Send + Sync + 'static {
    /// Of the folder, for messages.
    fn path(&self) -> &Path;

    /// The names of the files, in any order.
    ///
    /// # Errors
    /// Of the operating system, here and below.
    fn names(&self) -> io::Result<Vec<String>>;

    /// The bytes of a file, to be read in place for as long as they are held, also after the name was removed. Asked only of files that
    /// nobody writes to any more.
    ///
    /// # Errors
    /// `NotFound` where there is no such file.
    fn open(&self, name: &str) -> io::Result<Box<dyn Bytes>>;

    /// A new file, empty also where there was one.
    ///
    /// # Errors
    /// Where it cannot be made.
    fn create(&self, name: &str) -> io::Result<Box<dyn NewFile>>;

    /// Gives a file another name, in one step, also where a file has that name.
    ///
    /// # Errors
    /// Then both are as they were.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name.
    ///
    /// # Errors
    /// `NotFound` where there is no such file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names durable.
    ///
    /// # Errors
    /// Then it is not known which are.
    fn sync(&self) -> io::Result<()>;
}

/// The bytes of a file that nobody writes to, beginning at an address that is a multiple of 64.
pub trait Bytes: AsRef<[u8]> + Send + Sync {}

impl<T: AsRef<[u8]> + Send + Sync> Bytes for T {}

/// A file that is being written.
pub trait NewFile: Write + Seek + Send {
    /// Makes its bytes durable.
    ///
    /// # Errors
    /// Then it is not known which are.
    fn sync(&mut self) -> io::Result<()>;
}
