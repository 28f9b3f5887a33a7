//! Shards of photos that show one person each → one embedding a photo: the face nearest to the photo's middle.
//!
//! Every face that is found is embedded, whatever its quality: a protocol counts all photos. Memory holds one batch of photos
//! at a time.

use std::ops::ControlFlow;
use std::path::Path;

use rayon::prelude::*;

use crate::photo::Limits;
use crate::photo::shard::read_shard;
use crate::recognizer::FoundFace;
use crate::{Crop, Embedding, Photo, Recognizer, Result};

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

/// Embeds the photos of `shards`, tar files or folders, whose name (file name without folder and extension) is wanted, in order.
///
/// # Errors
/// A shard that can't be read, and failures of the computation itself. A photo that can't be read is no error.
pub fn embed_shards(
    recognizer: &Recognizer,
    shards: &[impl AsRef<Path>],
    photos: Photos,
    wanted: impl Fn(&str) -> bool,
    mut progress: impl FnMut(EmbedProgress),
) -> Result<Vec<LabelledFace>> {
    let mut faces: Vec<LabelledFace> = Vec::new();
    let mut found = 0;
    let mut finish = |batch: &mut Vec<(String, Result<Vec<u8>>)>| -> Result<()> {
        let done = embed(recognizer, photos, std::mem::take(batch))?;
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

fn embed(recognizer: &Recognizer, kind: Photos, photos: Vec<(String, Result<Vec<u8>>)>) -> Result<Vec<LabelledFace>> {
    let find = |(name, bytes): (String, Result<Vec<u8>>)| -> Result<_> {
        let photo = match bytes.and_then(|bytes| Photo::decode(&bytes, &Limits::default())) {
            Ok(photo) => photo,
            Err(error) => return Ok((name, Err(Missing::Photo(error.to_string())))),
        };
        let crop = match kind {
            Photos::Whole => in_the_middle(&photo, recognizer.find(&photo)?).map(|found| found.crop),
            Photos::Aligned => Some(Crop::from_aligned(&photo)),
        };
        Ok((name, crop.ok_or(Missing::Face)))
    };
    let found = photos.into_par_iter().map(find).collect::<Result<Vec<_>>>()?;
    let crops: Vec<_> = found.iter().filter_map(|(_, face)| face.as_ref().ok().cloned()).collect();
    let mut embeddings = recognizer.embed(&crops)?.into_iter();
    let label = |(name, face): (String, Result<Crop, Missing>)| LabelledFace {
        photo: file_stem(&name).to_owned(),
        person: folder(&name).to_owned(),
        outcome: face.map(|_| embeddings.next().expect("one embedding a crop")),
    };
    Ok(found.into_iter().map(label).collect())
}

/// The face whose middle is nearest to the photo's: whom a portrait shows, when others stand behind.
fn in_the_middle(photo: &Photo, faces: Vec<FoundFace>) -> Option<FoundFace> {
    let middle = [photo.width() as f32 / 2.0, photo.height() as f32 / 2.0];
    let off = |found: &FoundFace| {
        let [x, y] = found.face.bounds.center();
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
