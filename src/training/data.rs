//! The labelled crops of a training run: folders or tar shards with one folder a person, kept encoded in memory, and decoded as far as there is
//! room for that.
//!
//! A crop is a square photo on the usual five-point template, as [`Crop::from_aligned`] takes it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::photo::{Limits, shard::read_shard};
use crate::{Crop, Error, Photo, Result};

/// One person of a data set.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The folder's name.
    pub name: String,
    /// The collection that it comes from: two people of one source are surely different.
    pub source: String,
    /// Indices of the crops.
    pub crops: Vec<usize>,
}

/// Labelled crops.
#[derive(Debug, Default)]
pub struct LabelledCrops {
    identities: Vec<Identity>,
    encoded: Vec<Encoded>,
    /// Bytes that crops may still be decoded to, to be kept.
    room: AtomicUsize,
}

/// A crop as it was read.
#[derive(Debug)]
struct Encoded {
    /// File or member, without the person's folder.
    name: String,
    bytes: Vec<u8>,
    decoded: OnceLock<Photo>,
}

impl LabelledCrops {
    /// Reads shards (`IDENTITY/NAME.webp` inside) and folders (one folder a person).
    ///
    /// The first `source_letters` letters of a person's name say which collection they are from; 0 means that all are from one.
    ///
    /// # Errors
    /// `Io` and `Corrupt` with the path; `Argument` when there are no two people.
    pub fn read(paths: &[PathBuf], source_letters: usize) -> Result<Self> {
        let mut people: BTreeMap<String, Vec<Encoded>> = BTreeMap::new();
        for path in paths {
            read(path, &mut people)?;
        }
        let mut crops = Self::default();
        for (name, encoded) in people {
            let source = name.chars().take(source_letters).collect();
            let first = crops.encoded.len();
            crops.encoded.extend(encoded);
            crops.identities.push(Identity { name, source, crops: (first..crops.encoded.len()).collect() });
        }
        if crops.identities.len() < 2 {
            let what = format!("expected crops of at least two people, found {}", crops.identities.len());
            return Err(Error::argument("data", what));
        }
        Ok(crops)
    }

    /// Keeps crops once they were decoded, up to this many bytes in all: a run comes back to each of them.
    #[must_use]
    pub fn keeping_decoded(self, bytes: usize) -> Self {
        Self { room: AtomicUsize::new(bytes), ..self }
    }

    /// The people, by name.
    pub fn identities(&self) -> &[Identity] {
        &self.identities
    }

    /// Crops in all.
    pub fn count(&self) -> usize {
        self.encoded.len()
    }

    /// Decodes one crop.
    ///
    /// # Errors
    /// `Photo` with the person's and the file's name when the bytes can't be read.
    pub fn photo(&self, index: usize) -> Result<Cow<'_, Photo>> {
        let Encoded { name, bytes, decoded } = &self.encoded[index];
        if let Some(photo) = decoded.get() {
            return Ok(Cow::Borrowed(photo));
        }
        let photo = Photo::decode(bytes, &Limits::default()).map_err(|error| {
            let person = self.identities.iter().find(|i| i.crops.contains(&index)).map_or("?", |i| &i.name);
            Error::Photo { what: format!("crop {person}/{name}: {error}") }
        })?;
        let size = photo.pixels().len();
        match self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(size)) {
            Ok(_) => Ok(Cow::Borrowed(decoded.get_or_init(|| photo))),
            Err(_) => Ok(Cow::Owned(photo)),
        }
    }

    /// The crop as it is embedded, without augmentation.
    ///
    /// # Errors
    /// As [`photo`](Self::photo).
    pub fn crop(&self, index: usize) -> Result<Crop> {
        self.photo(index).map(|photo| Crop::from_aligned(&photo))
    }
}

fn read(path: &Path, people: &mut BTreeMap<String, Vec<Encoded>>) -> Result<()> {
    read_shard(path, |mut member| {
        let name = member.name().to_owned();
        let mut parts = name.rsplit('/');
        if let (Some(file), Some(person)) = (parts.next(), parts.next()) {
            let crop = Encoded { name: file.to_owned(), bytes: member.read()?, decoded: OnceLock::new() };
            people.entry(person.to_owned()).or_default().push(crop);
        }
        Ok(ControlFlow::Continue(()))
    })
}
