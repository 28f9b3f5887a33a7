//! Compares the files of an index with their checksums in the background, once after it was opened.
//!
//! Searches compare what they read themselves, so nothing waits for this. It finds the damage that no search has met yet, and frees searches
//! of asking.

use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::live::Live;
use crate::segment::Segment;
use crate::stop::Stop;

/// After so many blocks it rests, so that it takes at most a share of one core and of the disk.
const BLOCKS_BETWEEN_RESTS: usize = 32;
const REST: Duration = Duration::from_millis(1);

/// Ends with the index.
pub(super) struct Scrub {
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Scrub {
    pub(super) fn start(segments: &[Live]) -> Self {
        let stop = Stop::default();
        // A segment that was merged away need not be looked at any more.
        let segments: Vec<Weak<Segment>> = segments.iter().map(|live| Arc::downgrade(&live.segment)).collect();
        let until = stop.clone();
        let run = move || segments.iter().filter_map(Weak::upgrade).for_each(|segment| check(&segment, &until));
        // Where no thread can be started, searches go on asking.
        let thread = thread::Builder::new().name("scrub".into()).spawn(run).ok();
        Self { stop, thread }
    }
}

fn check(segment: &Segment, stop: &Stop) {
    let mut blocks = 0;
    segment.check(|| {
        blocks += 1;
        if blocks % BLOCKS_BETWEEN_RESTS == 0 {
            thread::sleep(REST);
        }
        !stop.is_set()
    });
}

impl Drop for Scrub {
    fn drop(&mut self) {
        self.stop.set();
        // It has no outcome, and its panic would be ours: then the checksums stay to be compared by searches.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
