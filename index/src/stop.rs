//! A wish, from another thread, that long work ends soon.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Shared between who works and who may want it to end. Nothing else is told by it, so no order of memory matters.
#[derive(Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

/// The work ended because somebody wanted it to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stopped;

impl Stop {
    pub(crate) fn set(&self) {
        self.0.store(true, Relaxed);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Relaxed)
    }

    pub(crate) fn check(&self) -> Result<(), Stopped> {
        if self.is_set() { Err(Stopped) } else { Ok(()) }
    }
}
