//! The folder on disk: the only module that knows the index and the catalog both.
//!
//! The catalog is the truth: a write is one of its transactions and is acknowledged when that is durable. The index of
//! vectors and the filters are views that follow the catalog by its log (see `view`). Readers of the index wait for nobody (`vectors`), those of the
//! filters share a lock.

mod cluster;
mod identify;
mod inspect;
mod new_photo;
mod vectors;
mod verify;
mod view;
mod write;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use vultus_index::Index;

pub use cluster::Clustered;
pub use identify::{Identified, IdentifyOptions, Match, NearFace};
pub use inspect::{Person, Stats};
pub use new_photo::{NewFace, NewPhoto, subject};
pub use verify::{Probe, Verified};
pub use write::{Added, Forget};

use crate::catalog::filters::FilterIndex;
use crate::catalog::{Catalog, Filter};
use crate::{Error, Recognizer, Result};
use roaring::RoaringTreemap;
use vectors::Vectors;
use view::{Follower, View};

/// One folder of faces: catalog (the truth), vectors and filters (views), and the recognizer that made them.
///
/// All methods take `&self` and may be called from many threads; writes are serialised inside.
pub struct Gallery {
    folder: PathBuf,
    recognizer: Recognizer,
    catalog: Catalog,
    index: Vectors,
    filters: RwLock<Follower<FilterIndex>>,
    rebuilt: Mutex<Vec<String>>,
    /// The last commit that a caller was told of: every answer from now on contains it.
    acknowledged: AtomicU64,
}

impl Gallery {
    /// Opens a gallery, or starts one where the folder is missing or empty.
    ///
    /// Every byte of the catalog is verified, those of the index of vectors when they are first read. A view that is missing, damaged or left
    /// behind is rebuilt, which [`Stats::rebuilt`] tells.
    ///
    /// # Errors
    /// `Locked`, `OtherModel`, `Version`, `Corrupt` (of the catalog; damaged views are rebuilt), `Io`; `Argument` for a
    /// folder that holds other things.
    pub fn open(folder: &Path, recognizer: Recognizer) -> Result<Self> {
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let catalog = Catalog::open(folder, recognizer.digest())?;
        let now = catalog.read()?;
        let mut rebuilt = Vec::new();
        let index = Vectors::open(folder, &now, &mut rebuilt)?;
        let filters = Follower::open(folder, &now, &mut rebuilt)?;
        let (filters, rebuilt) = (RwLock::new(filters), Mutex::new(rebuilt));
        let acknowledged = AtomicU64::new(now.sequence());
        Ok(Self { folder: folder.to_owned(), recognizer, catalog, index, filters, rebuilt, acknowledged })
    }

    /// The recognizer that this gallery was opened with.
    pub fn recognizer(&self) -> &Recognizer {
        &self.recognizer
    }

    /// Writes every view to disk, so that the next open has nothing to replay. Dropping does the same, ignoring errors.
    ///
    /// # Errors
    /// Only of storage.
    pub fn flush(&self) -> Result<()> {
        let now = self.catalog.read()?;
        self.index.write(|index| {
            index.catch_up(&now)?;
            index.keep()
        })?;
        let mut filters = self.filters.write().unwrap_or_else(PoisonError::into_inner);
        filters.catch_up(&now)?;
        filters.keep()
    }

    /// Waits until the index of vectors is as fast to search as it gets: until then new faces may be compared one by one.
    ///
    /// # Errors
    /// Only of storage.
    pub fn settle(&self) -> Result<()> {
        self.flush()?;
        let settle = || self.index.write(|index| Ok(index.view_mut().settle()?));
        match settle() {
            Err(error) if is_damaged_index(&error) => {
                self.rebuild_index(&error)?;
                settle()
            }
            settled => settled,
        }
    }

    /// Reads every byte that opening has not, and says what is damaged: nothing, or parts of the index of vectors, which the catalog can replace.
    ///
    /// # Errors
    /// Only of storage.
    pub fn check(&self) -> Result<Vec<String>> {
        Ok(self.vectors()?.verify().iter().map(ToString::to_string).collect())
    }

    /// Rebuilds the index of vectors from the catalog, if any of it is known to be damaged.
    ///
    /// # Errors
    /// Only of storage.
    pub fn repair(&self) -> Result<()> {
        let damage = self.index.latest().damage().into_iter().next();
        damage.map_or(Ok(()), |reason| self.rebuild_index(&Error::Index(reason)))
    }

    /// What the vectors answer, and once more those of a new index where its files turn out to be damaged.
    fn with_vectors<T>(&self, ask: impl Fn(&vultus_index::Snapshot) -> Result<T>) -> Result<T> {
        match self.vectors().and_then(|vectors| ask(&vectors)) {
            Err(error) if is_damaged_index(&error) => {
                self.rebuild_index(&error)?;
                ask(&*self.vectors()?)
            }
            answer => answer,
        }
    }

    fn rebuild_index(&self, reason: &Error) -> Result<()> {
        self.index.write(|index| {
            // Somebody else may have met the same damage and been faster.
            if index.view().damage().is_empty() {
                return Ok(());
            }
            index.replace(&self.folder, &self.catalog.read()?)?;
            let line = format!("{}: {reason}; rebuilt from the catalog", Index::FOLDER);
            self.rebuilt.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            Ok(())
        })
    }

    /// The vectors of every commit that was acknowledged before the call.
    fn vectors(&self) -> Result<Arc<vultus_index::Snapshot>> {
        self.index.at(self.acknowledged.load(Ordering::Acquire), &self.catalog)
    }

    /// The faces that a filter lets through, of every commit that was acknowledged before the call.
    fn allowed(&self, filter: &Filter) -> Result<RoaringTreemap> {
        let now = self.catalog.read()?;
        let filters = read(&self.filters);
        if filters.has_kept(&now) {
            return filters.view().matching(filter);
        }
        drop(filters);
        let mut filters = self.filters.write().unwrap_or_else(PoisonError::into_inner);
        filters.catch_up(&now)?;
        filters.keep()?;
        filters.view().matching(filter)
    }
}

impl Drop for Gallery {
    fn drop(&mut self) {
        // What is not written here is replayed by the next open.
        let _ = self.flush();
    }
}

/// Whether files of the index are not what was written.
fn is_damaged_index(error: &Error) -> bool {
    matches!(error, Error::Index(vultus_index::Error::Corrupt { .. }))
}

/// A view whose writer panicked is still good to read: it says what it contains only after it does.
fn read<V: View>(lock: &RwLock<Follower<V>>) -> RwLockReadGuard<'_, Follower<V>> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}
