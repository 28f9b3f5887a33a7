//! The truth: one redb file with every record, opened only when every byte that matters is right.
//!
//! | table    | key                | value                                                          |
//! |----------|--------------------|----------------------------------------------------------------|
//! | `meta`   | name               | format version, model digest, sequence and next id             |
//! | `photos` | hash               | a photo                                                        |
//! | `faces`  | id                 | a face                                                         |
//! | `people` | name, id           | nothing: the key says whose face it is                         |
//! | `log`    | sequence           | the faces that a commit touched, until every view contains it  |
//!
//! One write is one durable transaction. It commits in two phases: redb's one-phase commit takes a damaged newest commit
//! for a torn one and quietly opens the commit before it, which would take back what was acknowledged.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use redb::{Database, DatabaseError, ReadableDatabase, StorageError, TableDefinition, TableHandle};

use super::Snapshot;
use super::acknowledged::Acknowledged;
use super::record::{self, State};
use super::write::Change;
use crate::{Error, Result};

/// The format version of the whole catalog: what tables there are and what they mean.
const FORMAT: u64 = 1;

/// Memory for pages of the file; redb's own default is a gigabyte.
const CACHE_BYTES: usize = 64 << 20;

pub(super) type Meta = TableDefinition<'static, &'static str, &'static [u8]>;
pub(super) type Faces = TableDefinition<'static, u64, &'static [u8]>;
pub(super) type Photos = TableDefinition<'static, &'static [u8; 32], &'static [u8]>;
pub(super) type People = TableDefinition<'static, (&'static str, u64), ()>;
pub(super) type Log = TableDefinition<'static, u64, &'static [u8]>;

pub(super) const META: Meta = TableDefinition::new("meta");
pub(super) const FACES: Faces = TableDefinition::new("faces");
pub(super) const PHOTOS: Photos = TableDefinition::new("photos");
pub(super) const PEOPLE: People = TableDefinition::new("people");
pub(super) const LOG: Log = TableDefinition::new("log");

pub(super) const FORMAT_KEY: &str = "format";
pub(super) const MODEL_KEY: &str = "model";
pub(super) const STATE_KEY: &str = "state";

/// The records of a gallery.
pub(crate) struct Catalog {
    path: PathBuf,
    database: Database,
    acknowledged: Mutex<Acknowledged>,
}

impl Catalog {
    /// The file's name in the gallery's folder.
    pub(crate) const FILE: &'static str = "catalog.redb";

    /// Opens the catalog of a folder, or starts one where the folder is empty. Reads and verifies the whole file.
    ///
    /// # Errors
    /// `Argument` for a folder with other things in it, `Locked`, `OtherModel`, `Version`, `Corrupt`, `Io`.
    pub(crate) fn open(folder: &Path, model: &str) -> Result<Self> {
        let path = folder.join(Self::FILE);
        let fresh = may_start(folder)?;
        let mut builder = Database::builder();
        builder.set_check_integrity_on_open(true).set_cache_size(CACHE_BYTES);
        let opened = if fresh { builder.create(&path) } else { builder.open(&path) };
        let database = opened.map_err(|error| open_error(&path, error))?;
        if fresh && has_no_tables(&path, &database)? {
            start(&path, &database, model)?;
        }
        let sequence = check(folder, &path, &database, model)?;
        let acknowledged = Acknowledged::open(&folder.join("catalog.acknowledged"), sequence)?;
        Ok(Self { path, database, acknowledged: Mutex::new(acknowledged) })
    }

    /// A view of everything as it is now; later commits don't change it.
    pub(crate) fn read(&self) -> Result<Snapshot> {
        let transaction = self.database.begin_read().map_err(storage(&self.path))?;
        Snapshot::new(&self.path, &transaction)
    }

    /// Runs `change` in a transaction and returns when it is durable, with the sequence number of the last commit then. Nothing is written if
    /// `change` fails or changes nothing.
    ///
    /// Log entries up to and including `contained`, which every view holds on disk, are dropped on the way.
    pub(crate) fn write<T>(
        &self,
        contained: u64,
        change: impl FnOnce(&mut Change<'_>) -> Result<T>,
    ) -> Result<(T, u64)> {
        let mut transaction = self.database.begin_write().map_err(storage(&self.path))?;
        transaction.set_two_phase_commit(true);
        let mut tables = Change::new(&self.path, &transaction)?;
        let outcome = change(&mut tables)?;
        let before = tables.sequence();
        let Some(sequence) = tables.finish(contained)? else {
            transaction.abort().map_err(storage(&self.path))?;
            return Ok((outcome, before));
        };
        transaction.commit().map_err(storage(&self.path))?;
        let mut acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        // The commit is durable whatever becomes of its witness, which only guards against damage.
        let _ = acknowledged.write(sequence);
        Ok((outcome, sequence))
    }
}

/// Whether a catalog may be started here: nothing is in the folder but, at most, a catalog that was being started.
fn may_start(folder: &Path) -> Result<bool> {
    let entries = fs::read_dir(folder).map_err(Error::io(folder))?;
    let names = entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>();
    let names = names.map_err(Error::io(folder))?;
    if names.iter().all(|name| name == Catalog::FILE) {
        return Ok(true);
    }
    if names.iter().any(|name| name == Catalog::FILE) {
        return Ok(false);
    }
    let what = format!(
        "{} is not empty and holds no {}: name a new or empty folder, or restore the gallery from a backup",
        folder.display(),
        Catalog::FILE
    );
    Err(Error::argument("gallery", what))
}

fn has_no_tables(path: &Path, database: &Database) -> Result<bool> {
    let transaction = database.begin_read().map_err(storage(path))?;
    let mut tables = transaction.list_tables().map_err(storage(path))?;
    Ok(tables.next().is_none())
}

fn start(path: &Path, database: &Database, model: &str) -> Result<()> {
    let mut transaction = database.begin_write().map_err(storage(path))?;
    transaction.set_two_phase_commit(true);
    let mut meta = transaction.open_table(META).map_err(storage(path))?;
    let state = record::encode_state(STATE_KEY, State { sequence: 0, next_face: 1 });
    let rows = [
        (FORMAT_KEY, record::encode_number(FORMAT_KEY, FORMAT)),
        (MODEL_KEY, record::encode_text(MODEL_KEY, model)),
        (STATE_KEY, state),
    ];
    for (key, value) in &rows {
        meta.insert(key, value.as_slice()).map_err(storage(path))?;
    }
    drop(meta);
    Change::new(path, &transaction)?;
    transaction.commit().map_err(storage(path))
}

/// Whether this release, with this model, may use the catalog; its sequence number if so.
fn check(folder: &Path, path: &Path, database: &Database, model: &str) -> Result<u64> {
    let transaction = database.begin_read().map_err(storage(path))?;
    let tables = transaction.list_tables().map_err(storage(path))?;
    if !tables.into_iter().any(|table| table.name() == META.name()) {
        return Err(Error::corrupt(path, "this database is not a catalog"));
    }
    let meta = transaction.open_table(META).map_err(storage(path))?;
    let row = |key: &str| match meta.get(key).map_err(storage(path))? {
        Some(value) => Ok(value),
        None => Err(Error::corrupt(path, format!("the row {key} is missing"))),
    };
    let damage = |what| Error::corrupt(path, what);
    let found = record::decode_number(FORMAT_KEY, row(FORMAT_KEY)?.value()).map_err(damage)?;
    if found != FORMAT {
        return Err(Error::Version { path: path.to_owned(), found, known: FORMAT });
    }
    let found = record::decode_text(MODEL_KEY, row(MODEL_KEY)?.value()).map_err(damage)?;
    if found != model {
        return Err(Error::OtherModel { path: folder.to_owned(), expected: model.to_owned(), found });
    }
    Ok(record::decode_state(STATE_KEY, row(STATE_KEY)?.value()).map_err(damage)?.sequence)
}

fn open_error(path: &Path, error: DatabaseError) -> Error {
    match error {
        DatabaseError::DatabaseAlreadyOpen => Error::Locked { path: path.parent().unwrap_or(path).to_owned() },
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
            Error::corrupt(path, error.to_string())
        }
        other => storage(path)(other),
    }
}

/// For `map_err`: redb's many errors as ours, with the path.
pub(super) fn storage<E: Into<redb::Error>>(path: &Path) -> impl FnOnce(E) -> Error + '_ {
    move |error| match error.into() {
        redb::Error::Io(source) => Error::Io { path: path.to_owned(), source },
        // redb goes read-only after a failed write, for what is on disk is unknown until it is opened again.
        error @ (redb::Error::PreviousIo | redb::Error::LockPoisoned(_) | redb::Error::ValueTooLarge(_)) => {
            Error::Io { path: path.to_owned(), source: io::Error::other(error) }
        }
        error => Error::corrupt(path, error.to_string()),
    }
}
