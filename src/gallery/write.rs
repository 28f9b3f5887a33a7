//! ingest, forget and naming: each is one durable transaction of the catalog, and then the views follow.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Gallery, NewFace, NewPhoto, read};
use crate::catalog::filters::{FilterDocument, validate_metadata};
use crate::catalog::{Change, FaceId, FaceRecord, Metadata, PhotoHash, PhotoRecord};
use crate::photo::Limits;
use crate::{Error, Photo, Result};

/// What became of one photo of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Added {
    /// It was stored, with these faces (maybe none).
    New(Vec<FaceId>),
    /// Its bytes were there already; nothing was changed.
    Known(Vec<FaceId>),
}

/// What to remove.
#[derive(Clone, Debug)]
pub enum Forget {
    /// One face.
    Face(FaceId),
    /// A photo and its faces.
    Photo(PhotoHash),
    /// Every face of a person; photos left without a face and a refusal go too.
    Person(String),
}

impl Gallery {
    /// Commits a batch; returns when it is durable. All of it or nothing.
    ///
    /// A photo whose bytes are known changes nothing, also when it stands in the batch twice.
    ///
    /// # Errors
    /// `Argument` for metadata that is not flat, an empty name, or texts that are too long; `Io` and friends.
    pub fn add(&self, photos: &[NewPhoto]) -> Result<Vec<Added>> {
        photos.iter().try_for_each(check)?;
        let ingested_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let detector = self.recognizer.detector_name();
        self.write(|change| photos.iter().map(|photo| add_photo(change, photo, detector, ingested_ms)).collect())
    }

    /// Decodes, recognizes and commits one photo, given as its file's bytes. `person` names its [`subject`](super::subject).
    ///
    /// ```
    /// # use vultus::{Gallery, Recognizer, catalog::Metadata, gallery::Added};
    /// # let folder = tempfile::tempdir()?;
    /// # let mut png = std::io::Cursor::new(Vec::new());
    /// # image::RgbImage::from_pixel(120, 120, image::Rgb([200, 90, 40])).write_to(&mut png, image::ImageFormat::Png)?;
    /// # let png = png.into_inner();
    /// let gallery = Gallery::open(folder.path(), Recognizer::double())?;
    /// let Added::New(faces) = gallery.ingest(&png, "ana.png", Some("ana"), Metadata::new())? else { panic!("it is new") };
    /// assert_eq!(gallery.face(faces[0])?.person.as_deref(), Some("ana"));
    /// assert_eq!(gallery.ingest(&png, "again.png", None, Metadata::new())?, Added::Known(faces));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `Photo` when the bytes can't be read, and those of [`add`](Self::add).
    pub fn ingest(&self, bytes: &[u8], path: &str, person: Option<&str>, metadata: Metadata) -> Result<Added> {
        let hash = PhotoHash::of(bytes);
        if let Some(known) = self.photo(&hash)? {
            return Ok(Added::Known(known.faces));
        }
        let photo = Photo::decode(bytes, &Limits::default()).map_err(|error| match error {
            Error::Photo { what } => Error::Photo { what: format!("{path}: {what}") },
            other => other,
        })?;
        let (width, height) = (photo.width(), photo.height());
        let new =
            NewPhoto { hash, path: path.to_owned(), width, height, metadata, faces: Vec::new(), refused: Vec::new() };
        let added = self.add(&[new.with_faces(self.recognizer.recognize(&photo)?, person)])?;
        added.into_iter().next().ok_or_else(|| Error::argument("photo", "was added without an answer"))
    }

    /// Removes faces; returns how many when that is durable. They are hidden from every answer at once.
    ///
    /// A photo stays known when single faces of it are forgotten, so that ingesting it again does not bring them back.
    ///
    /// ```
    /// # use vultus::{Gallery, Recognizer, catalog::Metadata, gallery::Forget};
    /// # let folder = tempfile::tempdir()?;
    /// # let mut png = std::io::Cursor::new(Vec::new());
    /// # image::RgbImage::from_pixel(120, 120, image::Rgb([200, 90, 40])).write_to(&mut png, image::ImageFormat::Png)?;
    /// # let png = png.into_inner();
    /// let gallery = Gallery::open(folder.path(), Recognizer::double())?;
    /// gallery.ingest(&png, "ana.png", Some("ana"), Metadata::new())?;
    /// assert_eq!(gallery.forget(&Forget::Person("ana".into()))?, 1);
    /// assert!(gallery.people()?.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `NotFound`.
    pub fn forget(&self, what: &Forget) -> Result<u64> {
        self.write(|change| match what {
            Forget::Face(id) => {
                let face = stored_face(change, *id)?;
                remove_from_photo(change, &face)?;
                Ok(1)
            }
            Forget::Photo(hash) => {
                let photo = change.photo(hash)?;
                let photo = photo.ok_or_else(|| Error::NotFound { kind: "photo", name: hash.to_string() })?;
                for id in &photo.faces {
                    let face = stored_face(change, *id)?;
                    change.remove_face(&face)?;
                }
                change.remove_photo(hash)?;
                Ok(photo.faces.len() as u64)
            }
            Forget::Person(name) => {
                let faces = change.faces_of(name)?;
                if faces.is_empty() {
                    return Err(Error::NotFound { kind: "person", name: name.clone() });
                }
                for id in &faces {
                    let face = stored_face(change, *id)?;
                    let photo = remove_from_photo(change, &face)?;
                    if photo.is_some_and(|photo| photo.faces.is_empty() && photo.refused.is_empty()) {
                        change.remove_photo(&face.photo)?;
                    }
                }
                Ok(faces.len() as u64)
            }
        })
    }

    /// Says whose face this is, or (`None`) that nobody knows.
    ///
    /// # Errors
    /// `NotFound`; `Argument` for an empty name.
    pub fn name_face(&self, face: FaceId, person: Option<&str>) -> Result<()> {
        person.map_or(Ok(()), check_name)?;
        self.write(|change| {
            let record = stored_face(change, face)?;
            let photo = change.photo(&record.photo)?;
            if let Some(PhotoRecord { path, metadata, .. }) = &photo {
                FilterDocument { id: face, person, path, metadata }.validate()?;
            }
            if record.person.as_deref() == person {
                return Ok(());
            }
            change.name_face(record, person)
        })
    }

    /// One transaction; the views follow before this returns.
    fn write<T>(&self, change: impl FnOnce(&mut Change<'_>) -> Result<T>) -> Result<T> {
        let contained = self.index.latest().sequence().min(read(&self.filters).kept());
        let (outcome, sequence) = self.catalog.write(contained, change)?;
        // The write is durable and is acknowledged even if a view fails to follow: the next answer that needs the view
        // tries again, and says what is wrong.
        if let Ok(now) = self.catalog.read() {
            let _ = self.index.write(|index| index.catch_up(&now));
            let _ = self.filters.write().unwrap_or_else(PoisonError::into_inner).catch_up(&now);
        }
        self.acknowledged.fetch_max(sequence, Ordering::Release);
        Ok(outcome)
    }
}

fn check(photo: &NewPhoto) -> Result<()> {
    let NewPhoto { path, metadata, .. } = photo;
    validate_metadata(metadata)?;
    for NewFace { person, .. } in &photo.faces {
        let person = person.as_deref();
        person.map_or(Ok(()), check_name)?;
        FilterDocument { id: FaceId(0), person, path, metadata }.validate()?;
    }
    Ok(())
}

fn check_name(name: &str) -> Result<()> {
    if name.trim().is_empty() {
        return Err(Error::argument("person", "a name must not be empty"));
    }
    Ok(())
}

fn add_photo(change: &mut Change<'_>, photo: &NewPhoto, detector: &str, ingested_ms: u64) -> Result<Added> {
    if let Some(known) = change.photo(&photo.hash)? {
        return Ok(Added::Known(known.faces));
    }
    let ids = change.new_ids(photo.faces.len());
    change.put_photo(&PhotoRecord {
        hash: photo.hash,
        path: photo.path.clone(),
        width: photo.width,
        height: photo.height,
        detector: detector.to_owned(),
        metadata: photo.metadata.clone(),
        ingested_ms,
        faces: ids.clone(),
        refused: photo.refused.iter().map(ToString::to_string).collect(),
    })?;
    for (id, new) in ids.iter().zip(&photo.faces) {
        let NewFace { face, quality, embedding, person } = new.clone();
        change.add_face(&FaceRecord { id: *id, photo: photo.hash, face, quality, embedding, person })?;
    }
    Ok(Added::New(ids))
}

fn stored_face(change: &Change<'_>, id: FaceId) -> Result<FaceRecord> {
    change.face(id)?.ok_or_else(|| Error::NotFound { kind: "face", name: id.to_string() })
}

/// Removes a face and takes it off its photo's list; returns the photo as it is now.
fn remove_from_photo(change: &mut Change<'_>, face: &FaceRecord) -> Result<Option<PhotoRecord>> {
    change.remove_face(face)?;
    let Some(mut photo) = change.photo(&face.photo)? else { return Ok(None) };
    photo.faces.retain(|id| *id != face.id);
    change.put_photo(&photo)?;
    Ok(Some(photo))
}
