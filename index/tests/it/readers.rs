//! Readers beside the writer: each sees one whole state, the latest that was published, and keeps it for as long as it likes.

use std::cell::Cell;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tempfile::tempdir;
use vultus_index::{Bytes, Effort, Index, NewFile, Options, Reader, Search, Storage};

use crate::data::{exactly, numbered, options};
use crate::simulated::Simulated;

const DIMENSIONS: usize = 8;
/// Ids that are always replaced together.
const TOGETHER: u64 = 40;
const ROUNDS: u64 = 400;

/// A vector that says in which round it was written, to whom it is near.
fn stamped(round: u64, id: u64) -> Vec<f32> {
    numbered(round * 1000 + id, DIMENSIONS)
}

/// Looks until the writer is done; returns how many states it saw.
fn look(reader: &Reader, is_done: &AtomicBool) -> usize {
    let (mut seen, mut last) = (0, None);
    while !is_done.load(Ordering::Acquire) || seen == 0 {
        let snapshot = reader.snapshot();
        let Some(first) = snapshot.vector(0).unwrap() else { continue };
        let now = snapshot.generation();
        assert!(last.is_none_or(|last| last <= now), "from generation {last:?} back to {now}");
        seen += usize::from(last != Some(now));
        last = Some(now);
        let round = (0..=ROUNDS).find(|round| stamped(*round, 0) == *first).expect("a round wrote it");
        for id in 0..TOGETHER {
            let vector = snapshot.vector(id).unwrap();
            assert_eq!(vector.as_deref(), Some(stamped(round, id).as_slice()), "id {id} is not of round {round}");
        }
        for effort in [Effort::Exact, Effort::Width(32)] {
            let found = snapshot.search(&stamped(round, 7), &Search { k: 1, effort, ..Search::default() }).unwrap();
            assert_eq!((found[0].id, found[0].distance), (7, 0.0), "round {round}, {effort:?}");
        }
    }
    seen
}

#[test]
fn every_reader_sees_whole_states_in_their_order_while_the_index_is_written_sealed_and_merged() {
    let folder = tempdir().unwrap();
    let options = Options { merge_threads: 1, ..options(DIMENSIONS, 300) };
    let mut index = Index::open(folder.path(), options).unwrap();
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let (reader, is_done) = (index.reader(), &is_done);
                scope.spawn(move || look(&reader, is_done))
            })
            .collect();
        for round in 0..=ROUNDS {
            // Some that stay, so that segments grow and are merged.
            (0..5).for_each(|more| index.add(1_000 + 5 * round + more, &stamped(500 + round, more)).unwrap());
            (0..TOGETHER).for_each(|id| index.add(id, &stamped(round, id)).unwrap());
            match round % 7 {
                0 => index.seal(round).unwrap(),
                _ => index.publish(),
            }
        }
        index.settle().unwrap();
        is_done.store(true, Ordering::Release);
        for reader in readers {
            assert!(reader.join().unwrap() > 1, "a reader saw one state only");
        }
    });
    assert!(index.verify().is_empty());
}

thread_local! {
    /// Whether shuttle says which of the threads goes on; they are then all in this one.
    static IS_SCHEDULED: Cell<bool> = const { Cell::new(false) };
}

/// Lets another thread go on, if shuttle wants one to.
fn pause() {
    if IS_SCHEDULED.get() {
        shuttle::thread::yield_now();
    }
}

/// A folder that pauses whenever it is asked for something, and whenever bytes of it are read.
struct Pausing(Simulated);

struct PausingBytes(Box<dyn Bytes>);

impl AsRef<[u8]> for PausingBytes {
    fn as_ref(&self) -> &[u8] {
        pause();
        (*self.0).as_ref()
    }
}

impl Storage for Pausing {
    fn path(&self) -> &Path {
        self.0.path()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        pause();
        self.0.names()
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Bytes>> {
        pause();
        Ok(Box::new(PausingBytes(self.0.open(name)?)))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn NewFile>> {
        pause();
        self.0.create(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        pause();
        self.0.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        pause();
        self.0.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        pause();
        self.0.sync()
    }
}

/// Rounds of a writer that takes turns with readers.
const TURNS: u64 = 4;

/// What one reader does until it saw the last round: every id of a snapshot is of the same round, which is no older than that of the snapshot before.
///
/// - `searches`: by one reader at most, since all of shuttle's threads share what a thread keeps for its searches.
fn look_in_turns(reader: &Reader, searches: bool) {
    let mut last = (0, 0);
    while last.1 < TURNS {
        pause();
        let snapshot = reader.snapshot();
        let Some(first) = snapshot.vector(0).unwrap() else { continue };
        let round = (1..=TURNS).find(|round| stamped(*round, 0) == *first).expect("a round wrote it");
        let now = (snapshot.generation(), round);
        let is_later = last.0 < now.0 && last.1 <= now.1;
        assert!(last == now || is_later, "{last:?}, and then {now:?}");
        last = now;
        for id in 0..3 {
            let vector = snapshot.vector(id).unwrap();
            assert_eq!(vector.as_deref(), Some(stamped(round, id).as_slice()), "id {id} is not of round {round}");
        }
        assert_eq!(snapshot.count(), 3);
        if searches {
            let found = snapshot.search(&stamped(round, 2), &exactly(3)).unwrap();
            assert_eq!((found.len(), found[0].id, found[0].distance), (3, 2, 0.0), "round {round}");
        }
    }
}

/// Two readers and the writer, which take turns at every file that is asked for and every read of one, in an order that shuttle draws.
#[test]
fn readers_see_whole_states_in_whatever_order_they_and_the_writer_go_on() {
    let in_turns = || {
        IS_SCHEDULED.set(true);
        let mut index = Index::open_in(Pausing(Simulated::default()), options(DIMENSIONS, 300)).unwrap();
        let readers = [true, false].map(|searches| {
            let reader = index.reader();
            shuttle::thread::spawn(move || look_in_turns(&reader, searches))
        });
        for round in 1..=TURNS {
            (0..3).for_each(|id| {
                index.add(id, &stamped(round, id)).unwrap();
                pause();
            });
            if round == 3 { index.publish() } else { index.seal(round).unwrap() }
        }
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    };
    shuttle::check_random(in_turns, 300);
    shuttle::check_pct(in_turns, 300, 3);
}

#[test]
fn what_was_not_published_is_seen_by_the_writer_alone() {
    let folder = tempdir().unwrap();
    let mut index = Index::open(folder.path(), options(DIMENSIONS, 300)).unwrap();
    let reader = index.reader();
    index.add(1, &numbered(1, DIMENSIONS)).unwrap();
    assert_eq!((index.count(), reader.snapshot().count()), (1, 0));
    index.publish();
    let before = reader.snapshot();
    assert!(index.remove(1).unwrap());
    assert_eq!((index.count(), reader.snapshot().count()), (0, 1));
    index.seal(1).unwrap();
    assert_eq!((reader.snapshot().count(), reader.snapshot().sequence()), (0, 1));
    assert!(reader.snapshot().generation() > before.generation());
    assert_eq!(before.count(), 1, "a snapshot does not change");
}

#[test]
fn a_snapshot_outlives_the_files_it_was_made_from() {
    let folder = tempdir().unwrap();
    let mut index = Index::open(folder.path(), options(DIMENSIONS, 300)).unwrap();
    let fill = |index: &mut Index, ids: std::ops::Range<u64>, sequence| {
        ids.for_each(|id| index.add(id, &numbered(id, DIMENSIONS)).unwrap());
        index.seal(sequence).unwrap();
        index.settle().unwrap();
    };
    fill(&mut index, 0..400, 1);
    let before = index.reader().snapshot();
    let files =
        || std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    let had = files();
    (0..300).for_each(|id| assert!(index.remove(id).unwrap()));
    fill(&mut index, 500..900, 2);
    assert!(
        files().iter().all(|file| !had.contains(file) || !file.to_string_lossy().ends_with(".seg")),
        "{:?}",
        files()
    );
    drop(index);
    assert_eq!(before.count(), 400);
    for id in [0, 299, 399] {
        let found = before.search(&numbered(id, DIMENSIONS), &Search { k: 1, ..Search::default() }).unwrap();
        assert_eq!(found[0].id, id);
        assert_eq!(before.search(&numbered(id, DIMENSIONS), &exactly(1)).unwrap(), found);
    }
}

#[test]
fn an_index_that_is_dropped_stops_its_merge_and_the_next_one_begins_it_again() {
    let folder = tempdir().unwrap();
    let mut index = Index::open(folder.path(), options(DIMENSIONS, 300)).unwrap();
    (0..4_000).for_each(|id| index.add(id, &numbered(id, DIMENSIONS)).unwrap());
    index.seal(1).unwrap();
    assert!(index.is_merging(), "4,000 vectors are no graph yet");
    drop(index);
    let mut index = Index::open(folder.path(), options(DIMENSIONS, 300)).unwrap();
    assert_eq!(index.count(), 4_000);
    index.settle().unwrap();
    assert!(!index.is_merging());
    assert_eq!(index.count(), 4_000);
    let narrow = Search { k: 1, effort: Effort::Width(1), ..Search::default() };
    let found = (0..4_000).filter(|id| index.search(&numbered(*id, DIMENSIONS), &narrow).unwrap()[0].id == *id);
    assert!(found.count() < 4_000, "a walk this narrow misses some: is there a graph?");
    let names =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.ends_with(".seg") || name.ends_with(".tmp")).count(), 1);
}
