//! A process that writes an index is killed at any moment, and what it had sealed is there.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::tempdir;
use vultus_index::Index;

use crate::data::{exactly, numbered, options};

const DIMENSIONS: usize = 24;
/// Tells the process that is to be killed where the index is.
const FOLDER: &str = "VULTUS_INDEX_TO_WRITE";

fn open(folder: &Path) -> Index {
    Index::open(folder, options(DIMENSIONS, 50)).unwrap()
}

/// What the step of a sequence number adds or replaces, and what it removes.
fn step(sequence: u64) -> (Vec<(u64, Vec<f32>)>, u64) {
    let added = (10 * sequence..10 * sequence + 10).map(|id| (id, numbered(id, DIMENSIONS)));
    let replaced = (10 * sequence - 3, numbered(10 * sequence - 3 + 1_000_000, DIMENSIONS));
    (added.chain([replaced]).collect(), (10 * sequence).saturating_sub(25))
}

fn write_until_it_is_killed(folder: &Path) -> ! {
    let mut index = open(folder);
    loop {
        let sequence = index.sequence() + 1;
        let (added, removed) = step(sequence);
        added.iter().for_each(|(id, vector)| index.add(*id, vector).unwrap());
        index.remove(removed).unwrap();
        index.seal(sequence).unwrap();
        // Panics, and so ends this process, should nobody listen any more.
        println!("\n{sequence}");
    }
}

#[test]
fn what_was_sealed_outlives_its_process() {
    // It starts itself, to be killed.
    if let Some(folder) = std::env::var_os(FOLDER) {
        write_until_it_is_killed(folder.as_ref());
    }
    let folder = tempdir().unwrap();
    let mut expected = BTreeMap::new();
    let (mut known, mut merges) = (0, 0);
    for round in 0..20u32 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed::what_was_sealed_outlives_its_process", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Read to the end, since a process whose output is closed would end by itself.
        let mut sequences = lines.filter_map(|line| line.unwrap().parse::<u64>().ok());
        let sealed = sequences.by_ref().take(3 + round as usize % 9).last().unwrap();
        // Into the next step, or the one after.
        std::thread::sleep(Duration::from_micros(u64::from(round * 331 % 2_500)));
        child.kill().unwrap();
        child.wait().unwrap();
        let sealed = sequences.last().unwrap_or(sealed);

        let mut index = open(folder.path());
        assert!(index.sequence() >= sealed, "{} of {sealed} that were sealed", index.sequence());
        for (added, removed) in (known + 1..=index.sequence()).map(step) {
            expected.extend(added);
            expected.remove(&removed);
        }
        known = index.sequence();
        assert!(index.verify().is_empty());
        assert_eq!(index.scroll(0, usize::MAX).unwrap(), expected.keys().copied().collect::<Vec<_>>());
        for (id, vector) in &expected {
            assert_eq!(index.vector(*id).unwrap().as_deref(), Some(vector.as_slice()));
        }
        for (id, vector) in expected.iter().step_by(17) {
            assert_eq!(index.search(vector, &exactly(1)).unwrap()[0].id, *id);
        }
        if round % 5 == 4 {
            index.settle().unwrap();
            merges += index.merges();
        }
    }
    assert!(merges > 0, "nothing was left to merge");
}
