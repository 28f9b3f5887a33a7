//! Merges that were cut off go on from where they were.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use vultus_index::{Index, Options};

use crate::data::{clustered, exactly, options};
use crate::simulated::{Fault, Left, Simulated};

const DIMENSIONS: usize = 16;
const COUNT: u64 = 400;

fn eager() -> Options {
    Options { merge_threads: 1, merge_kept_every: 1, ..options(DIMENSIONS, 100) }
}

/// What is left where a merge of all vectors is cut off at a step, or goes through.
fn merged(folder: &Simulated) {
    let Ok(mut index) = Index::open_in(folder.clone(), eager()) else { return };
    for (id, vector) in (0..COUNT).zip(clustered(5, COUNT as usize, DIMENSIONS)) {
        index.add(id, &vector).unwrap();
    }
    let _ = index.seal(1).and_then(|()| index.settle());
}

fn names(files: &BTreeMap<String, Vec<u8>>) -> Vec<&str> {
    files.keys().map(String::as_str).collect()
}

/// The uninterrupted merge's folder, and one in which it was cut off late.
fn whole_and_cut_off() -> (Simulated, Simulated) {
    let whole = Simulated::default();
    merged(&whole);
    assert_eq!(names(&whole.files()), ["000002.seg", "manifest"]);
    let late = (0..whole.steps()).rev().map(|step| {
        let folder = Simulated::failing(step, Fault::Crash);
        merged(&folder);
        folder.after_crash(usize::MAX, Left::Everything)
    });
    let cut_off = late.into_iter().find(|folder| names(&folder.files()) == ["000001.seg", "000002.part", "manifest"]);
    (whole, cut_off.expect("a merge that was cut off after it kept how far it was"))
}

#[test]
fn a_merge_goes_on_and_leaves_the_file_that_it_would_have_left() {
    let (whole, cut_off) = whole_and_cut_off();
    let mut index = Index::open_in(cut_off.clone(), eager()).unwrap();
    let before = cut_off.steps();
    index.settle().unwrap();
    let steps = cut_off.steps() - before;
    assert_eq!(cut_off.files(), whole.files());

    // The same without what was kept.
    let (_, cut_off) = whole_and_cut_off();
    let files = cut_off.files().into_iter().filter(|(name, _)| !name.ends_with(".part"));
    let anew = Simulated::with(files);
    let mut index = Index::open_in(anew.clone(), eager()).unwrap();
    let before = anew.steps();
    index.settle().unwrap();
    assert_eq!(anew.files(), whole.files());
    // Each time that it keeps how far it is takes some.
    assert!(steps < anew.steps() - before, "{steps} of {} steps", anew.steps() - before);
}

#[test]
fn what_was_deleted_and_added_meanwhile_stays_so() {
    let (whole, cut_off) = whole_and_cut_off();
    let mut index = Index::open_in(cut_off.clone(), eager()).unwrap();
    assert!(index.remove(7).unwrap());
    index.add(8, &clustered(6, 1, DIMENSIONS)[0]).unwrap();
    index.add(COUNT, &clustered(7, 1, DIMENSIONS)[0]).unwrap();
    index.seal(2).unwrap();
    index.settle().unwrap();
    let ids: Vec<u64> = (0..=COUNT).filter(|id| *id != 7).collect();
    assert_eq!(index.scroll(0, usize::MAX).unwrap(), ids);
    assert_eq!(index.vector(8).unwrap().as_deref(), Some(clustered(6, 1, DIMENSIONS)[0].as_slice()));
    assert!(index.verify().is_empty());
    let files = cut_off.files();
    assert_eq!(files.get("000002.seg"), whole.files().get("000002.seg"), "it was another merge");
    assert!(!names(&files).iter().any(|name| name.ends_with(".part")), "{:?}", names(&files));
}

/// The folder of a merge that was cut off.
static CUT_OFF: LazyLock<BTreeMap<String, Vec<u8>>> = LazyLock::new(|| whole_and_cut_off().1.files());

/// The same folder with other bytes for how far the merge was, and the checksums made to fit.
///
/// - `change`: is given the bytes as they were.
pub(crate) fn with_part(change: impl FnOnce(&mut Vec<u8>)) -> Simulated {
    let mut files = CUT_OFF.clone();
    let part = files.get_mut("000002.part").unwrap();
    change(part);
    let mut put_crc = |from: usize, end: usize| {
        if let Some(at) = end.checked_sub(4).filter(|at| *at >= from && end <= part.len()) {
            let crc = crc32fast::hash(&part[from..at]);
            part[at..end].copy_from_slice(&crc.to_le_bytes());
        }
    };
    // As the table in `folder/merge/part.rs` has them: of the sources, then of everything.
    let length = CUT_OFF["000002.part"][12..16].try_into().map(u32::from_le_bytes).unwrap() as usize;
    put_crc(16, 16 + length);
    let end = part.len();
    let crc = crc32fast::hash(&part[..end.saturating_sub(4)]);
    part.splice(end.saturating_sub(4).., crc.to_le_bytes());
    Simulated::with(files)
}

/// Lets the merge go on, and asks for what must be there in any case.
pub(crate) fn use_it(folder: &Simulated) {
    let mut index = Index::open_in(folder.clone(), eager()).unwrap();
    let _ = index.settle();
    // A merge that fails is planned anew, without what was kept.
    index.settle().unwrap();
    assert_eq!(index.scroll(0, usize::MAX).unwrap(), (0..COUNT).collect::<Vec<u64>>());
    let vector = &clustered(5, COUNT as usize, DIMENSIONS)[77];
    assert_eq!(index.search(vector, &exactly(1)).unwrap()[0].id, 77);
    assert!(index.verify().is_empty(), "{:?}", index.verify());
}

#[test]
fn a_crafted_note_of_how_far_it_was_loses_nothing_and_never_panics() {
    let mut random = ChaCha8Rng::seed_from_u64(4);
    for round in 0..300 {
        let folder = with_part(|part| {
            for _ in 0..random.random_range(1..12) {
                let words = if random.random_range(0..2) == 0 { 40 } else { part.len() / 4 };
                let value: u32 = match random.random_range(0..4) {
                    0 => random.random(),
                    1 => u32::MAX - random.random_range(0..3),
                    2 => random.random_range(0..500),
                    _ => 0,
                };
                part[4 * random.random_range(0..words)..][..4].copy_from_slice(&value.to_le_bytes());
            }
        });
        let used = std::panic::catch_unwind(|| use_it(&folder));
        assert!(used.is_ok(), "round {round}");
    }
}

#[test]
fn a_segment_is_never_written_over() {
    let (_, cut_off) = whole_and_cut_off();
    for name in ["000001.part", "18446744073709551615.part"] {
        let mut files = cut_off.files();
        let part = files.remove("000002.part").unwrap();
        files.insert(name.to_owned(), part);
        let folder = Simulated::with(files);
        let mut index = Index::open_in(folder.clone(), eager()).unwrap();
        assert_eq!(names(&folder.files()), ["000001.seg", "manifest"]);
        index.settle().unwrap();
        assert_eq!(names(&folder.files()), ["000002.seg", "manifest"]);
    }
}

#[test]
fn a_damaged_note_of_how_far_it_was_is_as_good_as_none() {
    let (whole, cut_off) = whole_and_cut_off();
    let (whole, files) = (whole.files(), cut_off.files());
    let part = &files["000002.part"];
    let mut random = ChaCha8Rng::seed_from_u64(3);
    for round in 0..300 {
        let mut bad = part.clone();
        // The head more often than the lists.
        let at = if round % 2 == 0 { random.random_range(0..120) } else { random.random_range(0..bad.len()) };
        match round % 3 {
            0 => bad.truncate(at),
            _ => bad[at] ^= 1 << random.random_range(0..8),
        }
        let mut files = files.clone();
        files.insert("000002.part".to_owned(), bad);
        let folder = Simulated::with(files);
        let mut index = Index::open_in(folder.clone(), eager()).unwrap();
        index.settle().unwrap_or_else(|error| panic!("byte {at}: {error}"));
        assert!(folder.files().values().eq(whole.values()), "byte {at}: {:?}", names(&folder.files()));
    }
}
