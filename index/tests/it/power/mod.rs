//! Crashes and failures at every step of a workload: what was sealed is there, and nothing else is.

mod cut_off;

use std::collections::BTreeMap;
use std::io::ErrorKind;

use vultus_index::{Error, Index, Options};

use crate::data::{numbered, options};
use crate::simulated::{Fault, Left, Simulated};

const DIMENSIONS: usize = 4;

fn small() -> Options {
    // One thread, so that a merge takes its steps in one order; and each keeps how far it is.
    Options { merge_threads: 1, merge_kept_every: 1, ..options(DIMENSIONS, 40) }
}

/// What is in the index, by id: the number of its vector.
type Content = BTreeMap<u64, u64>;

/// What is done before each seal: vectors by id, `None` where one is removed.
fn workload() -> Vec<Vec<(u64, Option<u64>)>> {
    let add = |ids: std::ops::Range<u64>| ids.map(|id| (id, Some(id))).collect::<Vec<_>>();
    vec![
        add(0..10),
        // Small segments become one.
        add(10..18),
        // Enough for a graph, replaced ones among them.
        (5..50).map(|id| (id, Some(id + 1000))).collect(),
        // Deletions alone, in two segments at most.
        vec![(3, None), (20, None)],
        // So many that a segment is written anew; one comes back.
        (20..40).map(|id| (id, None)).chain([(25, Some(7))]).collect(),
        add(60..75),
        // Everything goes.
        (0..80).map(|id| (id, None)).collect(),
        add(90..93),
    ]
}

fn apply(content: &mut Content, changes: &[(u64, Option<u64>)]) {
    for (id, vector) in changes {
        match vector {
            Some(vector) => drop(content.insert(*id, *vector)),
            None => drop(content.remove(id)),
        }
    }
}

/// The content after each seal; the first is that of a new index.
fn contents() -> Vec<Content> {
    let mut content = Content::new();
    let mut all = vec![content.clone()];
    for changes in workload() {
        apply(&mut content, &changes);
        all.push(content.clone());
    }
    all
}

/// Does one part of the workload to the index, and seals it.
fn run_part(index: &mut Index, part: usize) -> Result<(), Error> {
    for (id, vector) in &workload()[part] {
        match vector {
            Some(vector) => index.add(*id, &numbered(*vector, DIMENSIONS))?,
            None => drop(index.remove(*id)?),
        }
    }
    index.seal(part as u64 + 1)
}

#[track_caller]
fn assert_holds(index: &Index, content: &Content, when: &str) {
    let ids: Vec<u64> = content.keys().copied().collect();
    assert_eq!(index.scroll(0, usize::MAX).unwrap(), ids, "{when}");
    for (id, vector) in content {
        let expected = numbered(*vector, DIMENSIONS);
        assert_eq!(index.vector(*id).unwrap().as_deref(), Some(expected.as_slice()), "{when}: vector of {id}");
    }
    assert!(index.verify().is_empty(), "{when}: {:?}", index.verify());
}

/// Runs as far as it comes; returns how many seals were acknowledged.
fn run(folder: &Simulated) -> usize {
    let Ok(mut index) = Index::open_in(folder.clone(), small()) else { return 0 };
    for part in 0..workload().len() {
        if run_part(&mut index, part).is_err() {
            return part;
        }
        if index.settle().is_err() {
            return part + 1;
        }
    }
    workload().len()
}

#[test]
fn power_lost_at_any_step_loses_no_seal_and_brings_nothing_back() {
    let contents = contents();
    let whole = Simulated::default();
    assert_eq!(run(&whole), workload().len());
    let steps = whole.steps();
    assert!(steps > 100, "only {steps} steps");
    let mut checked = 0;
    for step in 0..=steps {
        let folder = Simulated::failing(step, Fault::Crash);
        let acknowledged = run(&folder);
        let unsynced = folder.unsynced();
        assert!(unsynced <= 8, "{unsynced} changes of names that were not synced");
        for kept in 0..1 << unsynced {
            for left in [Left::Nothing, Left::Half, Left::Everything, Left::Zeros] {
                let when = format!("off at step {step} of {steps}, names {kept:b}, {left:?} of what was not synced");
                let left = folder.after_crash(kept, left);
                let mut index = match Index::open_in(left.clone(), small()) {
                    Ok(index) => index,
                    Err(error) => panic!("{when}: {error}"),
                };
                let sequence = index.sequence() as usize;
                assert!(
                    (acknowledged..=acknowledged + 1).contains(&sequence),
                    "{when}: at {sequence}, not {acknowledged}"
                );
                assert_holds(&index, &contents[sequence], &when);
                checked += 1;
                // And it goes on from there.
                if kept == 0 && sequence < workload().len() {
                    run_part(&mut index, sequence).unwrap();
                    index.settle().unwrap();
                    assert_holds(&index, &contents[sequence + 1], &when);
                }
            }
        }
    }
    assert!(checked > 1000, "only {checked} states");
}

/// Goes on after every failure, as a caller would: tries again, or opens anew what takes no more writes.
fn run_through(folder: &Simulated, when: &str) -> usize {
    let contents = contents();
    let open = || Index::open_in(folder.clone(), small());
    let mut index = open().or_else(|_| open()).unwrap_or_else(|error| panic!("{when}: {error}"));
    let mut failures = 0;
    while (index.sequence() as usize) < workload().len() {
        let part = index.sequence() as usize;
        let failed = run_part(&mut index, part).and_then(|()| index.settle());
        let Err(error) = failed else { continue };
        failures += 1;
        assert!(failures <= 2, "{when}: it fails again: {error}");
        // What is in memory is still searched.
        let held = [&contents[part], &contents[part + 1]];
        assert!(held.iter().any(|content| index.count() == content.len()), "{when}: {} held", index.count());
        if matches!(index.seal(part as u64 + 1), Err(Error::ReadOnly { .. })) {
            drop(index);
            index = open().unwrap_or_else(|error| panic!("{when}: {error}"));
        }
    }
    index.settle().unwrap();
    assert_holds(&index, &contents[workload().len()], when);
    drop(index);
    let index = open().unwrap();
    assert_holds(&index, &contents[workload().len()], when);
    failures
}

#[test]
fn a_call_that_fails_once_fails_one_seal_at_most_and_loses_nothing() {
    let whole = Simulated::default();
    run_through(&whole, "nothing fails");
    let mut failures = 0;
    for step in 0..whole.steps() {
        let kinds = [ErrorKind::StorageFull, ErrorKind::PermissionDenied].map(Fault::Error);
        for fault in kinds.into_iter().chain([Fault::DoneAndFailed]) {
            let folder = Simulated::failing(step, fault);
            failures += run_through(&folder, &format!("{fault:?} at step {step}"));
        }
        for fault in [Fault::Short, Fault::Error(ErrorKind::Interrupted)] {
            let folder = Simulated::failing(step, fault);
            run_through(&folder, &format!("{fault:?} at step {step}"));
        }
    }
    assert!(failures > 100, "only {failures} failures were met");
}

#[test]
fn after_names_could_not_be_synced_nothing_is_written_until_the_folder_is_opened_anew() {
    let whole = Simulated::default();
    let mut index = Index::open_in(whole.clone(), small()).unwrap();
    let before = whole.steps();
    run_part(&mut index, 0).unwrap();
    // The last calls of a seal are the manifest's: its name, and the folder.
    let last = (before..whole.steps()).last().unwrap();
    let folder = Simulated::failing(last, Fault::Error(ErrorKind::Other));
    let mut index = Index::open_in(folder.clone(), small()).unwrap();
    assert!(matches!(run_part(&mut index, 0), Err(Error::Io { .. })));
    let steps = folder.steps();
    let refused = index.seal(1).unwrap_err();
    assert!(matches!(refused, Error::ReadOnly { .. }), "{refused}");
    assert_eq!(folder.steps(), steps, "something was written");
    assert_eq!(index.count(), 10, "what is in memory is still searched");
    drop(index);
    let mut index = Index::open_in(folder, small()).unwrap();
    run_part(&mut index, 0).unwrap();
    assert_eq!((index.sequence(), index.count()), (1, 10));
}
