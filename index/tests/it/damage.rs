//! A damaged folder is refused, or answers bit for bit as it did before.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tempfile::{TempDir, tempdir};
use vultus_index::{Error, Index, Options};

use crate::data::{Answers, answers, numbered, options};

const OPTIONS: Options = options(8, 300);

/// A folder, as names and bytes of its files, and what it answered.
struct Good {
    files: Vec<(String, Vec<u8>)>,
    answers: Answers,
}

/// One segment with a graph, one without, and tombstones in both.
static GOOD: LazyLock<Good> = LazyLock::new(|| {
    let folder = tempdir().unwrap();
    let mut index = Index::open(folder.path(), OPTIONS).unwrap();
    for (ids, sequence) in [(0..1000, 1), (1000..1050, 2)] {
        for id in ids {
            index.add(id, &numbered(id, OPTIONS.dimensions)).unwrap();
        }
        index.seal(sequence).unwrap();
    }
    for id in [3, 500, 999, 1001] {
        assert!(index.remove(id));
    }
    index.seal(3).unwrap();
    let answers = answers(&index);
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let files: Vec<_> = files(folder.path()).iter().map(|path| (name(path), fs::read(path).unwrap())).collect();
    assert_eq!(files.len(), 4, "a lock, a manifest and two segments");
    Good { files, answers }
});

fn good_folder() -> TempDir {
    let folder = tempdir().unwrap();
    for (name, bytes) in &GOOD.files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// What became of a folder that was damaged: `true` where that was noticed, `false` where it did no harm.
#[track_caller]
fn is_noticed(folder: &Path, damage: &str) -> bool {
    match Index::open(folder, OPTIONS) {
        Ok(index) => {
            assert!(answers(&index) == GOOD.answers, "{damage}: other answers");
            false
        }
        Err(Error::Corrupt { path, .. } | Error::Io { path, .. }) => {
            assert!(path.starts_with(folder), "{damage}: the error names {}", path.display());
            true
        }
        Err(error) => panic!("{damage} was called {error}"),
    }
}

#[test]
fn a_flipped_bit_in_any_file_is_noticed() {
    let folder = good_folder();
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for file in files(folder.path()) {
        let good = fs::read(&file).unwrap();
        if good.is_empty() {
            continue;
        }
        // Every bit of the first bytes and of the last, then some all over the file.
        let edges = (0..good.len().min(96) * 8).chain(good.len().saturating_sub(8) * 8..good.len() * 8);
        let sample: Vec<usize> = (0..300).map(|_| random.random_range(0..good.len() * 8)).collect();
        for bit in edges.chain(sample) {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&file, &bad).unwrap();
            let damage = format!("bit {bit} of {}", file.display());
            assert!(is_noticed(folder.path(), &damage), "{damage} went unnoticed");
        }
        fs::write(&file, &good).unwrap();
    }
    assert!(!is_noticed(folder.path(), "nothing"));
}

#[test]
fn a_file_cut_short_or_grown_is_noticed() {
    let folder = good_folder();
    let mut random = ChaCha8Rng::seed_from_u64(2);
    for file in files(folder.path()) {
        let good = fs::read(&file).unwrap();
        if good.is_empty() {
            continue;
        }
        let sample: Vec<usize> = (0..40).map(|_| random.random_range(0..good.len())).collect();
        for length in [0, 1, 63, 64, 65, good.len() / 2, good.len() - 1].into_iter().chain(sample) {
            let length = length.min(good.len() - 1);
            fs::write(&file, &good[..length]).unwrap();
            let damage = format!("{} cut to {length} bytes", file.display());
            assert!(is_noticed(folder.path(), &damage), "{damage} went unnoticed");
        }
        fs::write(&file, [&good[..], &[0; 64]].concat()).unwrap();
        assert!(is_noticed(folder.path(), "a file with zeros behind it"));
        fs::write(&file, &good).unwrap();
    }
}

#[test]
fn a_missing_file_is_named_and_only_the_lock_is_not_missed() {
    for (name, _) in &GOOD.files {
        let folder = good_folder();
        let file = folder.path().join(name);
        fs::remove_file(&file).unwrap();
        let is_lock = file.ends_with("lock");
        assert_eq!(is_noticed(folder.path(), "a missing file"), !is_lock, "{}", file.display());
        if let Err(error) = Index::open(folder.path(), OPTIONS) {
            assert!(error.to_string().starts_with(&file.display().to_string()), "{error}");
        }
    }
}

#[test]
fn a_file_in_the_place_of_another_is_noticed() {
    let count = GOOD.files.len();
    for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))).filter(|(from, to)| from != to) {
        let folder = good_folder();
        let files = files(folder.path());
        let other = fs::read(&files[from]).unwrap();
        fs::write(&files[to], other).unwrap();
        let is_lock = files[to].ends_with("lock");
        let damage = format!("{} in the place of {}", files[from].display(), files[to].display());
        assert_eq!(is_noticed(folder.path(), &damage), !is_lock, "{damage}");
    }
}

#[test]
fn an_older_manifest_does_not_go_with_newer_segments() {
    let folder = tempdir().unwrap();
    let mut index = Index::open(folder.path(), OPTIONS).unwrap();
    index.add(1, &numbered(1, OPTIONS.dimensions)).unwrap();
    index.seal(1).unwrap();
    let older = fs::read(folder.path().join("manifest")).unwrap();
    index.add(2, &numbered(2, OPTIONS.dimensions)).unwrap();
    index.seal(2).unwrap();
    drop(index);
    fs::write(folder.path().join("manifest"), older).unwrap();
    assert!(matches!(Index::open(folder.path(), OPTIONS), Err(Error::Corrupt { .. })));
}

/// A seal writes the segment, names it, writes the manifest, names it, and removes what was replaced. Here it is cut off after each.
#[test]
fn a_seal_cut_off_anywhere_leaves_the_state_before_it_or_after_it() {
    let folder = good_folder();
    let before = files(folder.path());
    let manifest_before = fs::read(folder.path().join("manifest")).unwrap();
    let mut index = Index::open(folder.path(), OPTIONS).unwrap();
    index.add(5000, &numbered(5000, OPTIONS.dimensions)).unwrap();
    index.seal(4).unwrap();
    let sealed = answers(&index);
    drop(index);
    let after = files(folder.path());
    let fresh = after.iter().find(|file| !before.contains(file)).unwrap();
    let segment = fs::read(fresh).unwrap();
    let manifest_after = fs::read(folder.path().join("manifest")).unwrap();

    type State<'a> = &'a [(&'a str, &'a [u8])];
    let name = fresh.file_name().unwrap().to_str().unwrap();
    let temporary = format!("{name}.tmp");
    let cut_off_before_the_manifest: [State<'_>; 4] = [
        &[(&temporary, b"")],
        &[(&temporary, &segment[..segment.len() / 2])],
        &[(name, &segment)],
        &[(name, &segment), ("manifest.tmp", &manifest_after[..20])],
    ];
    for left in cut_off_before_the_manifest {
        let folder = good_folder();
        assert_eq!(fs::read(folder.path().join("manifest")).unwrap(), manifest_before);
        for (name, bytes) in left {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        fs::write(folder.path().join("notes.txt"), "somebody else's").unwrap();
        assert!(!is_noticed(folder.path(), "a seal cut off before its manifest"));
        assert_eq!(files(folder.path()).len(), before.len() + 1, "left over: {:?}", files(folder.path()));
        assert!(folder.path().join("notes.txt").exists(), "a file that is not ours was removed");
    }

    let folder = good_folder();
    fs::write(folder.path().join(name), &segment).unwrap();
    fs::write(folder.path().join("manifest"), &manifest_after).unwrap();
    let index = Index::open(folder.path(), OPTIONS).unwrap();
    assert!(answers(&index) == sealed, "a seal that was cut off before it tidied up");
    assert_eq!(files(folder.path()).len(), after.len(), "what was replaced is still there");
}
