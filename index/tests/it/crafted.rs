//! Folders made by somebody who knows the format and means harm: every checksum fits, and what it is of does not.
//!
//! An answer may then be anything; a panic, a signal or an endless loop may not come of it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use vultus_index::{Effort, Index, Kept, Options, Search};

use crate::data::{numbered, options};
use crate::simulated::Simulated;

const DIMENSIONS: usize = 8;
/// As the table in `segment/header.rs` has them.
const HEADER: usize = 64;
const BLOCK: usize = 1 << 16;

fn small() -> Options {
    // Too few for two segments with graphs to become one.
    Options { merged_vectors_max: 500, ..options(DIMENSIONS, 300) }
}

/// A segment with a graph for each way to keep vectors, one without, and the manifest.
static FILES: LazyLock<BTreeMap<String, Vec<u8>>> = LazyLock::new(|| {
    let folder = Simulated::default();
    for (kept, ids) in [(Kept::Codes, 400..750), (Kept::Bf16, 800..1_150), (Kept::F32, 0..400)] {
        let mut index = Index::open_in(folder.clone(), Options { kept, ..small() }).unwrap();
        ids.for_each(|id| index.add(id, &numbered(id, DIMENSIONS)).unwrap());
        index.seal(1).unwrap();
        index.settle().unwrap();
    }
    let mut index = Index::open_in(folder.clone(), small()).unwrap();
    (1_200..1_220).for_each(|id| index.add(id, &numbered(id, DIMENSIONS)).unwrap());
    index.seal(2).unwrap();
    index.settle().unwrap();
    assert!(index.remove(7).unwrap() && index.remove(1_201).unwrap() && index.remove(500).unwrap());
    index.seal(3).unwrap();
    folder.files()
});

fn u64_at(bytes: &[u8], at: usize) -> usize {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
}

fn put_crc(bytes: &mut [u8], of: std::ops::Range<usize>, at: usize) -> u32 {
    let crc = crc32fast::hash(&bytes[of]);
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// Makes all checksums of a folder fit: of the blocks of each segment, of its checksums, of its header; and the manifest's.
fn reseal(files: &mut BTreeMap<String, Vec<u8>>) {
    let mut manifest = files.remove("manifest").unwrap();
    for (name, bytes) in files.iter_mut().filter(|(_, bytes)| bytes.len() > HEADER) {
        let checks_at = u64_at(bytes, 40).min(bytes.len());
        for (number, from) in (HEADER..checks_at).step_by(BLOCK).enumerate() {
            let at = checks_at + 4 * number;
            if at + 4 <= bytes.len() {
                put_crc(bytes, from..checks_at.min(from + BLOCK), at);
            }
        }
        let end = bytes.len();
        put_crc(bytes, checks_at..end, 56);
        let crc = put_crc(bytes, 0..60, 60);
        // The manifest names a segment by its number, its length and its header's checksum.
        let number: u64 = name[..6].parse().unwrap();
        let entry =
            (0..manifest.len().saturating_sub(20)).find(|at| u64_at(&manifest, *at) as u64 == number && *at >= 36);
        if let Some(at) = entry {
            manifest[at + 8..at + 16].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
            manifest[at + 16..at + 20].copy_from_slice(&crc.to_le_bytes());
        }
    }
    let end = manifest.len() - 4;
    put_crc(&mut manifest, 0..end, end);
    files.insert("manifest".into(), manifest);
}

/// Asks everything there is to ask.
pub(crate) fn use_it(folder: &Simulated) -> bool {
    let Ok(mut index) = Index::open_in(folder.clone(), small()) else { return false };
    let efforts = [Effort::Exact, Effort::Width(1), Effort::Width(50), Effort::Recall(0.9)];
    let allowed: roaring::RoaringTreemap = (0..300).collect();
    for (effort, query) in efforts.into_iter().zip(900..) {
        let query = numbered(query, DIMENSIONS);
        for (allowed, within) in [(None, None), (Some(&allowed), None), (None, Some(0.9))] {
            let _ = index.search(&query, &Search { k: 5, effort, allowed, within });
        }
        let _ = index.search_batch(&[&query, &query], &Search { effort, ..Search::default() });
    }
    let _ = (index.scroll(5, 9), index.vector(8).map(|_| ()), index.verify());
    let _ = index.neighbors_of_all(&Search { k: 2, effort: Effort::Width(4), ..Search::default() });
    let _ = (index.remove(9), index.add(10, &numbered(1, DIMENSIONS)), index.seal(9), index.settle());
    drop(index);
    let _ = Index::recover_in(folder.clone(), small());
    true
}

#[test]
fn resealing_changes_nothing_in_a_good_folder() {
    let mut files = FILES.clone();
    reseal(&mut files);
    assert_eq!(files, *FILES);
}

/// The good folder with words of one file changed, and the checksums made to fit.
///
/// - `edits`: words, of which there are as many as it takes, and what they become.
pub(crate) fn edited(which: usize, edits: impl Iterator<Item = (usize, u32)>) -> Simulated {
    let mut files = FILES.clone();
    let count = files.len();
    let bytes = files.values_mut().nth(which % count).unwrap();
    for (word, value) in edits {
        let at = word * 4 % bytes.len().next_multiple_of(4);
        let end = bytes.len().min(at + 4);
        bytes[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
    }
    reseal(&mut files);
    Simulated::with(files)
}

/// Changes some words, often near a head, to values that are near something.
fn crafted(seed: u64) -> Simulated {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let which = random.random_range(0..FILES.len());
    let count = random.random_range(1..12);
    let edits = (0..count).map(|_| {
        let span = if random.random_range(0..4) == 0 { 50 } else { 10_000 };
        let value = match random.random_range(0..4) {
            0 => random.random(),
            1 => u32::MAX - random.random_range(0..3),
            2 => random.random_range(0..500),
            _ => 0,
        };
        (random.random_range(0..span), value)
    });
    edited(which, edits)
}

/// The good folder with other bytes in the place of a file, and the checksums made to fit.
pub(crate) fn with_file(which: usize, bytes: &[u8]) -> Simulated {
    let mut files = FILES.clone();
    *files.values_mut().nth(which).unwrap() = bytes.to_vec();
    if files["manifest"].len() >= 4 {
        reseal(&mut files);
    }
    Simulated::with(files)
}

#[test]
fn a_crafted_folder_never_panics() {
    let opened = (0..3_000).into_par_iter().filter(|seed| {
        let outcome = std::panic::catch_unwind(|| use_it(&crafted(*seed)));
        outcome.unwrap_or_else(|_| panic!("the folder of seed {seed} made it panic"))
    });
    let opened = opened.count();
    assert!((500..2_900).contains(&opened), "{opened} of 3,000 could be opened: are the checksums right?");
}

proptest! {
    #[test]
    fn any_bytes_in_the_place_of_a_file_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), which in 0usize..3) {
        let mut files = FILES.clone();
        *files.values_mut().nth(which).unwrap() = bytes.clone();
        prop_assert!(!use_it(&Simulated::with(files)));
        use_it(&with_file(which, &bytes));
    }
}
