//! Where photos come from: single files, folders (recursive, in order of name) and tar shards, one after the other.
//!
//! Knows names, not photos: a file in a folder or a shard is tried when its extension says that it is a photo, a file
//! that was named on its own always. Nothing is read before it is asked for, so the same walk can count.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::photo::shard::read_shard;
use crate::{Error, Result};

/// Bytes that one file may have: no photo is larger, and a list may name a device that never ends.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// What the walk comes across.
pub(super) enum Sighting<'a> {
    /// A photo, going by its name.
    Photo {
        /// How it is stored: the path as given and on from there, or `shard.tar!member`.
        path: String,
        /// The path from the given folder, or inside the shard.
        relative: String,
        /// The name of the folder that holds it.
        folder: Option<String>,
        /// Reads its bytes.
        read: &'a mut dyn FnMut() -> Result<Vec<u8>>,
    },
    /// A file of another kind.
    Other,
    /// A folder or a shard that can't be read (on).
    Unreadable {
        /// Its path.
        path: String,
        /// Why.
        reason: String,
    },
}

/// Hears of everything; breaks to end the walk.
pub(super) type Visitor<'a> = dyn FnMut(Sighting<'_>) -> Result<ControlFlow<()>> + 'a;

/// That every path exists, before anything is done about any of them.
///
/// # Errors
/// [`Error::Io`] for the first that does not.
pub(super) fn check(paths: &[PathBuf]) -> Result<()> {
    paths.iter().try_for_each(|path| fs::metadata(path).map(drop).map_err(Error::io(path)))
}

/// Walks all `paths` in the order given.
///
/// # Errors
/// Only those of `each`; what can't be read is a [`Sighting`].
pub(super) fn visit(paths: &[PathBuf], each: &mut Visitor<'_>) -> Result<()> {
    for path in paths {
        let flow = if path.is_dir() {
            Walk { root: path, each, entered: HashSet::new() }.folder(path)?
        } else if is_shard(path) {
            shard(path, each)?
        } else {
            file(path, path.file_name().map(Path::new).unwrap_or(path), each)?
        };
        if flow.is_break() {
            break;
        }
    }
    Ok(())
}

fn is_shard(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tar"))
}

fn is_photo(name: &Path) -> bool {
    let known = ["jpg", "jpeg", "png", "webp"];
    name.extension().is_some_and(|extension| known.iter().any(|known| extension.eq_ignore_ascii_case(known)))
}

struct Walk<'a, 'b> {
    root: &'a Path,
    each: &'a mut Visitor<'b>,
    /// Real paths of the folders seen: a link back to one of them would never end.
    entered: HashSet<PathBuf>,
}

impl Walk<'_, '_> {
    fn folder(&mut self, folder: &Path) -> Result<ControlFlow<()>> {
        match fs::canonicalize(folder).and_then(|real| Ok((real, entries(folder)?))) {
            Ok((real, _)) if !self.entered.insert(real.clone()) => Ok(ControlFlow::Continue(())),
            Ok((_, entries)) => {
                for path in entries {
                    if self.entry(&path)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Ok(ControlFlow::Continue(()))
            }
            Err(error) => (self.each)(unreadable(folder, &error)),
        }
    }

    fn entry(&mut self, path: &Path) -> Result<ControlFlow<()>> {
        // Follows links. A link to nowhere is an error, but only worth a word when its name is a photo's.
        match fs::metadata(path) {
            Ok(what) if what.is_dir() => self.folder(path),
            Ok(what) if what.is_file() && is_shard(path) => shard(path, self.each),
            Ok(what) if what.is_file() && is_photo(path) => {
                file(path, path.strip_prefix(self.root).unwrap_or(path), self.each)
            }
            Err(error) if is_photo(path) || is_shard(path) => (self.each)(unreadable(path, &error)),
            _ => (self.each)(Sighting::Other),
        }
    }
}

/// What a folder holds, by name.
fn entries(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> Sighting<'static> {
    Sighting::Unreadable { path: path.display().to_string(), reason: error.to_string() }
}

fn file(path: &Path, relative: &Path, each: &mut Visitor<'_>) -> Result<ControlFlow<()>> {
    let name = |folder: &Path| folder.file_name().map(|name| name.to_string_lossy().into_owned());
    // `photo.jpg`, `./photo.jpg` and `../photo.jpg` do not spell the folder's name; the real path does.
    let real = |folder: &Path| name(&fs::canonicalize(folder).ok()?);
    let folder = path.parent().and_then(|folder| name(folder).or_else(|| real(&Path::new(".").join(folder))));
    each(Sighting::Photo {
        path: path.display().to_string(),
        relative: relative.display().to_string(),
        folder,
        read: &mut || read_file(path),
    })
}

/// Reads a photo's file, as long as it is no longer than a photo can be.
///
/// # Errors
/// [`Error::Io`]; [`Error::Photo`] when it is longer than 256 MiB.
pub fn read_file(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(Error::io(path))?;
    let length = file.metadata().map_err(Error::io(path))?.len();
    let mut bytes = Vec::new();
    // The length is a promise that a device or a growing file does not keep, hence the second look.
    if length <= FILE_BYTES_MAX {
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(Error::io(path))?;
    }
    if length.max(bytes.len() as u64) > FILE_BYTES_MAX {
        return Err(Error::Photo { what: format!("more than {FILE_BYTES_MAX} bytes") });
    }
    Ok(bytes)
}

fn shard(path: &Path, each: &mut Visitor<'_>) -> Result<ControlFlow<()>> {
    // What `each` answers is kept apart from what goes wrong in the shard.
    let mut answer = Ok(ControlFlow::Continue(()));
    let end = read_shard(path, |mut member| {
        let relative = member.name().to_owned();
        let name = Path::new(&relative);
        answer = if is_photo(name) {
            let folder = name.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
            let path = format!("{}!{relative}", path.display());
            each(Sighting::Photo { path, relative: relative.clone(), folder, read: &mut || member.read() })
        } else {
            each(Sighting::Other)
        };
        Ok(match &answer {
            Ok(flow) => *flow,
            Err(_) => ControlFlow::Break(()),
        })
    });
    match (answer, end) {
        (Ok(ControlFlow::Continue(())), Err(error)) => each(unreadable(path, &error)),
        (answer, _) => answer,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use super::*;

    /// `relative @ folder` of each photo, `?` for what can't be read, `-` for the rest.
    fn seen(paths: &[PathBuf]) -> Vec<String> {
        let mut seen = Vec::new();
        visit(paths, &mut |sighting| {
            seen.push(match sighting {
                Sighting::Photo { relative, folder, .. } => format!("{relative} @ {}", folder.unwrap_or_default()),
                Sighting::Other => "-".into(),
                Sighting::Unreadable { .. } => "?".into(),
            });
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
        seen
    }

    fn write(path: PathBuf) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"bytes").unwrap();
    }

    #[test]
    fn folders_are_walked_in_order_of_name_and_other_files_are_left_out() {
        let root = tempfile::tempdir().unwrap();
        for name in ["b/2.JPEG", "b/1.jpg", "a/deep/er/3.webp", "notes.txt", "c.PNG", ".hidden"] {
            write(root.path().join(name));
        }
        let found = seen(&[root.path().into()]);
        let folder = root.path().file_name().unwrap().to_string_lossy();
        let last = format!("c.PNG @ {folder}");
        assert_eq!(found, ["-", "a/deep/er/3.webp @ er", "b/1.jpg @ b", "b/2.JPEG @ b", last.as_str(), "-"]);
    }

    #[test]
    fn a_file_that_is_named_on_its_own_is_tried_whatever_its_name() {
        let root = tempfile::tempdir().unwrap();
        write(root.path().join("ana/scan"));
        assert_eq!(seen(&[root.path().join("ana/scan")]), ["scan @ ana"]);
        assert_eq!(seen(&["Cargo.toml".into()]).len(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_but_never_in_circles() {
        let root = tempfile::tempdir().unwrap();
        write(root.path().join("a/1.jpg"));
        for (target, link) in [("..", "a/up"), (".", "a/self"), ("nowhere", "a/2.jpg"), ("a/1.jpg", "same.jpg")] {
            std::os::unix::fs::symlink(target, root.path().join(link)).unwrap();
        }
        let folder = root.path().file_name().unwrap().to_string_lossy();
        assert_eq!(seen(&[root.path().into()]), ["a/1.jpg @ a", "?", format!("same.jpg @ {folder}").as_str()]);
    }

    #[test]
    fn a_broken_shard_is_a_sighting_and_the_walk_goes_on() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a.tar"), vec![7; 2000]).unwrap();
        write(root.path().join("b/1.jpg"));
        assert_eq!(seen(&[root.path().into()]), ["?", "b/1.jpg @ b"]);
    }

    #[test]
    fn a_file_beyond_the_limit_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("sparse.jpg");
        File::create(&path).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
        assert!(matches!(read_file(&path), Err(Error::Photo { .. })));
    }
}
