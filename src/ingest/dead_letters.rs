//! The letter box: photos that could not be read, one JSON object (`path`, `reason`) a line.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// A file that takes letters, or nowhere.
pub(super) struct DeadLetters(Option<(PathBuf, File)>);

impl DeadLetters {
    /// Starts an empty file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn create(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self(None)) };
        let file = File::create(path).map_err(Error::io(path))?;
        Ok(Self(Some((path.to_owned(), file))))
    }

    /// Writes one letter, in one write without a buffer, so that it is there should the program be killed.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn post(&mut self, path: &str, reason: &str) -> Result<()> {
        let Some((file_path, file)) = &mut self.0 else { return Ok(()) };
        let line = format!("{}\n", serde_json::json!({ "path": path, "reason": reason }));
        file.write_all(line.as_bytes()).map_err(Error::io(file_path))
    }
}
