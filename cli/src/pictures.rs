//! Pictures of stored faces. A gallery holds no pixels, so they are cut again from the photos, where these still are.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use vultus::catalog::{FaceId, FaceRecord, PhotoHash};
use vultus::face::Alignment;
use vultus::photo::{Limits, shard::read_shard};
use vultus::{Bounds, Face, Gallery, Photo, Result};

/// How much of what is around a face is shown, in sides of its bounds.
const SHOWN_SIDES: f32 = 1.3;
const JPEG_QUALITY: u8 = 82;

/// A square JPEG for each of `faces` whose photo is still where it was ingested from, unchanged.
///
/// # Errors
/// Only of the gallery; photos that can't be read are left out.
pub(crate) fn of_faces(gallery: &Gallery, faces: &[FaceId]) -> Result<HashMap<FaceId, Vec<u8>>> {
    let mut wanted: HashMap<PhotoHash, Vec<FaceRecord>> = HashMap::new();
    for id in faces {
        let record = gallery.face(*id)?;
        wanted.entry(record.photo).or_default().push(record);
    }
    let mut pictures = HashMap::new();
    let mut members: BTreeMap<PathBuf, HashMap<String, PhotoHash>> = BTreeMap::new();
    for hash in wanted.keys() {
        let Some(photo) = gallery.photo(hash)? else { continue };
        if let Ok(bytes) = vultus::ingest::read_file(Path::new(&photo.path)) {
            cut(&bytes, hash, &wanted, &mut pictures);
        } else if let Some((shard, member)) = photo.path.split_once('!') {
            // A `!` may also be in the folder's name; then the picture is missing, and nothing worse.
            members.entry(shard.into()).or_default().insert(member.to_owned(), *hash);
        }
    }
    for (shard, mut members) in members {
        // A shard that is gone or broken has given what it has.
        let _ = read_shard(&shard, |mut member| {
            if let Some(hash) = members.remove(member.name()) {
                cut(&member.read()?, &hash, &wanted, &mut pictures);
            }
            Ok(if members.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        });
    }
    Ok(pictures)
}

/// Cuts all wanted faces of one photo, if these bytes are that photo.
fn cut(
    bytes: &[u8],
    hash: &PhotoHash,
    wanted: &HashMap<PhotoHash, Vec<FaceRecord>>,
    pictures: &mut HashMap<FaceId, Vec<u8>>,
) {
    if PhotoHash::of(bytes) != *hash {
        return;
    }
    let Ok(photo) = Photo::decode(bytes, &Limits::default()) else { return };
    for record in wanted.get(hash).into_iter().flatten() {
        let face = Face { bounds: surroundings(&record.face.bounds), ..record.face };
        if let Ok(jpeg) = Alignment::Tight.crop(&photo, &face).to_photo().and_then(|crop| crop.to_jpeg(JPEG_QUALITY)) {
            pictures.insert(record.id, jpeg);
        }
    }
}

/// A square around a face, with some of what is around it.
fn surroundings(bounds: &Bounds) -> Bounds {
    let side = bounds.width.max(bounds.height) * SHOWN_SIDES;
    let [x, y] = bounds.center();
    Bounds { x: x - side / 2.0, y: y - side / 2.0, width: side, height: side }
}
