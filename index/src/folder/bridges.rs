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
