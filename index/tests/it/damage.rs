//! A damaged folder is refused, or says what is damaged, and never gives an answer that is not true.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use tempfile::tempdir;
use vultus_index::{Effort, Error, Index, Kept, Options, Search};

use crate::data::{Answers, answers, exactly, numbered, options};
use crate::simulated::Simulated;

const DIMENSIONS: usize = 8;
/// Flipped bits in all files together.
const FLIPS: usize = 10_000;

fn small() -> Options {
    options(DIMENSIONS, 300)
}

/// The files of a folder, and what it answered.
struct Good {
    options: Options,
    files: BTreeMap<String, Vec<u8>>,
    answers: Answers,
    /// The same where codes and links cannot be read, and everything is compared instead.
    scanned: Answers,
}

static GOOD: LazyLock<Good> = LazyLock::new(|| Good::new(Kept::F32));

impl Good {
    /// One segment with a graph, one without, and tombstones in both.
    fn new(kept: Kept) -> Self {
        let folder = Simulated::default();
        let options = Options { kept, ..small() };
        let mut index = Index::open_in(folder.clone(), options).unwrap();
        for (ids, sequence) in [(0..1000, 1), (1000..1050, 2)] {
            for id in ids {
                index.add(id, &numbered(id, DIMENSIONS)).unwrap();
            }
            index.seal(sequence).unwrap();
            index.settle().unwrap();
        }
        for id in [3, 500, 999, 1001] {
            assert!(index.remove(id).unwrap());
        }
        index.seal(3).unwrap();
        let widths = [Effort::Exact, Effort::Width(16)];
        let answers = answers(&index, widths).unwrap();
        let scanned = crate::data::answers(&index, [Effort::Exact; 2]).unwrap();
        assert!(index.verify().is_empty());
        let files = folder.files();
        assert_eq!(files.len(), 3, "a manifest and two segments");
        Self { options, files, answers, scanned }
    }

    fn with(&self, change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) -> Simulated {
        let mut files = self.files.clone();
        change(&mut files);
        Simulated::with(files)
    }

    /// What became of a folder that was damaged: `true` where that was noticed, `false` where it did no harm.
    #[track_caller]
    fn is_noticed(&self, folder: &Simulated, damage: &str) -> bool {
        let opened = Index::open_in(folder.clone(), self.options);
        let answered = opened.and_then(|index| {
            for (id, good) in &self.answers.vectors {
                if let Ok(Some(found)) = index.vector(*id) {
                    let is_true = found.iter().map(|x| x.to_bits()).eq(good.iter().copied());
                    assert!(is_true, "{damage}: the vector of {id} is another");
                }
            }
            let answers = answers(&index, [Effort::Exact, Effort::Width(16)])?;
            Ok((answers, index.verify()))
        });
        match answered {
            Ok((answers, found)) => {
                let is_true = answers == self.answers || (answers == self.scanned && !found.is_empty());
                assert!(is_true, "{damage}: other answers, and {found:?}");
                !found.is_empty()
            }
            Err(Error::Corrupt { path, .. } | Error::Io { path, .. }) => {
                assert!(path.starts_with("simulated"), "{damage}: the error names {}", path.display());
                true
            }
            Err(error) => panic!("{damage} was called {error}"),
        }
    }

    /// Flips bits: every one of the first and last bytes of each file, then some all over the files.
    fn flip(&self, count: usize) {
        assert!(!self.is_noticed(&self.with(|_| ()), "nothing"));
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut flips: Vec<(&String, usize)> = Vec::new();
        for (name, good) in &self.files {
            let edges = (0..good.len().min(128) * 8).chain(good.len().saturating_sub(8) * 8..good.len() * 8);
            flips.extend(edges.map(|bit| (name, bit)));
        }
        while flips.len() < count {
            let (name, good) = self.files.iter().nth(random.random_range(0..self.files.len())).unwrap();
            flips.push((name, random.random_range(0..good.len() * 8)));
        }
        flips.par_iter().for_each(|(name, bit)| {
            let folder = self.with(|files| files.get_mut(*name).unwrap()[bit / 8] ^= 1 << (bit % 8));
            let damage = format!("bit {bit} of {name}");
            assert!(self.is_noticed(&folder, &damage), "{damage} went unnoticed");
        });
    }
}

#[test]
fn a_flipped_bit_in_any_file_is_noticed() {
    GOOD.flip(FLIPS);
}

#[test]
fn a_flipped_bit_is_noticed_where_less_is_kept_of_vectors() {
    Good::new(Kept::Bf16).flip(FLIPS / 2);
    Good::new(Kept::Codes).flip(FLIPS / 2);
}

#[test]
fn a_file_cut_short_or_grown_is_noticed() {
    let mut random = ChaCha8Rng::seed_from_u64(2);
    for (name, good) in &GOOD.files {
        let sample: Vec<usize> = (0..100).map(|_| random.random_range(0..good.len())).collect();
        for length in [0, 1, 63, 64, 65, good.len() / 2, good.len() - 1].into_iter().chain(sample) {
            let length = length.min(good.len() - 1);
            let damage = format!("{name} cut to {length} bytes");
            let folder = GOOD.with(|files| files.get_mut(name).unwrap().truncate(length));
            assert!(GOOD.is_noticed(&folder, &damage), "{damage} went unnoticed");
        }
        let folder = GOOD.with(|files| files.get_mut(name).unwrap().extend([0; 64]));
        assert!(GOOD.is_noticed(&folder, "a file with zeros behind it"));
    }
}

#[test]
fn a_missing_file_is_named() {
    for name in GOOD.files.keys() {
        let folder = GOOD.with(|files| drop(files.remove(name)));
        let error = Index::open_in(folder, small()).err().unwrap().to_string();
        assert!(error.starts_with(&format!("simulated/{name}: ")), "{error}");
    }
}

#[test]
fn a_file_in_the_place_of_another_is_noticed() {
    for from in GOOD.files.keys() {
        for to in GOOD.files.keys().filter(|to| *to != from) {
            let folder = GOOD.with(|files| drop(files.insert(to.clone(), files[from].clone())));
            let damage = format!("{from} in the place of {to}");
            assert!(GOOD.is_noticed(&folder, &damage), "{damage}");
        }
    }
}

#[test]
fn an_older_manifest_does_not_go_with_newer_segments() {
    let folder = Simulated::default();
    let mut index = Index::open_in(folder.clone(), small()).unwrap();
    index.add(1, &numbered(1, DIMENSIONS)).unwrap();
    index.seal(1).unwrap();
    let older = folder.files()["manifest"].clone();
    index.add(2, &numbered(2, DIMENSIONS)).unwrap();
    index.seal(2).unwrap();
    let mut files = folder.files();
    files.insert("manifest".into(), older);
    assert!(matches!(Index::open_in(Simulated::with(files), small()), Err(Error::Corrupt { .. })));
}

/// The segment with a graph, its first byte that differs and the file's bytes changed there.
fn with_damaged(section: fn(&[u8]) -> usize) -> (Simulated, String) {
    let name = GOOD.files.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap().0.clone();
    let at = section(&GOOD.files[&name]);
    (GOOD.with(|files| files.get_mut(&name).unwrap()[at] ^= 4), name)
}

#[test]
fn damaged_links_cost_speed_and_the_next_merge_mends_them() {
    // The graph is the last section, and the checksums fill the last block of 64 KiB.
    let (folder, name) = with_damaged(|bytes| bytes.len() - 2000);
    let mut index = Index::open_in(folder.clone(), small()).unwrap();
    let search = Search { k: 5, effort: Effort::Width(16), ..Search::default() };
    for query in 9_000..9_008 {
        let query = numbered(query, DIMENSIONS);
        assert_eq!(index.search(&query, &search).unwrap(), index.search(&query, &exactly(5)).unwrap());
    }
    let damage = index.damage();
    assert!(damage.len() == 1 && damage[0].to_string().contains(&name), "{damage:?}");
    index.settle().unwrap();
    assert!(index.verify().is_empty(), "{:?}", index.verify());
    assert!(!folder.files().contains_key(&name), "the damaged file is gone");
    assert_eq!(answers(&index, [Effort::Exact; 2]).unwrap(), GOOD.scanned);
}

#[test]
fn damaged_vectors_are_an_error_and_are_never_written_anew() {
    let folder = Simulated::default();
    let mut index = Index::open_in(folder.clone(), options(DIMENSIONS, 9_999)).unwrap();
    // More than fit in the first block of 64 KiB, which holds the ids.
    for id in 0..4_000 {
        index.add(id, &numbered(id, DIMENSIONS)).unwrap();
    }
    index.seal(1).unwrap();
    let mut files = folder.files();
    files.get_mut("000001.seg").unwrap()[100_000] ^= 4;
    let folder = Simulated::with(files);
    let mut index = Index::open_in(folder.clone(), options(DIMENSIONS, 500)).unwrap();
    assert_eq!(index.verify().len(), 1);
    let error = index.search(&numbered(1, DIMENSIONS), &exactly(5)).unwrap_err().to_string();
    assert_eq!(error, "simulated/000001.seg: the checksum of bytes 65600 to 131136 is wrong");
    index.settle().unwrap();
    // What does not need them goes on.
    assert!(index.vector(3).unwrap().is_some() && index.remove(3).unwrap());
    index.add(5_000, &numbered(5_000, DIMENSIONS)).unwrap();
    index.seal(2).unwrap();
    assert!(index.vector(5_000).unwrap().is_some());
    assert!(folder.files().contains_key("000001.seg"), "the damaged file is there for who wants to look at it");
    assert_eq!(index.damage().len(), 1);

    // Where nobody knew of it, a seal finds out and goes on without; the merge that needs it fails, and the next one goes without.
    let folder = Simulated::with(folder.files());
    let mut index = Index::open_in(folder, options(DIMENSIONS, 9_999)).unwrap();
    (6_000..9_000).for_each(|id| index.add(id, &numbered(id, DIMENSIONS)).unwrap());
    index.seal(3).unwrap();
    assert_eq!((index.pending(), index.damage().len()), (0, 1));
    index.settle().unwrap();
}

#[test]
fn a_folder_is_recovered_without_its_damaged_segments_and_says_what_to_replay() {
    let mut sorted: Vec<&String> = GOOD.files.keys().filter(|name| name.ends_with(".seg")).collect();
    sorted.sort_by_key(|name| GOOD.files[*name].len());
    let [small_one, large_one] = sorted[..] else { panic!("two segments") };
    let check = |damage: &dyn Fn(&mut Vec<u8>), name: &String, held: usize, sequences, vectors| {
        let folder = GOOD.with(|files| damage(files.get_mut(name).unwrap()));
        let (index, lost) = Index::recover_in(folder.clone(), small()).unwrap();
        assert_eq!((lost.len(), index.count(), index.sequence()), (1, held, 3), "{lost:?}");
        assert_eq!((lost[0].sequences, lost[0].vectors), (sequences, vectors));
        assert!(lost[0].reason.to_string().starts_with(&format!("simulated/{name}: ")), "{}", lost[0].reason);
        assert!(lost[0].path.ends_with(format!("{name}.damaged")));
        assert!(folder.files().contains_key(&format!("{name}.damaged")));
        drop(index);
        let index = Index::open_in(folder, small()).unwrap();
        assert!(index.verify().is_empty() && index.count() == held);
    };
    let flip = |bytes: &mut Vec<u8>| bytes[5_000] ^= 1;
    check(&flip, large_one, 49, [0, 1], Some(997));
    check(&|bytes| bytes[300] ^= 1, small_one, 997, [1, 2], Some(49));
    check(&|bytes| bytes.truncate(40), small_one, 997, [0, 3], None);
    // Nothing is lost with a link.
    let (folder, _) = with_damaged(|bytes| bytes.len() - 2000);
    let (mut index, lost) = Index::recover_in(folder, small()).unwrap();
    index.settle().unwrap();
    assert!(lost.is_empty() && index.verify().is_empty() && index.count() == 1046);
}

#[test]
fn files_that_are_not_ours_are_left_alone_and_what_a_crash_left_is_removed() {
    let folder = GOOD.with(|files| {
        for name in ["000009.seg", "000009.seg.tmp", "manifest.tmp", "notes.txt"] {
            files.insert(name.into(), b"somebody's".to_vec());
        }
    });
    assert!(!GOOD.is_noticed(&folder, "files that the manifest does not name"));
    let names: Vec<String> = folder.files().into_keys().collect();
    let good = GOOD.files.keys().cloned().chain(["notes.txt".into()]).collect::<Vec<String>>();
    assert_eq!(names, good);
}

#[test]
fn a_flipped_bit_on_a_real_disk_is_noticed() {
    let folder = tempdir().unwrap();
    for (name, bytes) in &GOOD.files {
        let mut bad = bytes.clone();
        if name.ends_with(".seg") {
            bad[bytes.len() / 2] ^= 16;
        }
        std::fs::write(folder.path().join(name), bad).unwrap();
    }
    let index = Index::open(folder.path(), small()).unwrap();
    assert_eq!(index.verify().len(), 2);
}
