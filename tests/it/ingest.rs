//! Bulk runs from outside: what is stored, what is listed, and what a second run finds to do.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;
use vultus::catalog::FaceId;
use vultus::detect::Detect;
use vultus::face::QualityLimits;
use vultus::ingest::{self, MetadataTable, Observer, Options, PersonFrom, Progress};
use vultus::model::double::ColorHash;
use vultus::{Bounds, Error, Face, Gallery, Landmarks, Photo, Recognizer, Result};

/// A small photo of its own, different for every number.
fn photo(number: u32) -> Vec<u8> {
    let [_, red, green, blue] = (number * 7919 + 5000).to_be_bytes();
    let pixels = (0..64).flat_map(|_| [red, green, blue]).collect();
    Photo::from_rgb(8, 8, pixels).unwrap().to_jpeg(95).unwrap()
}

fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn shard(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gallery(folder: &TempDir) -> Gallery {
    Gallery::open(&folder.path().join("gallery"), Recognizer::double()).unwrap()
}

fn options(paths: &[PathBuf]) -> Options {
    Options { paths: paths.to_vec(), batch_faces: 4, threads: 2, ..Options::default() }
}

fn run(gallery: &Gallery, options: &Options) -> Result<Progress> {
    ingest::run(gallery, options, &AtomicBool::new(false), &())
}

/// Everything stored, by path.
fn stored(gallery: &Gallery) -> Vec<(String, Option<String>)> {
    let faces = gallery.faces(None, FaceId(0), usize::MAX).unwrap();
    let path = |face: &vultus::catalog::FaceRecord| gallery.photo(&face.photo).unwrap().unwrap().path;
    let mut stored: Vec<_> = faces.iter().map(|face| (path(face), face.person.clone())).collect();
    stored.sort();
    stored
}

#[test]
fn folders_shards_and_single_photos_are_stored_once_and_a_second_run_adds_nothing() {
    let folder = TempDir::new().unwrap();
    let photos = folder.path().join("photos");
    write(&photos, "ana/1.jpg", photo(1));
    write(&photos, "ana/same as 1.jpg", photo(1));
    write(&photos, "ben/2.JPG", photo(2));
    write(&photos, "notes.txt", "no photo");
    let members = [("eva/3.jpg", photo(3)), ("eva/list.csv", b"no photo".to_vec()), ("4.jpg", photo(4))];
    write(folder.path(), "shard.tar", shard(&members));
    write(folder.path(), "scan", photo(5));
    let paths = ["photos", "shard.tar", "scan"].map(|name| folder.path().join(name));
    let options = Options { person_from_folder: PersonFrom::Folder, ..options(&paths) };
    let gallery = gallery(&folder);

    let first = run(&gallery, &options).unwrap();
    assert_eq!((first.photos, first.added, first.known, first.others), (6, 5, 1, 2));
    assert_eq!((first.faces, first.photos_total, first.stopped), (5, Some(6), false));
    let people: Vec<_> = stored(&gallery).into_iter().map(|(_, person)| person).collect();
    let root = folder.path().file_name().unwrap().to_str().unwrap();
    let expected = [Some("ana"), Some("ben"), Some(root), None, Some("eva")];
    assert_eq!(people, expected.map(|name| name.map(str::to_owned)));

    let again = run(&gallery, &options).unwrap();
    assert_eq!((again.photos, again.added, again.known, again.faces), (6, 0, 6, 0));
    assert_eq!(gallery.stats().unwrap().faces, 5);
}

/// Stops the run after a commit, and keeps what it heard.
#[derive(Default)]
struct Stopper {
    stop: AtomicBool,
    heard: RefCell<Vec<Progress>>,
}

impl Observer for Stopper {
    fn progress(&self, progress: &Progress) {
        self.heard.borrow_mut().push(progress.clone());
        if progress.added >= 8 {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_stopped_run_keeps_what_was_committed_and_the_next_goes_on() {
    let folder = TempDir::new().unwrap();
    (0..200).for_each(|number| write(&folder.path().join("photos"), &format!("{number:03}.jpg"), photo(number)));
    let (gallery, options) = (gallery(&folder), options(&[folder.path().join("photos")]));
    let stopper = Stopper::default();

    let first = ingest::run(&gallery, &options, &stopper.stop, &stopper).unwrap();
    assert!(first.stopped && first.added >= 8 && first.added < 200, "{first:?}");
    assert_eq!(stopper.heard.borrow().last(), Some(&first));
    assert_eq!(gallery.stats().unwrap().faces, first.added);

    let second = run(&gallery, &options).unwrap();
    assert_eq!((second.known, second.added, second.stopped), (first.added, 200 - first.added, false));
    assert_eq!(gallery.stats().unwrap().faces, 200);
}

/// Reads the dead letters at the moment when it hears of one.
struct LetterReader(PathBuf, RefCell<Vec<Value>>);

impl Observer for LetterReader {
    fn unreadable(&self, path: &str, reason: &str) {
        let letters = fs::read_to_string(&self.0).unwrap();
        let last: Value = serde_json::from_str(letters.lines().last().unwrap()).unwrap();
        assert_eq!(last, json!({ "path": path, "reason": reason }));
        self.1.borrow_mut().push(last);
    }
}

#[test]
fn what_cannot_be_read_is_listed_as_it_comes_and_the_run_goes_on() {
    let folder = TempDir::new().unwrap();
    let photos = folder.path().join("photos");
    write(&photos, "0 empty.jpg", "");
    write(&photos, "1 text.jpg", "I am not a photo");
    write(&photos, "2 good.jpg", photo(1));
    write(&photos, "3 half.jpg", &photo(2)[..300]);
    write(&photos, "4 broken.tar", [9; 3000]);
    write(&photos, "5 good.jpg", photo(3));
    let letters = folder.path().join("letters.jsonl");
    let options = Options { dead_letters: Some(letters.clone()), ..options(&[photos]) };
    let reader = LetterReader(letters.clone(), RefCell::default());

    let progress = ingest::run(&gallery(&folder), &options, &AtomicBool::new(false), &reader).unwrap();
    assert_eq!((progress.added, progress.unreadable, progress.photos), (2, 4, 6));
    let mut listed: Vec<String> =
        reader.1.borrow().iter().map(|letter| letter["path"].as_str().unwrap().to_owned()).collect();
    listed.sort();
    let names: Vec<_> = listed.iter().map(|path| Path::new(path).file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["0 empty.jpg", "1 text.jpg", "3 half.jpg", "4 broken.tar"]);
    assert_eq!(fs::read_to_string(letters).unwrap().lines().count(), 4);
}

#[test]
fn metadata_reaches_its_photo_by_path_and_the_rest_have_none() {
    let folder = TempDir::new().unwrap();
    write(folder.path(), "photos/a/1.jpg", photo(1));
    write(folder.path(), "photos/a/2.jpg", photo(2));
    write(folder.path(), "shard.tar", shard(&[("a/1.jpg", photo(3)), ("a/9.jpg", photo(4))]));
    write(folder.path(), "rows.csv", "path,album,year\na/1.jpg,Sea,2019\na/9.jpg,Land,\n");
    let metadata = MetadataTable::read(&folder.path().join("rows.csv")).unwrap();
    let paths = ["photos", "shard.tar"].map(|name| folder.path().join(name));
    let gallery = gallery(&folder);
    let progress = run(&gallery, &Options { metadata, ..options(&paths) }).unwrap();
    assert_eq!((progress.added, progress.described), (4, 3));

    let metadata_of =
        |bytes: Vec<u8>| Value::from(gallery.photo(&vultus::catalog::PhotoHash::of(&bytes)).unwrap().unwrap().metadata);
    assert_eq!(metadata_of(photo(1)), json!({ "album": "Sea", "year": 2019 }));
    assert_eq!(metadata_of(photo(2)), json!({}));
    assert_eq!(metadata_of(photo(4)), json!({ "album": "Land" }));
}

/// Finds `(width, height)` faces: a large one in the middle and one in a corner; behaves badly when told to.
struct Trick;

impl Detect for Trick {
    fn detect(&self, photo: &Photo) -> Result<Vec<Face>> {
        match photo.width() {
            13 => panic!("thirteen"),
            17 => Err(Error::Photo { what: "the detector is broken".into() }),
            _ => {
                let face = |x, y, side| Face {
                    bounds: Bounds { x, y, width: side, height: side },
                    landmarks: Landmarks([[x, y]; 5]),
                    confidence: 1.0,
                };
                Ok(vec![face(0.0, 0.0, 3.0), face(2.0, 2.0, 4.0)])
            }
        }
    }

    fn name(&self) -> &str {
        "trick"
    }
}

fn trick_gallery(folder: &TempDir) -> Gallery {
    let recognizer = Recognizer::new(Arc::new(Trick), Arc::new(ColorHash::new("color-hash")));
    Gallery::open(&folder.path().join("gallery"), recognizer.with_limits(QualityLimits::NONE)).unwrap()
}

fn wide(width: u32) -> Vec<u8> {
    Photo::from_rgb(width, 8, vec![90; width as usize * 24]).unwrap().to_jpeg(90).unwrap()
}

#[test]
fn bystanders_are_stored_without_the_name_of_the_folder() {
    let folder = TempDir::new().unwrap();
    write(folder.path(), "ana/1.jpg", photo(1));
    let gallery = trick_gallery(&folder);
    let options = Options { person_from_folder: PersonFrom::Folder, ..options(&[folder.path().join("ana")]) };
    assert_eq!(run(&gallery, &options).unwrap().faces, 2);
    let faces = gallery.faces(None, FaceId(0), 10).unwrap();
    let people: Vec<_> = faces.iter().map(|face| (face.face.bounds.width, face.person.as_deref())).collect();
    assert_eq!(people, [(3.0, None), (4.0, Some("ana"))]);
}

#[test]
fn one_photo_that_trips_a_fault_of_ours_does_not_end_the_run() {
    let folder = TempDir::new().unwrap();
    [12, 13, 14]
        .into_iter()
        .for_each(|width| write(&folder.path().join("photos"), &format!("{width}.jpg"), wide(width)));
    let progress = run(&trick_gallery(&folder), &options(&[folder.path().join("photos")])).unwrap();
    assert_eq!((progress.added, progress.unreadable), (2, 1));
}

#[test]
fn a_recognizer_that_fails_ends_the_run_with_its_error() {
    let folder = TempDir::new().unwrap();
    write(folder.path(), "photos/0.jpg", wide(17));
    (20..120).for_each(|width| write(&folder.path().join("photos"), &format!("{width}.jpg"), wide(width)));
    let error = run(&trick_gallery(&folder), &options(&[folder.path().join("photos")])).unwrap_err();
    assert!(error.to_string().contains("the detector is broken"), "{error}");
}

#[test]
fn a_path_that_does_not_exist_is_an_error_before_anything_is_done() {
    let folder = TempDir::new().unwrap();
    write(folder.path(), "photos/1.jpg", photo(1));
    let gallery = gallery(&folder);
    let paths = ["photos", "fotos"].map(|name| folder.path().join(name));
    let error = run(&gallery, &options(&paths)).unwrap_err();
    assert!(error.to_string().contains("fotos"), "{error}");
    assert_eq!(gallery.stats().unwrap().photos, 0);
}

#[test]
fn photos_without_faces_are_remembered_too() {
    let folder = TempDir::new().unwrap();
    let black = Photo::from_rgb(8, 8, vec![0; 192]).unwrap().to_jpeg(90).unwrap();
    write(folder.path(), "photos/black.jpg", black);
    let (gallery, options) = (gallery(&folder), options(&[folder.path().join("photos")]));
    let first = run(&gallery, &options).unwrap();
    assert_eq!((first.added, first.faces, first.without_faces), (1, 0, 1));
    assert_eq!(run(&gallery, &options).unwrap().known, 1);
}
