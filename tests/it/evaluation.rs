//! Evaluation from outside: the verification protocol against the figures of `scripts/lfw_eval.py`, holding out against
//! small collections worked out by hand, and embedding a shard.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use vultus::evaluation::{
    Degradation, LabelledFace, Look, Missing, PairList, Photos, embed_shards, identification, verification, write_npz,
};
use vultus::{Embedding, Photo, Recognizer};

fn data(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/lfw_protocol").join(file)
}

/// An array of a `.npz`: the text of its header, and its data.
fn array(npz: &Path, name: &str) -> (String, Vec<u8>) {
    let mut zip = zip::ZipArchive::new(std::fs::File::open(npz).unwrap()).unwrap();
    let mut bytes = Vec::new();
    zip.by_name(name).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes[..8], *b"\x93NUMPY\x01\x00");
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert_eq!(start % 64, 0, "NumPy aligns data to 64 bytes");
    (String::from_utf8(bytes[10..start].to_vec()).unwrap(), bytes[start..].to_vec())
}

/// Names and embeddings; a row of zeros is a face that was not found.
fn read_npz(npz: &Path) -> Vec<(String, Option<Embedding>)> {
    let (header, letters) = array(npz, "names.npy");
    let width: usize = header.split("<U").nth(1).unwrap().split('\'').next().unwrap().parse().unwrap();
    let letters: Vec<char> =
        letters.chunks_exact(4).map(|c| char::from_u32(u32::from_le_bytes(c.try_into().unwrap())).unwrap()).collect();
    let names = letters.chunks_exact(width).map(|name| name.iter().filter(|l| **l != '\0').collect::<String>());
    let (header, values) = array(npz, "emb.npy");
    assert!(header.contains("'<f4'") && header.contains("128)"), "{header}");
    let values: Vec<f32> = values.chunks_exact(4).map(|v| f32::from_le_bytes(v.try_into().unwrap())).collect();
    names.zip(values.chunks_exact(128).map(|row| Embedding::normalized(row).ok())).collect()
}

#[test]
fn verification_agrees_with_the_python_script_to_a_millionth() {
    let faces: HashMap<String, Option<Embedding>> = read_npz(&data("embeddings.npz")).into_iter().collect();
    let list = PairList::read(&data("pairs.txt")).unwrap();
    let found = verification(&faces, &list, 1e-3).unwrap();
    let expected: HashMap<String, f64> =
        serde_json::from_str(&std::fs::read_to_string(data("figures.json")).unwrap()).unwrap();
    for (name, value) in [
        ("acc", found.accuracy.mean),
        ("acc_se", found.accuracy.standard_error),
        ("val_far1e3", found.val.mean),
        ("far_real", found.far_found),
        ("tar_far1e3", found.roc[0].rate),
        ("tar_far1e2", found.roc[1].rate),
        ("eer", found.eer),
        ("auc", found.auc),
        ("n", found.pairs as f64),
        ("missing_pairs", found.pairs_without_photo as f64),
        ("undetected_pairs", found.pairs_without_face as f64),
    ] {
        assert!((value - expected[name]).abs() < 1e-6, "{name}: {value}, the script says {}", expected[name]);
    }
    // The fixture must be able to tell protocols apart.
    assert!(expected["missing_pairs"] > 0.0 && expected["undetected_pairs"] > 0.0 && expected["far_real"] > 0.0);
}

#[test]
fn a_fold_without_pairs_and_a_rate_of_one_are_refused() {
    let list = PairList::read(&data("pairs.txt")).unwrap();
    let message = verification(&HashMap::new(), &list, 1e-3).unwrap_err().to_string();
    assert!(message.contains("fold 1 has no same pair"), "{message}");
    let faces: HashMap<String, Option<Embedding>> = read_npz(&data("embeddings.npz")).into_iter().collect();
    for far in [1.0, -0.1, f64::NAN] {
        assert!(verification(&faces, &list, far).is_err());
    }
    assert_eq!(verification(&faces, &list, 0.0).unwrap().far, 0.0);
}

#[test]
fn what_is_written_for_numpy_reads_back_with_zeros_for_a_missing_face() {
    let folder = tempfile::tempdir().unwrap();
    let npz = folder.path().join("embeddings.npz");
    let face = axis(3, 0.0);
    write_npz(&npz, [("Ana_0001", Some(&face)), ("Zoë_0012", None)]).unwrap();
    assert_eq!(read_npz(&npz), [("Ana_0001".to_owned(), Some(face)), ("Zoë_0012".to_owned(), None)]);
    assert!(write_npz(&folder.path().join("no/such"), []).is_err());
}

/// A unit vector along one axis, leaning a little to the last.
fn axis(at: usize, lean: f32) -> Embedding {
    let mut values = [0.0; 128];
    values[at] = 1.0;
    values[127] = lean;
    Embedding::normalized(&values).unwrap()
}

fn labelled(person: usize, photo: usize, outcome: Result<Embedding, Missing>) -> LabelledFace {
    LabelledFace { photo: format!("{person}_{photo:04}"), person: person.to_string(), outcome }
}

#[test]
fn people_who_are_easy_to_tell_apart_are_all_identified_and_strangers_are_not() {
    let face = |person, photo| labelled(person, photo, Ok(axis(person, 0.01 * photo as f32)));
    let faces: Vec<LabelledFace> = (0..20).flat_map(|person| (1..=3).map(move |photo| face(person, photo))).collect();
    let found = identification(&faces, &[0.5, 2.5], 7).unwrap();
    assert_eq!((found.probes, found.gallery, found.strangers, found.enrolled), (20, 40, 2, 18));
    assert_eq!(found.rank_1, 1.0);
    let [strict, loose] = found.open_set[..] else { panic!("two thresholds") };
    assert_eq!((strict.identified, strict.mistaken, strict.unknown, strict.strangers_identified), (1.0, 0.0, 0.0, 0.0));
    assert_eq!((loose.identified, loose.strangers_identified), (1.0, 1.0));
}

#[test]
fn a_probe_that_looks_like_someone_else_is_mistaken_and_one_without_a_face_is_unknown() {
    // Person 0 looks like 1 in every photo; person 2 was never found; 3 to 21 have one photo and are nobody's neighbor.
    let mut faces = vec![labelled(0, 1, Ok(axis(1, 0.1))), labelled(0, 2, Ok(axis(90, 0.0)))];
    faces.extend([labelled(1, 1, Ok(axis(1, 0.1))), labelled(1, 2, Ok(axis(1, 0.1)))]);
    faces.extend([labelled(2, 1, Err(Missing::Face)), labelled(2, 2, Err(Missing::Face))]);
    faces.extend((3..22).map(|person| labelled(person, 1, Ok(axis(person, 0.0)))));
    let mut seen_mistaken = false;
    for seed in 0..20 {
        let found = identification(&faces, &[0.5], seed).unwrap();
        assert_eq!((found.probes, found.probes_without_face), (3, 1));
        assert!(found.rank_1 <= 2.0 / 3.0, "a photo without a face can't be right");
        let [open] = found.open_set[..] else { panic!("one threshold") };
        assert!((open.identified + open.mistaken + open.unknown - 1.0).abs() < 1e-12);
        seen_mistaken |= open.mistaken > 0.0;
        assert_eq!(found, identification(&faces, &[0.5], seed).unwrap(), "a seed repeats itself");
    }
    assert!(seen_mistaken);
}

#[test]
fn a_collection_in_which_nobody_has_two_photos_is_refused() {
    let faces: Vec<LabelledFace> = (0..9).map(|person| labelled(person, 1, Ok(axis(person, 0.0)))).collect();
    assert!(identification(&faces, &[0.5], 1).is_err());
}

/// A tar shard of one-colour photos, some text named `.jpg`, and a black photo, in which the double finds no face.
fn shard(folder: &Path, people: &[(&str, u32, [u8; 3])]) -> PathBuf {
    let path = folder.join("shard.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&path).unwrap());
    let mut add = |name: String, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes).unwrap();
    };
    for (person, photos, color) in people {
        for photo in 1..=*photos {
            let photo_of = Photo::from_rgb(120, 112 + photo, color.repeat(120 * (112 + photo as usize))).unwrap();
            add(format!("{person}/{person}_{photo:04}.jpg"), &photo_of.to_jpeg(90).unwrap());
        }
    }
    add("Text/Text_0001.jpg".into(), b"not a photo");
    tar.finish().unwrap();
    path
}

#[test]
fn a_shard_is_embedded_in_order_and_what_has_no_face_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let people = [("Ana", 70, [200, 40, 40]), ("Ben", 2, [40, 200, 40]), ("Dark", 1, [0, 0, 0])];
    let shard = shard(folder.path(), &people);
    let mut last = (0, 0);
    let wanted = |name: &str| name != "Ben_0001";
    let faces = embed_shards(&Recognizer::double(), &[&shard], Look::default(), wanted, |p| last = (p.photos, p.faces))
        .unwrap();
    assert_eq!((faces.len(), last), (73, (73, 71)));
    assert_eq!((faces[69].photo.as_str(), faces[69].person.as_str()), ("Ana_0070", "Ana"));
    assert_eq!(faces[70].photo, "Ben_0002");
    assert_eq!(faces[71].outcome.as_ref().err(), Some(&Missing::Face));
    assert!(matches!(&faces[72].outcome, Err(Missing::Photo(reason)) if reason.contains("photo")));
    let look = Look { photos: Photos::Aligned, degradation: None };
    let aligned = embed_shards(&Recognizer::double(), &[&shard], look, wanted, |_| ()).unwrap();
    assert!(aligned[71].outcome.is_ok(), "no face is looked for");
    for photos in [Photos::Whole, Photos::Aligned] {
        for degradation in [Degradation::Jpeg(60), Degradation::FacePixels(100)] {
            let look = Look { photos, degradation: Some(degradation) };
            let worse = embed_shards(&Recognizer::double(), &[&shard], look, wanted, |_| ()).unwrap();
            let (worse, face) = (worse[0].embedding().unwrap(), faces[0].embedding().unwrap());
            assert!(worse.distance(face) < 0.5, "{look:?}: a colour stays a colour, {}", worse.distance(face));
        }
    }
    let ana = |at: usize| faces[at].embedding().unwrap();
    assert!(ana(0).distance(ana(69)) < 0.2 && ana(0).distance(faces[70].embedding().unwrap()) > 1.0);
}
