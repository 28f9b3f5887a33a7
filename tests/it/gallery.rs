//! What a gallery answers: identify, verify, cluster, forget and names, against a plain map doing the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proptest::prelude::*;
use vultus::catalog::{FaceId, Filter, PhotoHash};
use vultus::clustering::Method;
use vultus::gallery::{Added, Forget, IdentifyOptions, NewFace, NewPhoto, Probe};
use vultus::{Bounds, Embedding, Error, Face, Gallery, Landmarks, Photo, Recognizer, Result, face::Quality};

/// An embedding in the plane of the first two axes: two of them are `4 sin²(difference / 2)` apart.
pub(crate) fn at_degrees(degrees: f32) -> Embedding {
    let mut values = [0.0; Embedding::DIMENSIONS];
    (values[0], values[1]) = (degrees.to_radians().cos(), degrees.to_radians().sin());
    Embedding::normalized(&values).unwrap()
}

/// A photo named `name` with faces at these angles, each of this person.
pub(crate) fn photo(name: &str, faces: &[(f32, Option<&str>)]) -> NewPhoto {
    let bounds = Bounds { x: 1.0, y: 2.0, width: 30.0, height: 40.0 };
    let face = Face { bounds, landmarks: Landmarks([[3.0, 4.0]; 5]), confidence: 0.99 };
    let quality = Quality { face_px: 30.0, sharpness: 50.0, yaw: 1.0, roll: 2.0, confidence: 0.99 };
    let new = |(degrees, person): &(f32, Option<&str>)| NewFace {
        face,
        quality,
        embedding: at_degrees(*degrees),
        person: person.map(str::to_owned),
    };
    NewPhoto {
        hash: PhotoHash::of(name.as_bytes()),
        path: name.to_owned(),
        width: 100,
        height: 80,
        metadata: [("album".to_owned(), name[..1].into())].into_iter().collect(),
        faces: faces.iter().map(new).collect(),
        refused: Vec::new(),
    }
}

pub(crate) fn open(folder: &Path) -> Result<Gallery> {
    Gallery::open(folder, Recognizer::double())
}

/// Everything that a gallery answers, as text: two galleries that print the same answer the same.
pub(crate) fn answers(gallery: &Gallery) -> Result<String> {
    let mut text = String::new();
    for record in gallery.faces(None, FaceId(0), usize::MAX)? {
        text += &format!("{record:?} {:?}\n", gallery.photo(&record.photo)?);
    }
    text += &format!("{:?}\n", gallery.people()?);
    for filter in [None, Some("album:a"), Some("NOT person:ana")] {
        for degrees in [0.0, 45.0, 91.0] {
            let filter = filter.map(|filter| filter.parse().unwrap());
            let options = IdentifyOptions { filter, ..IdentifyOptions::within(4.0) };
            let (faces, people) = gallery.nearest(&at_degrees(degrees), &options)?;
            let faces: Vec<_> = faces.iter().map(|near| (near.record.id, near.distance)).collect();
            text += &format!("{faces:?} {people:?}\n");
        }
    }
    Ok(text)
}

fn new_ids(added: &[Added]) -> Vec<u64> {
    let ids = added.iter().flat_map(|added| match added {
        Added::New(ids) => ids.clone(),
        Added::Known(_) => Vec::new(),
    });
    ids.map(|id| id.0).collect()
}

#[track_caller]
fn nearest_ids(gallery: &Gallery, degrees: f32, filter: Option<&str>) -> Vec<u64> {
    let filter = filter.map(|filter| filter.parse::<Filter>().unwrap());
    let options = IdentifyOptions { filter, ..IdentifyOptions::within(4.0) };
    let (faces, _) = gallery.nearest(&at_degrees(degrees), &options).unwrap();
    faces.iter().map(|near| near.record.id.0).collect()
}

#[test]
fn a_photo_whose_bytes_are_known_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let gallery = open(folder.path()).unwrap();
    let first = gallery.add(&[photo("a", &[(0.0, None), (9.0, None)]), photo("a", &[(5.0, None)])]).unwrap();
    assert_eq!(first, [Added::New(vec![FaceId(1), FaceId(2)]), Added::Known(vec![FaceId(1), FaceId(2)])]);
    let before = gallery.stats().unwrap();
    let again = gallery.add(&[photo("a", &[])]).unwrap();
    assert_eq!(again, [Added::Known(vec![FaceId(1), FaceId(2)])]);
    assert_eq!(gallery.stats().unwrap().sequence, before.sequence);
}

#[test]
fn the_nearest_faces_come_first_and_none_beyond_the_threshold() {
    let folder = tempfile::tempdir().unwrap();
    let gallery = open(folder.path()).unwrap();
    gallery.add(&[photo("a", &[(0.0, None), (30.0, None), (60.0, None), (170.0, None)])]).unwrap();
    assert_eq!(nearest_ids(&gallery, 28.0, None), [2, 1, 3, 4]);
    let within = at_degrees(28.0).distance(&at_degrees(60.0));
    let (faces, _) = gallery.nearest(&at_degrees(28.0), &IdentifyOptions::within(within + 1e-4)).unwrap();
    assert_eq!(faces.len(), 3);
    assert!((faces[2].distance - within).abs() < 1e-5);
}

#[test]
fn a_person_who_fills_the_nearest_faces_does_not_hide_the_next_person() {
    let folder = tempfile::tempdir().unwrap();
    let gallery = open(folder.path()).unwrap();
    let many: Vec<_> = (0..60).map(|step| (step as f32 / 10.0, Some("ana"))).collect();
    gallery
        .add(&[photo("a", &many), photo("b", &[(50.0, Some("ben")), (51.0, Some("ben")), (90.0, Some("cem"))])])
        .unwrap();
    let options = IdentifyOptions { k: 2, ..IdentifyOptions::within(1.0) };
    let (faces, people) = gallery.nearest(&at_degrees(0.0), &options).unwrap();
    assert_eq!(faces.iter().map(|near| near.record.id.0).collect::<Vec<_>>(), [1, 2]);
    let names: Vec<_> = people.iter().map(|found| (found.person.as_str(), found.face.0)).collect();
    assert_eq!(names, [("ana", 1), ("ben", 61)], "cem is beyond the threshold");
    assert!(people[0].far < people[1].far && people[1].far < 1.0);
}

#[test]
fn nobody_within_the_threshold_is_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let gallery = open(folder.path()).unwrap();
    gallery.add(&[photo("a", &[(0.0, Some("ana"))])]).unwrap();
    let (faces, people) = gallery.nearest(&at_degrees(90.0), &IdentifyOptions::within(1.0)).unwrap();
    assert!(faces.is_empty() && people.is_empty());
}

#[test]
fn a_filter_limits_who_is_found_and_sees_every_acknowledged_write() {
    let folder = tempfile::tempdir().unwrap();
    let gallery = open(folder.path()).unwrap();
    gallery.add(&[photo("a1", &[(0.0, Some("ana"))]), photo("b1", &[(1.0, Some("ben")), (2.0, None)])]).unwrap();
    assert_eq!(nearest_ids(&gallery, 0.0, Some("album:b")), [2, 3]);
    assert_eq!(nearest_ids(&gallery, 0.0, Some("album:b AND NOT person:ben")), [3]);
    gallery.name_face(FaceId(3), Some("ben")).unwrap();
    assert_eq!(nearest_ids(&gallery, 0.0, Some("album:b AND NOT person:ben")), [0; 0]);
    gallery.add(&[photo("b2", &[(3.0, Some("cem"))])]).unwrap();
    assert_eq!(nearest_ids(&gallery, 0.0, Some("album:b AND NOT person:ben")), [4]);
    let listed = gallery.faces(Some(&"album:b".parse().unwrap()), FaceId(3), 1).unwrap();
    assert_eq!(listed.iter().map(|face| face.id.0).collect::<Vec<_>>(), [3]);
}

#[test]
fn a_forgotten_face_is_never_returned_also_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let gallery = open(folder.path()).unwrap();
    let batch = [photo("a", &[(0.0, Some("ana")), (1.0, Some("ben"))]), photo("b", &[(2.0, Some("ana"))])];
    gallery.add(&batch).unwrap();
    gallery.flush().unwrap();
    assert_eq!(gallery.forget(&Forget::Face(FaceId(1))).unwrap(), 1);
    assert_eq!(nearest_ids(&gallery, 0.0, None), [2, 3]);
    assert_eq!(nearest_ids(&gallery, 0.0, Some("person:ana")), [3]);
    assert!(matches!(gallery.face(FaceId(1)), Err(Error::NotFound { kind: "face", .. })));
    drop(gallery);

    let gallery = open(folder.path()).unwrap();
    assert_eq!(nearest_ids(&gallery, 0.0, None), [2, 3]);
    assert_eq!(gallery.photo(&batch[0].hash).unwrap().unwrap().faces, [FaceId(2)]);
    let again = gallery.add(&batch[..1]).unwrap();
    assert_eq!(again, [Added::Known(vec![FaceId(2)])], "ingesting again must not bring it back");
}

#[test]
fn forgetting_a_person_takes_the_photos_that_showed_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let gallery = open(folder.path()).unwrap();
    let batch = [photo("a", &[(0.0, Some("ana")), (1.0, Some("ben"))]), photo("b", &[(2.0, Some("ana"))])];
    gallery.add(&batch).unwrap();
    assert_eq!(gallery.forget(&Forget::Person("ana".into())).unwrap(), 2);
    assert!(gallery.photo(&batch[0].hash).unwrap().is_some());
    assert!(gallery.photo(&batch[1].hash).unwrap().is_none());
    let people: Vec<_> = gallery.people().unwrap().into_iter().map(|person| (person.name, person.faces)).collect();
    assert_eq!(people, [("ben".to_owned(), 1)]);
    assert!(matches!(gallery.forget(&Forget::Person("ana".into())), Err(Error::NotFound { kind: "person", .. })));
}

#[test]
fn a_forgotten_photo_can_be_ingested_again_under_new_ids() {
    let folder = tempfile::tempdir().unwrap();
    let gallery = open(folder.path()).unwrap();
    let batch = [photo("a", &[(0.0, None)]), photo("b", &[(1.0, None)])];
    gallery.add(&batch).unwrap();
    assert_eq!(gallery.forget(&Forget::Photo(batch[1].hash)).unwrap(), 1);
    drop(gallery);
    let gallery = open(folder.path()).unwrap();
    assert_eq!(gallery.add(&batch).unwrap()[1], Added::New(vec![FaceId(3)]));
    let unknown = Forget::Photo(PhotoHash::of(b"never seen"));
    assert!(matches!(gallery.forget(&unknown), Err(Error::NotFound { kind: "photo", .. })));
}

#[test]
fn nothing_of_a_batch_with_a_mistake_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let gallery = open(folder.path()).unwrap();
    let mut nested = photo("b", &[(1.0, None)]);
    nested.metadata.insert("where".into(), serde_json::json!({ "city": "Oslo" }));
    for wrong in [nested, photo("c", &[(1.0, Some(" "))])] {
        let error = gallery.add(&[photo("a", &[(0.0, None)]), wrong]).unwrap_err();
        assert!(matches!(error, Error::Argument { .. }), "{error}");
    }
    assert_eq!(gallery.stats().unwrap().photos, 0);
    assert!(matches!(gallery.name_face(FaceId(1), Some("")), Err(Error::Argument { name: "person", .. })));
    assert!(matches!(gallery.name_face(FaceId(1), Some("ana")), Err(Error::NotFound { kind: "face", .. })));
}

#[test]
fn questions_out_of_range_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let gallery = open(folder.path()).unwrap();
    let none = IdentifyOptions { k: 0, ..IdentifyOptions::within(1.0) };
    for options in
        [none, IdentifyOptions::within(-0.1), IdentifyOptions::within(4.1), IdentifyOptions::within(f32::NAN)]
    {
        assert!(matches!(gallery.nearest(&at_degrees(0.0), &options), Err(Error::Argument { .. })), "{options:?}");
    }
    let all = IdentifyOptions { k: usize::MAX, ..IdentifyOptions::within(4.0) };
    assert!(gallery.nearest(&at_degrees(0.0), &all).unwrap().0.is_empty());
}

#[test]
fn verify_compares_photos_and_stored_faces_and_says_why_it_cannot() {
    let folder = tempfile::tempdir().unwrap();
    let gallery = open(folder.path()).unwrap();
    let plain = |color: [u8; 3]| Photo::from_rgb(20, 20, color.repeat(400)).unwrap();
    let (orange, blue, black) = (plain([200, 90, 40]), plain([10, 20, 240]), plain([0, 0, 0]));
    let png = |photo: &Photo| {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let pixels = image::RgbImage::from_raw(20, 20, photo.pixels().to_vec()).unwrap();
        pixels.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    };
    let added = gallery.ingest(&png(&orange), "orange.png", None, Default::default()).unwrap();
    let stored = FaceId(new_ids(&[added])[0]);

    let same = gallery.verify(Probe::Photo(&orange), Probe::Face(stored), 1.0).unwrap();
    assert!(same.same && same.distance < 1e-6 && same.within == 1.0);
    let other = gallery.verify(Probe::Face(stored), Probe::Photo(&blue), 1.0).unwrap();
    assert!(!other.same && other.far > same.far);
    let error = gallery.verify(Probe::Face(stored), Probe::Photo(&black), 1.0).unwrap_err();
    assert_eq!(error.to_string(), "the second photo shows no usable face: no face was found");
    assert!(matches!(gallery.verify(Probe::Face(FaceId(99)), Probe::Face(stored), 1.0), Err(Error::NotFound { .. })));
}

#[test]
fn a_file_that_is_no_photo_is_an_error_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let gallery = open(folder.path()).unwrap();
    let error = gallery.ingest(b"just text", "holiday/a.jpg", None, Default::default()).unwrap_err();
    assert!(error.to_string().contains("holiday/a.jpg"), "{error}");
}

#[test]
fn clusters_follow_the_faces() {
    let folder = tempfile::tempdir().unwrap();
    let gallery = open(folder.path()).unwrap();
    gallery.add(&[photo("a", &[(0.0, None), (90.0, None), (1.0, None)])]).unwrap();
    gallery.forget(&Forget::Face(FaceId(1))).unwrap();
    gallery.add(&[photo("b", &[(91.0, None)])]).unwrap();
    let found = gallery.cluster(Method::AverageLinkage { cut: 0.5 }).unwrap();
    assert_eq!(found.faces, [FaceId(2), FaceId(3), FaceId(4)]);
    assert_eq!(found.partition.labels, [0, 1, 0]);
}

#[test]
fn many_threads_may_read_and_write_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let gallery = open(folder.path()).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..3 {
            let gallery = &gallery;
            scope.spawn(move || {
                for step in 0..8 {
                    let name = format!("{writer}-{step}");
                    let added = gallery.add(&[photo(&name, &[(step as f32, Some("ana"))])]).unwrap();
                    let id = new_ids(&added)[0];
                    let found = nearest_ids(gallery, step as f32, Some(&format!("path:\"{name}\"")));
                    assert_eq!(found, [id], "an acknowledged write is seen at once");
                }
            });
        }
    });
    assert_eq!(gallery.stats().unwrap().faces, 24);
}

/// Degrees and person of a face.
type Seen = (u8, Option<u8>);

/// One step of the model-based test.
#[derive(Clone, Debug)]
enum Step {
    Add(Vec<(u8, Vec<Seen>)>),
    Name(u64, Option<u8>),
    ForgetFace(u64),
    ForgetPhoto(u8),
    ForgetPerson(u8),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let faces = proptest::collection::vec((0u8..180, proptest::option::of(0u8..4)), 0..4);
    prop_oneof![
        4 => proptest::collection::vec((0u8..12, faces), 1..4).prop_map(Step::Add),
        2 => (1u64..20, proptest::option::of(0u8..4)).prop_map(|(id, person)| Step::Name(id, person)),
        2 => (1u64..20).prop_map(Step::ForgetFace),
        1 => (0u8..12).prop_map(Step::ForgetPhoto),
        1 => (0u8..4).prop_map(Step::ForgetPerson),
        1 => Just(Step::Reopen),
    ]
}

const NAMES: [&str; 4] = ["ana", "ben", "cem", "Đỗ Thị"];

/// The same as a gallery, in memory: face → (photo, degrees, person), and the photos.
#[derive(Default)]
struct Model {
    faces: BTreeMap<u64, (u8, u8, Option<u8>)>,
    photos: BTreeSet<u8>,
    given: u64,
}

impl Model {
    fn apply(&mut self, gallery: &Gallery, step: &Step) {
        match step {
            Step::Add(batch) => {
                let photos: Vec<_> = batch.iter().map(|(name, faces)| model_photo(*name, faces)).collect();
                gallery.add(&photos).unwrap();
                for (name, faces) in batch {
                    if self.photos.insert(*name) {
                        for (degrees, person) in faces {
                            self.given += 1;
                            self.faces.insert(self.given, (*name, *degrees, *person));
                        }
                    }
                }
            }
            Step::Name(id, person) => {
                let done = gallery.name_face(FaceId(*id), person.map(|person| NAMES[usize::from(person)]));
                assert_eq!(done.is_ok(), self.faces.contains_key(id));
                if let Some(face) = self.faces.get_mut(id) {
                    face.2 = *person;
                }
            }
            Step::ForgetFace(id) => {
                assert_eq!(gallery.forget(&Forget::Face(FaceId(*id))).is_ok(), self.faces.remove(id).is_some());
            }
            Step::ForgetPhoto(name) => {
                let done = gallery.forget(&Forget::Photo(model_photo(*name, &[]).hash));
                assert_eq!(done.is_ok(), self.photos.remove(name));
                self.faces.retain(|_, face| face.0 != *name);
            }
            Step::ForgetPerson(person) => {
                let done = gallery.forget(&Forget::Person(NAMES[usize::from(*person)].into()));
                let photos: BTreeSet<u8> =
                    self.faces.values().filter(|face| face.2 == Some(*person)).map(|face| face.0).collect();
                assert_eq!(done.is_ok(), !photos.is_empty());
                self.faces.retain(|_, face| face.2 != Some(*person));
                self.photos.retain(|name| !photos.contains(name) || self.faces.values().any(|face| face.0 == *name));
            }
            Step::Reopen => {}
        }
    }

    fn check(&self, gallery: &Gallery) {
        let faces = gallery.faces(None, FaceId(0), usize::MAX).unwrap();
        let found: Vec<_> = faces.iter().map(|face| (face.id.0, face.person.as_deref())).collect();
        let name = |person: Option<u8>| person.map(|person| NAMES[usize::from(person)]);
        let expected: Vec<_> = self.faces.iter().map(|(id, face)| (*id, name(face.2))).collect();
        assert_eq!(found, expected);

        let stats = gallery.stats().unwrap();
        let people: BTreeSet<_> = self.faces.values().filter_map(|face| face.2).collect();
        assert_eq!((stats.photos, stats.faces), (self.photos.len() as u64, self.faces.len() as u64));
        assert_eq!((stats.people, stats.rebuilt), (people.len() as u64, Vec::new()));

        for (filter, person) in [(None, None), (Some("person:ana"), Some(0))] {
            let mut near: Vec<_> = self.faces.iter().filter(|(_, face)| person.is_none() || face.2 == person).collect();
            near.sort_by_key(|(id, face)| (face.1, **id));
            let ids: Vec<_> = near.iter().map(|(id, _)| **id).take(10).collect();
            assert_eq!(nearest_ids(gallery, 0.0, filter), ids);
        }
    }
}

fn model_photo(name: u8, faces: &[Seen]) -> NewPhoto {
    let faces: Vec<_> =
        faces.iter().map(|(degrees, person)| (f32::from(*degrees), person.map(|p| NAMES[usize::from(p)]))).collect();
    photo(&format!("photo {name}"), &faces)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn a_gallery_does_what_a_map_does(steps in proptest::collection::vec(step(), 1..14)) {
        let folder = tempfile::tempdir().unwrap();
        let mut gallery = open(folder.path()).unwrap();
        let mut model = Model::default();
        for step in &steps {
            model.apply(&gallery, step);
            if matches!(step, Step::Reopen) {
                drop(gallery);
                gallery = open(folder.path()).unwrap();
            }
        }
        model.check(&gallery);
        drop(gallery);
        model.check(&open(folder.path()).unwrap());
    }
}
