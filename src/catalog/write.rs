//! Changing records: what may happen inside one transaction, keeping every table in step with the others.

use std::path::Path;

use redb::{ReadableTable, Table, WriteTransaction};

use super::read::{face_in, photo_in, state_in};
use super::record::{self, State, Touch};
use super::store::{FACES, LOG, META, PEOPLE, PHOTOS, STATE_KEY, storage};
use super::{FaceId, FaceRecord, PhotoHash, PhotoRecord};
use crate::Result;

/// One transaction in progress.
pub(crate) struct Change<'t> {
    path: &'t Path,
    meta: Table<'t, &'static str, &'static [u8]>,
    faces: Table<'t, u64, &'static [u8]>,
    photos: Table<'t, &'static [u8; 32], &'static [u8]>,
    people: Table<'t, (&'static str, u64), ()>,
    log: Table<'t, u64, &'static [u8]>,
    state: State,
    touched: Vec<(Touch, FaceId)>,
    changed: bool,
}

impl<'t> Change<'t> {
    pub(super) fn new(path: &'t Path, transaction: &'t WriteTransaction) -> Result<Self> {
        let meta = transaction.open_table(META).map_err(storage(path))?;
        Ok(Self {
            path,
            state: state_in(path, &meta)?,
            meta,
            faces: transaction.open_table(FACES).map_err(storage(path))?,
            photos: transaction.open_table(PHOTOS).map_err(storage(path))?,
            people: transaction.open_table(PEOPLE).map_err(storage(path))?,
            log: transaction.open_table(LOG).map_err(storage(path))?,
            touched: Vec::new(),
            changed: false,
        })
    }

    /// Of the last commit before this one.
    pub(super) fn sequence(&self) -> u64 {
        self.state.sequence
    }

    /// One face, as this transaction sees it.
    pub(crate) fn face(&self, id: FaceId) -> Result<Option<FaceRecord>> {
        face_in(self.path, &self.faces, id)
    }

    /// One photo, as this transaction sees it.
    pub(crate) fn photo(&self, hash: &PhotoHash) -> Result<Option<PhotoRecord>> {
        photo_in(self.path, &self.photos, hash)
    }

    /// The faces that carry a name, in ascending order.
    pub(crate) fn faces_of(&self, person: &str) -> Result<Vec<FaceId>> {
        let mut faces = Vec::new();
        for entry in self.people.range((person, 0)..=(person, u64::MAX)).map_err(storage(self.path))? {
            let (key, _) = entry.map_err(storage(self.path))?;
            faces.push(FaceId(key.value().1));
        }
        Ok(faces)
    }

    /// Ids for `count` new faces: ascending, never given before.
    pub(crate) fn new_ids(&mut self, count: usize) -> Vec<FaceId> {
        let from = self.state.next_face;
        self.state.next_face += count as u64;
        (from..self.state.next_face).map(FaceId).collect()
    }

    /// Stores a photo or replaces what is known of it.
    pub(crate) fn put_photo(&mut self, photo: &PhotoRecord) -> Result<()> {
        self.changed = true;
        let value = record::encode_photo(photo);
        self.photos.insert(&photo.hash.0, value.as_slice()).map_err(storage(self.path))?;
        Ok(())
    }

    /// Removes a photo. Its faces are the caller's business.
    pub(crate) fn remove_photo(&mut self, hash: &PhotoHash) -> Result<()> {
        self.changed = true;
        self.photos.remove(&hash.0).map_err(storage(self.path))?;
        Ok(())
    }

    /// Stores a new face.
    pub(crate) fn add_face(&mut self, face: &FaceRecord) -> Result<()> {
        self.put_face(face, Touch::Added)
    }

    /// Gives a face to somebody else, or to nobody.
    pub(crate) fn name_face(&mut self, mut face: FaceRecord, person: Option<&str>) -> Result<()> {
        if let Some(old) = &face.person {
            self.people.remove((old.as_str(), face.id.0)).map_err(storage(self.path))?;
        }
        face.person = person.map(str::to_owned);
        self.put_face(&face, Touch::Named)
    }

    /// Removes a face. The list in its photo is the caller's business.
    pub(crate) fn remove_face(&mut self, face: &FaceRecord) -> Result<()> {
        self.changed = true;
        self.touched.push((Touch::Removed, face.id));
        self.faces.remove(face.id.0).map_err(storage(self.path))?;
        if let Some(person) = &face.person {
            self.people.remove((person.as_str(), face.id.0)).map_err(storage(self.path))?;
        }
        Ok(())
    }

    fn put_face(&mut self, face: &FaceRecord, touch: Touch) -> Result<()> {
        self.changed = true;
        self.touched.push((touch, face.id));
        let value = record::encode_face(face);
        self.faces.insert(face.id.0, value.as_slice()).map_err(storage(self.path))?;
        if let Some(person) = &face.person {
            self.people.insert((person.as_str(), face.id.0), ()).map_err(storage(self.path))?;
        }
        Ok(())
    }

    /// Logs the change under the next sequence number, which is returned; `None` when nothing changed.
    pub(super) fn finish(mut self, contained: u64) -> Result<Option<u64>> {
        if !self.changed {
            return Ok(None);
        }
        self.state.sequence += 1;
        let sequence = self.state.sequence;
        let entry = record::encode_touched(sequence, &self.touched);
        self.log.insert(sequence, entry.as_slice()).map_err(storage(self.path))?;
        self.log.retain_in(..=contained, |_, _| false).map_err(storage(self.path))?;
        let state = record::encode_state(STATE_KEY, self.state);
        self.meta.insert(STATE_KEY, state.as_slice()).map_err(storage(self.path))?;
        Ok(Some(sequence))
    }
}
