//! Shards of photos that show one person each → one embedding a photo: the face nearest to the photo's middle.
//!
//! Every face that is found is embedded, whatever its quality: a protocol counts all photos. Memory holds one batch of photos
//! at a time.

use std::ops::ControlFlow;
use std::path::Path;

use rayon::prelude::*;

use crate::photo::Limits;
use crate::photo::shard::read_shard;
use crate::{Bounds, Crop, Embedding, Error, Photo, Recognizer, Result};

/// Photos that are decoded in parallel and embedded as one batch.
const BATCH: usize = 64;

/// A photo with the name of whom it shows.
#[derive(Clone, Debug)]
pub struct LabelledFace {
    /// The file's name in the shard, without folder and extension: `Ana_Diaz_0001`.
    pub photo: String,
    /// The folder's name: `Ana_Diaz`.
    pub person: String,
    /// The embedding of the face in the middle, or why there is none.
    pub outcome: Result<Embedding, Missing>,
}

impl LabelledFace {
    /// The embedding, if a face was found.
    pub fn embedding(&self) -> Option<&Embedding> {
        self.outcome.as_ref().ok()
    }
}

/// Why a photo has no embedding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No face was found.
    Face,
    /// The photo can't be read; the reason.
    Photo(String),
}

/// How far [`embed_shards`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmbedProgress {
    /// Photos dealt with.
    pub photos: usize,
    /// Of them, photos with an embedding.
    pub faces: usize,
}

/// What the photos are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Photos {
    /// Anything: the face is looked for, and the one nearest to the middle counts.
    #[default]
    Whole,
    /// Faces that were cut out and aligned by somebody else, as [`Crop::from_aligned`] takes them.
    Aligned,
}

/// What photos go through before they are looked at: to measure how a model copes with worse ones, as in Table 4 of Schroff et al. 2015.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Degradation {
    /// Compression to a JPEG of this quality, 1 to 100.
    Jpeg(u8),
    /// Scaling down until the face's box has at most this many pixels; photos whose face has fewer, or none, stay as they are.
    FacePixels(u32),
}

impl Degradation {
    fn apply(self, photo: &Photo, photos: Photos, recognizer: &Recognizer) -> Result<Option<Photo>> {
        match self {
            Self::Jpeg(quality) => Photo::decode(&photo.to_jpeg(quality)?, &Limits::default()).map(Some),
            Self::FacePixels(most) => {
                let area = match photos {
                    Photos::Aligned => Some(photo.width() as f32 * photo.height() as f32),
                    Photos::Whole => in_the_middle(photo, recognizer.find(photo)?, |found| found.face.bounds)
                        .map(|found| found.face.bounds.width * found.face.bounds.height),
                };
                let Some(area) = area.filter(|area| *area > most as f32) else { return Ok(None) };
                let scale = (most as f32 / area).sqrt();
                let side = |side: u32| ((side as f32 * scale).round() as u32).max(1);
                Ok(Some(photo.resized(side(photo.width()), side(photo.height()))))
            }
        }
    }
}

/// How photos are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// What they are.
    pub photos: Photos,
    /// What they go through before.
    pub degradation: Option<Degradation>,
}

/// Embeds the photos of `shards`, tar files or folders, whose name (file name without folder and extension) is wanted, in order.
///
/// # Errors
/// A shard that can't be read, and failures of the computation itself. A photo that can't be read is no error.
pub fn embed_shards(
    recognizer: &Recognizer,
    shards: &[impl AsRef<Path>],
    look: Look,
    wanted: impl Fn(&str) -> bool,
    mut progress: impl FnMut(EmbedProgress),
) -> Result<Vec<LabelledFace>> {
    let mut faces: Vec<LabelledFace> = Vec::new();
    let mut found = 0;
    let mut finish = |batch: &mut Vec<(String, Result<Vec<u8>>)>| -> Result<()> {
        let done = embed(recognizer, look, std::mem::take(batch))?;
        found += done.iter().filter(|face| face.outcome.is_ok()).count();
        faces.extend(done);
        progress(EmbedProgress { photos: faces.len(), faces: found });
        Ok(())
    };
    let mut batch = Vec::new();
    for shard in shards {
        read_shard(shard.as_ref(), |mut member| {
            if wanted(file_stem(member.name())) {
                let bytes = member.read();
                batch.push((member.name().to_owned(), bytes));
            }
            if batch.len() == BATCH {
                finish(&mut batch)?;
            }
            Ok(ControlFlow::Continue(()))
        })?;
    }
    finish(&mut batch)?;
    Ok(faces)
}

fn embed(recognizer: &Recognizer, look: Look, photos: Vec<(String, Result<Vec<u8>>)>) -> Result<Vec<LabelledFace>> {
    let find = |(name, bytes): (String, Result<Vec<u8>>)| -> Result<_> {
        let photo = match bytes.and_then(|bytes| Photo::decode(&bytes, &Limits::default())) {
            Ok(photo) => photo,
            Err(error) => return Ok((name, Err(Missing::Photo(error.to_string())))),
        };
        let worse =
            look.degradation.map(|degradation| degradation.apply(&photo, look.photos, recognizer)).transpose()?;
        let photo = worse.flatten().unwrap_or(photo);
        let crop = match look.photos {
            Photos::Whole => {
                in_the_middle(&photo, recognizer.find(&photo)?, |found| found.face.bounds).map(|found| found.crop)
            }
            Photos::Aligned => Some(Crop::from_aligned(&photo)),
        };
        Ok((name, crop.ok_or(Missing::Face)))
    };
    let found = photos.into_par_iter().map(find).collect::<Result<Vec<_>>>()?;
    let crops: Vec<_> = found.iter().filter_map(|(_, face)| face.as_ref().ok().cloned()).collect();
    let mut embeddings = recognizer.embed(&crops)?.into_iter();
    let mut next = || embeddings.next().ok_or_else(|| Error::argument("embeddings", "fewer than crops"));
    let label = |(name, face): (String, Result<Crop, Missing>)| {
        let outcome = match face {
            Ok(_) => Ok(next()?),
            Err(missing) => Err(missing),
        };
        Ok(LabelledFace { photo: file_stem(&name).to_owned(), person: folder(&name).to_owned(), outcome })
    };
    found.into_iter().map(label).collect()
}

/// The face whose middle is nearest to the photo's: whom a portrait shows, when others stand behind.
pub fn in_the_middle<T>(photo: &Photo, faces: Vec<T>, bounds: impl Fn(&T) -> Bounds) -> Option<T> {
    let middle = [photo.width() as f32 / 2.0, photo.height() as f32 / 2.0];
    let off = |face: &T| {
        let [x, y] = bounds(face).center();
        (x - middle[0]).powi(2) + (y - middle[1]).powi(2)
    };
    faces.into_iter().min_by(|a, b| off(a).total_cmp(&off(b)))
}

/// `Ana/Ana_0001.jpg` → `Ana_0001`.
fn file_stem(member: &str) -> &str {
    let file = member.rsplit('/').next().unwrap_or(member);
    file.rsplit_once('.').map_or(file, |(stem, _)| stem)
}

/// `lfw/Ana/Ana_0001.jpg` → `Ana`; nothing for a file that is in no folder.
fn folder(member: &str) -> &str {
    member.rsplit('/').nth(1).unwrap_or("")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use super::*;

    #[test]
    fn a_photo_is_made_worse_as_far_as_it_was_asked_for() {
        let pixels: Vec<u8> = (0..200 * 100 * 3).map(|i| (i * 7 % 251) as u8).collect();
        let photo = Photo::from_rgb(200, 100, pixels).unwrap();
        let recognizer = Recognizer::double();
        let apply = |degradation: Degradation, photos| degradation.apply(&photo, photos, &recognizer).unwrap();
        let small = apply(Degradation::FacePixels(5000), Photos::Aligned).unwrap();
        assert_eq!((small.width(), small.height()), (100, 50));
        assert!(apply(Degradation::FacePixels(20_000), Photos::Aligned).is_none(), "a smaller one stays as it is");
        let face =
            in_the_middle(&photo, recognizer.find(&photo).unwrap(), |found| found.face.bounds).unwrap().face.bounds;
        let most = (face.width * face.height / 4.0) as u32;
        let half = apply(Degradation::FacePixels(most), Photos::Whole).unwrap();
        assert_eq!((half.width(), half.height()), (100, 50), "a quarter of the face's pixels");
        let squeezed = apply(Degradation::Jpeg(10), Photos::Whole).unwrap();
        assert!((squeezed.width(), squeezed.height()) == (200, 100) && squeezed != photo);
        assert!(Degradation::Jpeg(0).apply(&photo, Photos::Whole, &recognizer).is_err());
    }
}
