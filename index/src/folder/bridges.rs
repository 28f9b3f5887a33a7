//! Builds bridges from the largest segment to others in the background, smallest first: the snapshots that are there use each as soon as it is.

use std::thread::{self, JoinHandle};

use super::live::Live;
use crate::stop::Stop;

/// Stops when it is dropped; what was built until then is kept.
#[derive(Default)]
pub(super) struct Bridges {
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Bridges {
    /// - `missing`: what lacks a bridge, largest first; `share`: of the time that it may work in.
    pub(super) fn start(from: Live, missing: Vec<Live>, share: f32) -> Self {
        if missing.is_empty() {
            return Self::default();
        }
        let stop = Stop::new(share);
        let until = stop.clone();
        let run = move || missing.iter().rev().for_each(|live| live.build_bridge(&from, &until));
        // Where no thread can be started, searches go on without.
        let thread = thread::Builder::new().name("bridges".into()).spawn(run).ok();
        Self { stop, thread }
    }

    pub(super) fn wait(&mut self) {
        self.stop.hurry();
        // It has no outcome, and its panic would be ours.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Drop for Bridges {
    fn drop(&mut self) {
        self.stop.set();
        self.wait();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use crate::kernel::dot;
    use crate::{Index, Options};

    const DIMENSIONS: usize = 16;

    /// Adds unit vectors around forty centres, and waits until all is in place.
    fn add(index: &mut Index, ids: std::ops::Range<u64>) {
        for id in ids.clone() {
            let wave = |of: u64, at: usize| ((of + 1) as f32 * 1.7 * (at as f32 + 1.3)).sin();
            let mut vector: Vec<f32> = (0..DIMENSIONS).map(|at| wave(id % 40, at) + 0.5 * wave(id, at)).collect();
            let length = dot(&vector, &vector).sqrt();
            vector.iter_mut().for_each(|x| *x /= length);
            index.add(id, &vector).unwrap();
        }
        index.seal(ids.end).unwrap();
        index.settle().unwrap();
    }

    #[test]
    fn once_it_settled_all_is_reached_from_the_largest_segment_whichever_that_is() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { dimensions: DIMENSIONS, graph_vectors_min: 600, ..Options::default() };
        let mut index = Index::open(folder.path(), options).unwrap();
        add(&mut index, 0..3_000);
        let reader = index.reader();
        let mut numbers = Vec::new();
        // One that stays without a graph, one that gets one, and one that all are merged into.
        for ids in [3_000..3_300, 3_300..4_000, 4_000..9_000, 9_000..9_200] {
            add(&mut index, ids);
            // Readers have what was built after it was published.
            let snapshot = reader.snapshot();
            let (largest, others) = snapshot.segments.split_first().unwrap();
            for live in others {
                assert!(live.bridge(Some(largest.number)).is_some(), "{} from {}", live.number, largest.number);
            }
            numbers.push((largest.number, others.len()));
        }
        assert!(numbers[0].0 != numbers[3].0 && numbers[0].1 == 1 && numbers[3].1 >= 1, "{numbers:?}");
    }
}
