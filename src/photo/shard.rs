//! Many photos in one place: tar shards, read from front to back, and folders.
//!
//! Knows names and bytes only; whether a member is a photo at all is for the decoder to say. A member's content is read
//! only when asked for, so that what is not wanted costs a seek.

use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Bytes that one member may have: no photo file is larger, and a hostile header must not fill the memory.
const MEMBER_BYTES_MAX: u64 = 256 << 20;

/// One file inside a shard or folder.
pub struct Member<'a> {
    name: String,
    content: Content<'a>,
}

enum Content<'a> {
    Entry(Box<tar::Entry<'a, File>>),
    File(PathBuf),
}

impl Member<'_> {
    /// The path inside the shard or folder, for example `Ana/0001.jpg`; bytes that are not UTF-8 are replaced.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads the content.
    ///
    /// # Errors
    /// [`Error::Photo`] when it is larger than 256 MiB, can't be read, or the shard ends too early.
    pub fn read(&mut self) -> Result<Vec<u8>> {
        let lost = |source: std::io::Error| Error::Photo { what: format!("can't be read: {source}") };
        let size = match &self.content {
            Content::Entry(entry) => entry.size(),
            Content::File(path) => path.metadata().map_err(lost)?.len(),
        };
        if size > MEMBER_BYTES_MAX {
            let what = format!("{size} bytes, more than the limit of {MEMBER_BYTES_MAX}");
            return Err(Error::Photo { what });
        }
        let mut bytes = Vec::new();
        match &mut self.content {
            Content::Entry(entry) => entry
                .read_to_end(&mut bytes)
                .map_err(|source| Error::Photo { what: format!("the shard can't be read on: {source}") })?,
            Content::File(path) => File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(lost)?,
        };
        Ok(bytes)
    }
}

/// Calls `each` for every regular file of a shard, in order, or of a folder and the folders in it, by name, until it breaks or fails.
///
/// # Errors
/// [`Error::Io`] when the shard or folder can't be opened, [`Error::Corrupt`] when it is no tar file or ends inside a member,
/// and what `each` returns.
pub fn read_shard(path: &Path, mut each: impl FnMut(Member<'_>) -> Result<ControlFlow<()>>) -> Result<()> {
    if path.is_dir() {
        return read_folder(path, "", &mut each).map(|_| ());
    }
    let file = File::open(path).map_err(Error::io(path))?;
    let shard_bytes = file.metadata().map_err(Error::io(path))?.len();
    let mut archive = tar::Archive::new(file);
    let broken = |source: std::io::Error| Error::corrupt(path, format!("not a readable tar file: {source}"));
    for entry in archive.entries_with_seek().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        // A seek past the end succeeds, so a member that was cut off would pass for the last one.
        if entry.raw_file_position().checked_add(entry.size()).is_none_or(|end| end > shard_bytes) {
            return Err(Error::corrupt(path, format!("the shard ends inside {name}")));
        }
        if entry.header().entry_type().is_file()
            && each(Member { name, content: Content::Entry(Box::new(entry)) })?.is_break()
        {
            break;
        }
    }
    Ok(())
}

fn read_folder(
    folder: &Path,
    inside: &str,
    each: &mut dyn FnMut(Member<'_>) -> Result<ControlFlow<()>>,
) -> Result<ControlFlow<()>> {
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder))?;
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.map(|e| e.path())).collect::<std::io::Result<_>>().map_err(Error::io(folder))?;
    paths.sort();
    for path in paths {
        let name = format!("{inside}{}", path.file_name().unwrap_or_default().to_string_lossy());
        // A link to a folder could lead round in circles.
        let end = match path.is_dir() && !path.is_symlink() {
            true => read_folder(&path, &format!("{name}/"), each)?,
            false if path.is_file() => each(Member { name, content: Content::File(path) })?,
            false => ControlFlow::Continue(()),
        };
        if end.is_break() {
            return Ok(end);
        }
    }
    Ok(ControlFlow::Continue(()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use super::*;

    fn shard() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in [("ana/1.jpg", vec![1; 700]), ("ben/2.jpg", vec![2; 3]), ("ben/3.jpg", vec![3; 600])] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, bytes.as_slice()).unwrap();
        }
        let mut folder = tar::Header::new_gnu();
        folder.set_entry_type(tar::EntryType::Directory);
        folder.set_size(0);
        builder.append_data(&mut folder, "carl", std::io::empty()).unwrap();
        builder.into_inner().unwrap()
    }

    fn read(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let mut members = Vec::new();
        read_shard(file.path(), |mut member| {
            // The second is skipped, to prove that skipping finds the third.
            let bytes = if member.name() == "ben/2.jpg" { Vec::new() } else { member.read()? };
            members.push((member.name().to_owned(), bytes));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(members)
    }

    #[test]
    fn a_folder_is_read_as_a_shard_of_its_files() {
        let folder = tempfile::tempdir().unwrap();
        for (name, byte) in [("ben/2.jpg", 2), ("ana/old/1.jpg", 1), ("ben/3.jpg", 3)] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, [byte; 9]).unwrap();
        }
        let mut members = Vec::new();
        let mut read = |most: usize| {
            members.clear();
            read_shard(folder.path(), |mut member| {
                members.push((member.name().to_owned(), member.read()?[0]));
                Ok(if members.len() == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })
            .unwrap();
            members.clone()
        };
        let all =
            [("ana/old/1.jpg", 1), ("ben/2.jpg", 2), ("ben/3.jpg", 3)].map(|(name, byte)| (name.to_owned(), byte));
        assert_eq!(read(9), all);
        assert_eq!(read(2), all[..2]);
    }

    #[test]
    fn members_come_in_order_with_their_bytes_and_folders_are_left_out() {
        let expected = [("ana/1.jpg", vec![1; 700]), ("ben/2.jpg", vec![]), ("ben/3.jpg", vec![3; 600])];
        assert_eq!(read(&shard()).unwrap(), expected.map(|(name, bytes)| (name.to_owned(), bytes)));
    }

    #[test]
    fn breaking_off_reads_no_further() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), shard()).unwrap();
        let mut seen = 0;
        read_shard(file.path(), |_| {
            seen += 1;
            Ok(ControlFlow::Break(()))
        })
        .unwrap();
        assert_eq!(seen, 1);
    }

    #[test]
    fn a_shard_that_is_cut_off_or_no_tar_at_all_is_an_error() {
        let whole = shard();
        // Headers and contents alternate in blocks of 512: these cut the first header, a skipped and a read content.
        for length in [100, 512 + 300, 512 * 4 + 1, 512 * 6 + 1] {
            let error = read(&whole[..length]).expect_err(&format!("cut at {length}"));
            assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        }
        assert!(matches!(read(&[b'x'; 2048]), Err(Error::Corrupt { .. })));
        assert!(matches!(read_shard(Path::new("no such shard"), |_| unreachable!()), Err(Error::Io { .. })));
    }

    #[test]
    fn a_member_that_claims_a_petabyte_is_refused_before_memory_is_taken() {
        let mut header = tar::Header::new_gnu();
        header.set_path("huge.jpg").unwrap();
        header.set_size(1 << 50);
        header.set_cksum();
        assert!(read(header.as_bytes()).is_err());
    }
}
