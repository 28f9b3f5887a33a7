//! What a gallery's folder survives: reopening, strangers, damage in every kind of file, and `kill -9`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use redb::{Database, TableDefinition};
use vultus::catalog::FaceId;
use vultus::detect::double::WholePhoto;
use vultus::gallery::{Added, Forget, IdentifyOptions};
use vultus::model::double::ColorHash;
use vultus::{Error, Gallery, Recognizer};

use super::gallery::{answers, at_degrees, open, photo};

/// Commits of every kind, some of them on disk in every view and some only in the log.
fn fill(gallery: &Gallery) {
    for step in 0..6u8 {
        let name = format!("{}{step}", if step % 2 == 0 { "a" } else { "b" });
        let degrees = f32::from(step) * 20.0;
        gallery.add(&[photo(&name, &[(degrees, Some("ana")), (degrees + 5.0, None)])]).unwrap();
    }
    gallery.forget(&Forget::Face(FaceId(3))).unwrap();
    gallery.name_face(FaceId(2), Some("ben")).unwrap();
    gallery.flush().unwrap();
    gallery.add(&[photo("a9", &[(33.0, Some("cem"))])]).unwrap();
    gallery.forget(&Forget::Face(FaceId(6))).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
            continue;
        }
        match fs::copy(entry.path(), to) {
            // A thread of tantivy's writes while we copy: what it wrote under another name has its own by now.
            Err(error) if error.kind() == ErrorKind::NotFound && is_temporary(&entry.path()) => {}
            copied => drop(copied.unwrap_or_else(|error| panic!("{}: {error}", entry.path().display()))),
        }
    }
}

/// By the name that the `tempfile` crate gives.
fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".tmp"))
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

#[test]
fn reopening_keeps_everything() {
    let folder = tempfile::tempdir().unwrap();
    let gallery = open(folder.path()).unwrap();
    fill(&gallery);
    let before = answers(&gallery).unwrap();
    drop(gallery);
    let gallery = open(folder.path()).unwrap();
    assert_eq!(answers(&gallery).unwrap(), before);
    assert_eq!(gallery.stats().unwrap().rebuilt, Vec::<String>::new());
}

#[test]
fn a_second_opener_is_refused_until_the_first_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let gallery = open(folder.path()).unwrap();
    assert!(matches!(open(folder.path()), Err(Error::Locked { .. })));
    gallery.add(&[photo("a", &[(0.0, None)])]).unwrap();
    drop(gallery);
    assert_eq!(open(folder.path()).unwrap().stats().unwrap().faces, 1);
}

#[test]
fn embeddings_of_another_model_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).unwrap());
    let other = Recognizer::new(Arc::new(WholePhoto), Arc::new(ColorHash::new("another")));
    let Err(Error::OtherModel { expected, found, .. }) = Gallery::open(folder.path(), other) else { panic!() };
    assert_eq!((expected.as_str(), found.as_str()), ("another", "color-hash"));
}

#[test]
fn a_catalog_of_a_newer_release_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).unwrap());
    let database = Database::open(folder.path().join("catalog.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    let meta: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
    let mut value = vec![1];
    value.extend_from_slice(&2u64.to_le_bytes());
    let crc = crc32fast::hash(&[b"format".as_slice(), &value].concat());
    value.extend_from_slice(&crc.to_le_bytes());
    transaction.open_table(meta).unwrap().insert("format", value.as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert!(matches!(open(folder.path()), Err(Error::Version { found: 2, known: 1, .. })));
}

#[test]
fn a_folder_with_other_things_in_it_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("letter.txt"), "dear all").unwrap();
    let Err(error) = open(folder.path()) else { panic!("it is no gallery") };
    assert!(matches!(error, Error::Argument { name: "gallery", .. }), "{error}");
    assert_eq!(files_below(folder.path()).len(), 1);
}

#[test]
fn an_older_copy_of_the_catalog_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = folder.path().join("catalog.redb");
    let gallery = open(folder.path()).unwrap();
    gallery.add(&[photo("a", &[(0.0, None)])]).unwrap();
    drop(gallery);
    let older = fs::read(&catalog).unwrap();
    let gallery = open(folder.path()).unwrap();
    gallery.add(&[photo("b", &[(1.0, None)])]).unwrap();
    drop(gallery);
    fs::write(&catalog, older).unwrap();
    assert!(matches!(open(folder.path()), Err(Error::Corrupt { .. })));

    // Who knows that it is older removes the witness, and the views follow the catalog back.
    fs::remove_file(folder.path().join("catalog.acknowledged")).unwrap();
    let gallery = open(folder.path()).unwrap();
    let stats = gallery.stats().unwrap();
    assert_eq!((stats.faces, stats.rebuilt.len()), (1, 2), "{:?}", stats.rebuilt);
    assert_eq!(gallery.nearest(&at_degrees(1.0), &IdentifyOptions::within(4.0)).unwrap().0.len(), 1);
}

#[test]
fn a_view_that_was_deleted_or_overwritten_is_rebuilt_and_answers_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let gallery = open(folder.path()).unwrap();
    fill(&gallery);
    let before = answers(&gallery).unwrap();
    drop(gallery);
    for view in ["index", "filters"] {
        fs::remove_dir_all(folder.path().join(view)).unwrap();
        let gallery = open(folder.path()).unwrap();
        assert_eq!(answers(&gallery).unwrap(), before, "without {view}");
        let rebuilt = gallery.stats().unwrap().rebuilt;
        assert!(rebuilt.len() == 1 && rebuilt[0].starts_with(view), "{rebuilt:?}");
        drop(gallery);

        for file in files_below(&folder.path().join(view)) {
            fs::write(file, "nonsense").unwrap();
        }
        let gallery = open(folder.path()).unwrap();
        assert_eq!(answers(&gallery).unwrap(), before, "with nonsense in {view}");
        assert_eq!(gallery.stats().unwrap().rebuilt.len(), 1);
        drop(gallery);
        assert_eq!(open(folder.path()).unwrap().stats().unwrap().rebuilt, Vec::<String>::new(), "{view} was kept");
    }
}

#[test]
fn an_index_whose_damage_is_met_by_a_question_is_rebuilt_and_the_question_answered() {
    let folder = tempfile::tempdir().unwrap();
    let gallery = open(folder.path()).unwrap();
    fill(&gallery);
    let before = answers(&gallery).unwrap();
    drop(gallery);
    let segment =
        files_below(&folder.path().join("index")).into_iter().find(|file| file.extension() == Some("seg".as_ref()));
    let segment = segment.unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    bytes[300] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let gallery = open(folder.path()).unwrap();
    assert_eq!(gallery.stats().unwrap().rebuilt, Vec::<String>::new(), "opening reads no vectors");
    assert_eq!(answers(&gallery).unwrap(), before);
    let rebuilt = gallery.stats().unwrap().rebuilt;
    assert!(rebuilt.len() == 1 && rebuilt[0].starts_with("index: "), "{rebuilt:?}");
    assert_eq!(gallery.check().unwrap(), Vec::<String>::new());
}

/// Opens a damaged copy of `image` and holds its answers to `expected`: the same, or an error, and never a panic.
fn check_damage(image: &Path, expected: &str, file: &Path, what: &str, damage: impl FnOnce(&mut Vec<u8>)) -> bool {
    let scratch = tempfile::tempdir().unwrap();
    copy(image, scratch.path());
    let damaged = scratch.path().join(file);
    let mut bytes = fs::read(&damaged).unwrap();
    damage(&mut bytes);
    fs::write(&damaged, bytes).unwrap();
    let outcome = catch_unwind(AssertUnwindSafe(|| open(scratch.path()).and_then(|gallery| answers(&gallery))));
    match outcome {
        Ok(Ok(found)) => {
            assert!(found == expected, "{what} of {} gave other answers", file.display());
            false
        }
        Ok(Err(_)) => true,
        Err(_) => panic!("{what} of {} made it panic", file.display()),
    }
}

#[test]
fn flipped_bits_and_truncations_in_any_file_are_detected_or_harmless() {
    let folder = tempfile::tempdir().unwrap();
    let (gallery_folder, closed, crashed) =
        (folder.path().join("gallery"), folder.path().join("closed"), folder.path().join("crashed"));
    let gallery = open(&gallery_folder).unwrap();
    fill(&gallery);
    let expected = answers(&gallery).unwrap();
    copy(&gallery_folder, &crashed);
    drop(gallery);
    copy(&gallery_folder, &closed);

    let seed = 7;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut detected = BTreeMap::new();
    for image in [&closed, &crashed] {
        for file in files_below(image) {
            let length = fs::metadata(&file).unwrap().len() as usize;
            let file = file.strip_prefix(image).unwrap();
            // The catalog has only itself to be restored from; a view costs a rebuild, so fewer flips must do.
            let (near_head, anywhere) = match file.starts_with("catalog.redb") {
                true => (20, 30),
                false if image == &crashed => continue,
                false => (1, 2),
            };
            let heads = std::iter::repeat_n(length.min(320), near_head);
            let spans = heads.chain(std::iter::repeat_n(length, anywhere)).filter(|span| *span > 0);
            let flips: Vec<usize> = spans.map(|span| random.random_range(0..span * 8)).collect();
            for bit in flips {
                let found = check_damage(image, &expected, file, &format!("flipping bit {bit}"), |bytes| {
                    bytes[bit / 8] ^= 1 << (bit % 8);
                });
                *detected.entry(found).or_insert(0) += 1;
            }
            for keep in [0, length / 2] {
                check_damage(image, &expected, file, &format!("cutting to {keep}"), |bytes| bytes.truncate(keep));
            }
        }
    }
    assert!(detected[&true] > 0 && detected[&false] > 0, "{detected:?}");
}

#[test]
fn the_bit_that_hides_the_last_commit_is_detected() {
    let folder = tempfile::tempdir().unwrap();
    let (gallery_folder, crashed) = (folder.path().join("gallery"), folder.path().join("crashed"));
    let gallery = open(&gallery_folder).unwrap();
    fill(&gallery);
    copy(&gallery_folder, &crashed);
    let expected = answers(&gallery).unwrap();
    for bit in 0..8 {
        let what = format!("flipping bit {bit} of redb's flags");
        check_damage(&crashed, &expected, Path::new("catalog.redb"), &what, |bytes| bytes[9] ^= 1 << bit);
    }
}

const CHILD: &str = "VULTUS_TEST_CHILD_ADDS_TO";

/// Not a test of its own: what the killed process of the next one does.
#[test]
fn child_that_adds_until_it_is_killed() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let gallery = open(Path::new(&folder)).unwrap();
    let start = gallery.stats().unwrap().sequence;
    for batch in start.. {
        let photos: Vec<_> = (0..5)
            .map(|at| photo(&format!("{batch}-{at}"), &[((batch % 360) as f32, Some("ana")), (at as f32 + 0.5, None)]))
            .collect();
        let added = gallery.add(&photos).unwrap();
        let ids = added.iter().flat_map(|added| match added {
            Added::New(ids) => ids.clone(),
            Added::Known(_) => panic!("nothing was added before"),
        });
        println!("ack {}", ids.map(|id| id.to_string()).collect::<Vec<_>>().join(" "));
        if batch % 7 == 3 {
            let gone = gallery.faces(None, FaceId(0), 1).unwrap()[0].id;
            println!("try {gone}");
            gallery.forget(&Forget::Face(gone)).unwrap();
            println!("gone {gone}");
        }
        if batch % 5 == 4 {
            gallery.flush().unwrap();
        }
    }
}

#[test]
fn kill_9_at_any_moment_loses_no_acknowledged_face_and_doubles_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let (mut acknowledged, mut gone, mut tried) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for round in 0..10 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["catalog::child_that_adds_until_it_is_killed", "--exact", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let lines =
            std::thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).collect::<Vec<_>>());
        std::thread::sleep(Duration::from_millis(random.random_range(60..400)));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.join().unwrap() {
            let mut words = line.split_ascii_whitespace();
            let set = match words.next() {
                Some("ack") => &mut acknowledged,
                Some("gone") => &mut gone,
                Some("try") => &mut tried,
                _ => continue,
            };
            set.extend(words.map(|id| id.parse::<u64>().unwrap()));
        }

        let gallery = open(folder.path()).unwrap();
        let records = gallery.faces(None, FaceId(0), usize::MAX).unwrap();
        let stored: BTreeSet<u64> = records.iter().map(|face| face.id.0).collect();
        assert_eq!(stored.len(), records.len(), "round {round}: an id is there twice");
        for id in &acknowledged {
            assert!(stored.contains(id) || tried.contains(id), "round {round}: face {id} was acknowledged and is lost");
        }
        assert!(stored.is_disjoint(&gone), "round {round}: a forgotten face came back");
        let faces: BTreeSet<_> =
            records.iter().map(|face| (face.photo, face.embedding.as_slice()[0].to_bits())).collect();
        assert!(faces.len() == records.len(), "round {round}: a face is there twice under two ids");

        let all = IdentifyOptions { k: usize::MAX, exact: true, ..IdentifyOptions::within(4.0) };
        let near = |filter: Option<&str>| {
            let options = IdentifyOptions { filter: filter.map(|filter| filter.parse().unwrap()), ..all.clone() };
            let (faces, _) = gallery.nearest(&at_degrees(0.0), &options).unwrap();
            faces.iter().map(|near| near.record.id.0).collect::<Vec<_>>()
        };
        for ids in [near(None), near(Some("person:ana OR NOT person:ana"))] {
            assert_eq!(ids.len(), stored.len(), "round {round}: a view has other faces than the catalog");
            assert_eq!(BTreeSet::from_iter(ids), stored, "round {round}");
        }
        assert_eq!(gallery.stats().unwrap().rebuilt, Vec::<String>::new(), "round {round}");
    }
    assert!(acknowledged.len() > 20, "the children did something: {}", acknowledged.len());
}
