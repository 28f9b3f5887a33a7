//! Reading records: one consistent moment of the catalog.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata};

use super::record::{self, Touch};
use super::store::{FACES, LOG, META, PEOPLE, PHOTOS, STATE_KEY, storage};
use super::{FaceId, FaceRecord, PhotoHash, PhotoRecord};
use crate::{Error, Result};

/// What a catalog counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub(crate) faces: u64,
    /// Faces with a name.
    pub(crate) named: u64,
    pub(crate) photos: u64,
}

/// The catalog at one moment.
pub(crate) struct Snapshot {
    path: PathBuf,
    sequence: u64,
    faces: ReadOnlyTable<u64, &'static [u8]>,
    photos: ReadOnlyTable<&'static [u8; 32], &'static [u8]>,
    people: ReadOnlyTable<(&'static str, u64), ()>,
    log: ReadOnlyTable<u64, &'static [u8]>,
}

impl Snapshot {
    pub(super) fn new(path: &Path, transaction: &ReadTransaction) -> Result<Self> {
        let meta = transaction.open_table(META).map_err(storage(path))?;
        Ok(Self {
            path: path.to_owned(),
            sequence: state_in(path, &meta)?.sequence,
            faces: transaction.open_table(FACES).map_err(storage(path))?,
            photos: transaction.open_table(PHOTOS).map_err(storage(path))?,
            people: transaction.open_table(PEOPLE).map_err(storage(path))?,
            log: transaction.open_table(LOG).map_err(storage(path))?,
        })
    }

    /// Counts commits.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// One face.
    pub(crate) fn face(&self, id: FaceId) -> Result<Option<FaceRecord>> {
        face_in(&self.path, &self.faces, id)
    }

    /// All faces in ascending order of id, from the first at or above `from`.
    pub(crate) fn faces_from(&self, from: FaceId) -> Result<impl Iterator<Item = Result<FaceRecord>> + '_> {
        let range = self.faces.range(from.0..).map_err(storage(&self.path))?;
        Ok(range.map(|entry| {
            let (id, value) = entry.map_err(storage(&self.path))?;
            record::decode_face(FaceId(id.value()), value.value()).map_err(|what| Error::corrupt(&self.path, what))
        }))
    }

    /// One photo.
    pub(crate) fn photo(&self, hash: &PhotoHash) -> Result<Option<PhotoRecord>> {
        photo_in(&self.path, &self.photos, hash)
    }

    /// Every name, in order, and how many faces carry it.
    pub(crate) fn people(&self) -> Result<Vec<(String, u64)>> {
        let mut people: Vec<(String, u64)> = Vec::new();
        for entry in self.people.iter().map_err(storage(&self.path))? {
            let (key, _) = entry.map_err(storage(&self.path))?;
            let (name, _) = key.value();
            match people.last_mut() {
                Some((last, faces)) if last == name => *faces += 1,
                _ => people.push((name.to_owned(), 1)),
            }
        }
        Ok(people)
    }

    /// How many there are.
    pub(crate) fn counts(&self) -> Result<Counts> {
        Ok(Counts {
            faces: self.faces.len().map_err(storage(&self.path))?,
            named: self.people.len().map_err(storage(&self.path))?,
            photos: self.photos.len().map_err(storage(&self.path))?,
        })
    }

    /// The error of a view that needs more of the log than there is.
    pub(crate) fn log_too_short(&self) -> Error {
        Error::corrupt(&self.path, "the log has lost commits that a view lacks; open the gallery again")
    }

    /// An error about a face, found by somebody who read it.
    pub(crate) fn damage(&self, face: FaceId, what: &str) -> Error {
        Error::corrupt(&self.path, format!("face {face}: {what}"))
    }

    /// What became of the faces that commits after `sequence` touched; `None` when the log does not reach back that far.
    pub(crate) fn touched_since(&self, sequence: u64) -> Result<Option<BTreeMap<FaceId, Touch>>> {
        let mut touched = BTreeMap::new();
        if sequence > self.sequence {
            return Ok(None);
        }
        let mut expected = sequence + 1;
        for entry in self.log.range(expected..).map_err(storage(&self.path))? {
            let (key, value) = entry.map_err(storage(&self.path))?;
            if key.value() != expected {
                return Ok(None);
            }
            let one = record::decode_touched(key.value(), value.value());
            for (touch, face) in one.map_err(|what| Error::corrupt(&self.path, what))? {
                let known = touched.entry(face).or_insert(touch);
                *known = touch.max(*known);
            }
            expected += 1;
        }
        Ok((expected == self.sequence + 1).then_some(touched))
    }
}

pub(super) fn state_in(path: &Path, meta: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<record::State> {
    let row = meta.get(STATE_KEY).map_err(storage(path))?;
    let row = row.ok_or_else(|| Error::corrupt(path, "the row state is missing"))?;
    record::decode_state(STATE_KEY, row.value()).map_err(|what| Error::corrupt(path, what))
}

pub(super) fn face_in(
    path: &Path,
    faces: &impl ReadableTable<u64, &'static [u8]>,
    id: FaceId,
) -> Result<Option<FaceRecord>> {
    let value = faces.get(id.0).map_err(storage(path))?;
    let face = value.map(|value| record::decode_face(id, value.value()));
    face.transpose().map_err(|what| Error::corrupt(path, format!("face {id}: {what}")))
}

pub(super) fn photo_in(
    path: &Path,
    photos: &impl ReadableTable<&'static [u8; 32], &'static [u8]>,
    hash: &PhotoHash,
) -> Result<Option<PhotoRecord>> {
    let value = photos.get(&hash.0).map_err(storage(path))?;
    let photo = value.map(|value| record::decode_photo(*hash, value.value()));
    photo.transpose().map_err(|what| Error::corrupt(path, format!("photo {hash}: {what}")))
}
