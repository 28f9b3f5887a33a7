//! How a view follows the catalog: opened, caught up from the log, and rebuilt when it can't be trusted.
//!
//! A view holds nothing that the catalog doesn't. It says which commit it contains on disk; what came later is in the
//! catalog's log, and replaying an entry twice does no harm. So a crash costs a replay, and damage costs a rebuild.

use std::collections::btree_map::{BTreeMap, Entry};
use std::path::Path;
use std::{fs, io};

use vultus_index::Index;

use crate::catalog::filters::{FilterDocument, FilterIndex};
use crate::catalog::{FaceId, FaceRecord, PhotoHash, PhotoRecord, Snapshot, Touch};
use crate::{Error, Result};

/// Faces that a view takes before it is written to disk: what an open after a crash has to replay at most.
const KEEP_FACES: usize = 10_000;

/// Faces handed to a view at once: bounds the memory of a replay.
const CHUNK_FACES: usize = 1_000;

/// Something that is derived from the faces of the catalog, in a folder of its own.
pub(super) trait View: Sized {
    /// Its folder in the gallery's.
    const FOLDER: &'static str;

    /// Opens the folder, or starts an empty view; verifies what is there, or will when it is read.
    fn open(folder: &Path) -> Result<Self>;

    /// The commit that it contains on disk.
    fn kept(&self) -> u64;

    /// Whether it must hear of a face that is there and was touched like this.
    fn hears(touch: Touch) -> bool;

    /// Adds faces, or replaces what it knew of them.
    fn put(&mut self, faces: &[FaceRecord], now: &Snapshot) -> Result<()>;

    /// Removes faces, if it knows them.
    fn remove(&mut self, faces: &[FaceId]) -> Result<()>;

    /// Writes all of it to disk as the state at this commit.
    fn keep(&mut self, sequence: u64) -> Result<()>;

    /// Faces that were kept.
    fn count(&self) -> Result<u64>;
}

impl View for Index {
    const FOLDER: &'static str = "index";

    fn open(folder: &Path) -> Result<Self> {
        // The others answer meanwhile, also where two CPUs are one core.
        let merge_threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        let options = vultus_index::Options { merge_threads, merge_share: 0.3, ..vultus_index::Options::default() };
        Ok(Self::open(folder, options)?)
    }

    fn kept(&self) -> u64 {
        self.sequence()
    }

    fn hears(touch: Touch) -> bool {
        touch != Touch::Named
    }

    fn put(&mut self, faces: &[FaceRecord], _: &Snapshot) -> Result<()> {
        faces.iter().try_for_each(|face| Ok(self.add(face.id.0, face.embedding.as_slice())?))
    }

    fn remove(&mut self, faces: &[FaceId]) -> Result<()> {
        faces.iter().try_for_each(|face| {
            self.remove(face.0)?;
            Ok(())
        })
    }

    fn keep(&mut self, sequence: u64) -> Result<()> {
        Ok(self.seal(sequence)?)
    }

    fn count(&self) -> Result<u64> {
        Ok(vultus_index::Snapshot::count(self) as u64)
    }
}

impl View for FilterIndex {
    const FOLDER: &'static str = "filters";

    fn open(folder: &Path) -> Result<Self> {
        Self::open(folder)
    }

    fn kept(&self) -> u64 {
        self.sequence()
    }

    fn hears(_: Touch) -> bool {
        true
    }

    fn put(&mut self, faces: &[FaceRecord], now: &Snapshot) -> Result<()> {
        let mut photos: BTreeMap<PhotoHash, PhotoRecord> = BTreeMap::new();
        for face in faces {
            if let Entry::Vacant(slot) = photos.entry(face.photo) {
                let photo = now.photo(&face.photo)?;
                slot.insert(photo.ok_or_else(|| now.damage(face.id, "its photo is missing"))?);
            }
        }
        let with_photos = faces.iter().map(|face| (face, &photos[&face.photo]));
        let documents = with_photos.map(|(face, PhotoRecord { path, metadata, .. })| FilterDocument {
            id: face.id,
            person: face.person.as_deref(),
            path,
            metadata,
        });
        self.upsert(&documents.collect::<Vec<_>>())
    }

    fn remove(&mut self, faces: &[FaceId]) -> Result<()> {
        self.remove(faces)
    }

    fn keep(&mut self, sequence: u64) -> Result<()> {
        self.commit(sequence)
    }

    fn count(&self) -> Result<u64> {
        Ok(self.len())
    }
}

/// A view and the commit that it contains in memory.
pub(super) struct Follower<V> {
    view: V,
    applied: u64,
    /// Faces that were applied since it was written to disk.
    pending: usize,
}

impl<V: View> Follower<V> {
    /// Opens the view in its folder and brings it to `now`; sets it aside and builds it anew where that can't be done.
    pub(super) fn open(gallery: &Path, now: &Snapshot, rebuilt: &mut Vec<String>) -> Result<Self> {
        let folder = gallery.join(V::FOLDER);
        let missing = !folder.exists() && now.sequence() > 0;
        let reason = match Self::open_and_follow(&folder, now) {
            Ok(Some(view)) if !missing => return Ok(view),
            Ok(_) if missing => "its folder was missing".to_owned(),
            Ok(_) => "it did not agree with the catalog".to_owned(),
            Err(error) if is_damage(&error) => error.to_string(),
            Err(error) => return Err(error),
        };
        rebuilt.push(format!("{}: {reason}; rebuilt from the catalog", V::FOLDER));
        set_aside(&folder)?;
        Self::rebuild(&folder, now)
    }

    /// `None` when the log does not reach back to what the view contains, or the view knows other faces than the catalog.
    fn open_and_follow(folder: &Path, now: &Snapshot) -> Result<Option<Self>> {
        let view = V::open(folder)?;
        let mut follower = Self { applied: view.kept(), view, pending: 0 };
        if now.touched_since(follower.applied)?.is_none() {
            return Ok(None);
        }
        follower.catch_up(now)?;
        follower.keep()?;
        let agrees = follower.view.count()? == now.counts()?.faces;
        Ok(agrees.then_some(follower))
    }

    /// Sets the view aside that cannot be relied on any more, and builds it anew.
    pub(super) fn replace(&mut self, gallery: &Path, now: &Snapshot) -> Result<()> {
        let folder = gallery.join(V::FOLDER);
        set_aside(&folder)?;
        *self = Self::rebuild(&folder, now)?;
        Ok(())
    }

    fn rebuild(folder: &Path, now: &Snapshot) -> Result<Self> {
        let mut follower = Self { view: V::open(folder)?, applied: 0, pending: 0 };
        let mut faces = now.faces_from(FaceId(0))?;
        loop {
            let chunk = faces.by_ref().take(CHUNK_FACES).collect::<Result<Vec<_>>>()?;
            if chunk.is_empty() {
                break;
            }
            // Until the last face is in, what is written to disk claims to contain nothing.
            follower.put(&chunk, now)?;
        }
        follower.applied = now.sequence();
        follower.keep()?;
        Ok(follower)
    }

    /// Applies what the catalog has logged up to `now`.
    pub(super) fn catch_up(&mut self, now: &Snapshot) -> Result<()> {
        if self.contains(now) {
            return Ok(());
        }
        let touched = now.touched_since(self.applied)?.ok_or_else(|| now.log_too_short())?;
        let touched: Vec<_> = touched.into_iter().collect();
        for chunk in touched.chunks(CHUNK_FACES) {
            let (mut here, mut gone) = (Vec::new(), Vec::new());
            for (id, touch) in chunk {
                match now.face(*id)? {
                    Some(face) if V::hears(*touch) => here.push(face),
                    Some(_) => {}
                    None => gone.push(*id),
                }
            }
            self.view.remove(&gone)?;
            self.pending += gone.len();
            self.put(&here, now)?;
        }
        self.applied = now.sequence();
        Ok(())
    }

    fn put(&mut self, faces: &[FaceRecord], now: &Snapshot) -> Result<()> {
        self.view.put(faces, now)?;
        self.pending += faces.len();
        if self.pending >= KEEP_FACES {
            self.keep()?;
        }
        Ok(())
    }

    /// Writes the view to disk as what it contains.
    pub(super) fn keep(&mut self) -> Result<()> {
        if self.pending > 0 || self.view.kept() != self.applied {
            self.view.keep(self.applied)?;
            self.pending = 0;
        }
        Ok(())
    }

    /// Whether every commit of `now` is in it.
    pub(super) fn contains(&self, now: &Snapshot) -> bool {
        self.applied >= now.sequence()
    }

    /// Whether every commit of `now` is in it and on disk.
    pub(super) fn has_kept(&self, now: &Snapshot) -> bool {
        self.contains(now) && self.pending == 0 && self.view.kept() == self.applied
    }

    /// The commit that it contains in memory.
    pub(super) fn applied(&self) -> u64 {
        self.applied
    }

    /// The commit up to which the log is not needed any more.
    pub(super) fn kept(&self) -> u64 {
        self.view.kept()
    }

    /// The view itself.
    pub(super) fn view(&self) -> &V {
        &self.view
    }

    /// The view itself, for work that changes nothing of what it contains.
    pub(super) fn view_mut(&mut self) -> &mut V {
        &mut self.view
    }
}

/// Whether an error says that a view's files are not what was written, so that a new one helps.
fn is_damage(error: &Error) -> bool {
    use io::ErrorKind::{InvalidData, IsADirectory, NotADirectory, NotFound, UnexpectedEof};
    let of_content = |error: &io::Error| {
        matches!(error.kind(), InvalidData | IsADirectory | NotADirectory | NotFound | UnexpectedEof)
    };
    match error {
        Error::Io { source, .. } | Error::Index(vultus_index::Error::Io { source, .. }) => of_content(source),
        Error::Corrupt { .. } | Error::Version { .. } | Error::Index(_) => true,
        _ => false,
    }
}

/// Renames a damaged view to `NAME.damaged`, for whoever wants to know what happened; only the latest is kept.
fn set_aside(folder: &Path) -> Result<()> {
    let aside = folder.with_extension("damaged");
    let unless_missing = |done: io::Result<()>| match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(folder)(error)),
        _ => Ok(()),
    };
    unless_missing(if aside.is_dir() { fs::remove_dir_all(&aside) } else { fs::remove_file(&aside) })?;
    unless_missing(fs::rename(folder, &aside))
}
