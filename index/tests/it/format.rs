//! Folders written by older releases: they open, and answer what they answered then.
//!
//! A golden folder is never written again. A new version of a format gets a new one beside it; where it is missing, the test writes
//! it and fails, so that it can be looked at and committed.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use expect_test::{Expect, expect};
use tempfile::{TempDir, tempdir};
use vultus_index::{Effort, Error, Index, Kept, Options, Search};

use crate::data::{numbered, options};

const DIMENSIONS: usize = 5;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/format").join(name)
}

/// The names of a golden folder's files.
fn files(name: &str) -> Vec<OsString> {
    fs::read_dir(golden(name)).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

/// Two seals, a vector that was replaced and removed, and one that was removed. Small segments end as one, large ones as two.
fn write(folder: &Path, options: Options, first_count: u64) {
    let mut index = Index::open(folder, options).unwrap();
    for (ids, sequence) in [(0..first_count, 10), (1_000..1_003, 20)] {
        for id in ids {
            index.add(id, &numbered(id, DIMENSIONS)).unwrap();
        }
        index.seal(sequence).unwrap();
        index.settle().unwrap();
    }
    index.remove(1).unwrap();
    index.add(2, &numbered(77, DIMENSIONS)).unwrap();
    index.remove(2).unwrap();
    index.seal(30).unwrap();
}

fn copied(name: &str) -> TempDir {
    let folder = tempdir().unwrap();
    for file in files(name) {
        fs::copy(golden(name).join(&file), folder.path().join(&file)).unwrap();
    }
    folder
}

/// Of the segment files of a folder.
fn versions(folder: &Path) -> Vec<u8> {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files.filter(|file| file.extension() == Some("seg".as_ref())).map(|file| fs::read(file).unwrap()[8]).collect()
}

/// Opens a copy, because opening takes a lock and tidies up.
#[track_caller]
fn check(name: &str, search: &Search<'_>, expected: &Expect) {
    let folder = copied(name);
    let index = Index::open(folder.path(), options(DIMENSIONS, 10)).unwrap();
    let found = index.search(&numbered(5, DIMENSIONS), search).unwrap();
    let found: Vec<String> = found.iter().map(|found| format!("{} at {:.4}", found.id, found.distance)).collect();
    let ids = index.scroll(0, 3).unwrap();
    let counts = (index.sequence(), index.count());
    expected.assert_eq(&format!("{counts:?} {ids:?} {}", found.join(", ")));
}

/// Panics where the golden folder is missing, once it is written.
#[track_caller]
fn find_or_write(name: &str, options: Options, first_count: u64) {
    if golden(name).join("manifest").exists() {
        return;
    }
    write(&golden(name), options, first_count);
    fs::remove_file(golden(name).join("lock")).unwrap();
    panic!("wrote {}: look at it, commit it, and run again", golden(name).display());
}

#[test]
fn a_folder_of_version_3_is_read() {
    check(
        "v3-flat",
        &Search { k: 3, effort: Effort::Exact, ..Search::default() },
        &expect!["(30, 9) [0, 3, 4] 5 at 0.0000, 1002 at 0.8031, 7 at 0.8823"],
    );
}

#[test]
fn a_folder_of_version_4_is_read() {
    check(
        "v4-flat",
        &Search { k: 3, effort: Effort::Exact, ..Search::default() },
        &expect!["(30, 9) [0, 3, 4] 5 at 0.0000, 1002 at 0.8031, 7 at 0.8823"],
    );
}

#[test]
fn where_an_old_graph_is_all_is_compared_until_the_next_seal() {
    for (name, expected) in [
        ("v3-graph", expect!["(30, 201) [0, 3, 4] 5 at 0.0000, 8 at 0.2177, 76 at 0.2374"]),
        ("v4-bf16", expect!["(30, 201) [0, 3, 4] 5 at 0.0000, 8 at 0.2181, 76 at 0.2379"]),
        ("v4-codes", expect!["(30, 201) [0, 3, 4] 5 at 0.0000, 8 at 0.2180, 76 at 0.2375"]),
    ] {
        // So narrow a walk would lose some.
        check(name, &Search { k: 3, effort: Effort::Width(1), ..Search::default() }, &expected);
        let folder = copied(name);
        let mut index = Index::open(folder.path(), options(DIMENSIONS, 10)).unwrap();
        assert_eq!(versions(folder.path()), [name.as_bytes()[1] - b'0'; 2]);
        index.seal(40).unwrap();
        index.settle().unwrap();
        assert_eq!(versions(folder.path()), [5], "{name}");
        assert_eq!(index.count(), 201);
    }
}

#[test]
fn a_folder_of_version_5_is_read() {
    find_or_write("v5-flat", options(DIMENSIONS, 100), 8);
    check(
        "v5-flat",
        &Search { k: 3, effort: Effort::Exact, ..Search::default() },
        &expect!["(30, 9) [0, 3, 4] 5 at 0.0000, 1002 at 0.8031, 7 at 0.8823"],
    );
}

#[test]
fn graphs_of_version_5_are_walked_whatever_is_kept_of_vectors() {
    for (name, kept, expected) in [
        ("v5-graph", Kept::F32, expect!["(30, 201) [0, 3, 4] 5 at 0.0000, 8 at 0.2177, 76 at 0.2374"]),
        ("v5-bf16", Kept::Bf16, expect!["(30, 201) [0, 3, 4] 5 at 0.0000, 8 at 0.2181, 76 at 0.2379"]),
        ("v5-codes", Kept::Codes, expect!["(30, 201) [0, 3, 4] 5 at 0.0000, 8 at 0.2180, 76 at 0.2375"]),
    ] {
        find_or_write(name, Options { kept, ..options(DIMENSIONS, 10) }, 200);
        check(name, &Search { k: 3, effort: Effort::Width(3), ..Search::default() }, &expected);
    }
}

#[test]
fn the_same_vectors_are_written_as_the_same_bytes() {
    let folder = tempdir().unwrap();
    write(folder.path(), options(DIMENSIONS, 100), 8);
    for file in files("v5-flat") {
        let (now, then) = (folder.path().join(&file), golden("v5-flat").join(&file));
        let is_same = fs::read(&now).unwrap() == fs::read(&then).unwrap();
        assert!(is_same, "{} is written otherwise: is this a new version?", now.display());
    }
}

#[test]
fn older_versions_are_refused_by_name() {
    for (name, version) in [("v1-flat", 1), ("v2-flat", 2)] {
        let folder = copied(name);
        let opened = Index::open(folder.path(), options(DIMENSIONS, 10));
        assert!(matches!(opened.err(), Some(Error::Version { found, known: 5, .. }) if found == version));
    }
}
