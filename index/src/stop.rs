//! A wish, from another thread, that long work ends soon, and that it leaves time to others until then.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// Who is to leave time to others rests once it worked for so long. Short, so that what waits meanwhile does not become many.
const WORK: Duration = Duration::from_micros(500);
/// However long it worked, it rests as if that had been so long at most: nobody who waits for its end waits for more.
const WORK_MAX: Duration = Duration::from_millis(20);
/// The least share of the time that is worked in.
const SHARE_MIN: f32 = 0.05;

thread_local! {
    /// Since when this thread works.
    static SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Shared between who works and who may want it to end. Nothing else is told by it, so no order of memory matters.
#[derive(Clone)]
pub(crate) struct Stop {
    is_set: Arc<AtomicBool>,
    /// Whether somebody waits for the end: then there is no rest.
    is_hurried: Arc<AtomicBool>,
    share: f32,
}

/// The work ended because somebody wanted it to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stopped;

impl Default for Stop {
    fn default() -> Self {
        Self::new(1.0)
    }
}

impl Stop {
    /// - `share`: of the time that each thread may work in, up to 1.
    pub(crate) fn new(share: f32) -> Self {
        // The least for what is no number, too.
        let share = if share > SHARE_MIN { share.min(1.0) } else { SHARE_MIN };
        Self { is_set: Arc::default(), is_hurried: Arc::default(), share }
    }

    pub(crate) fn set(&self) {
        self.is_set.store(true, Relaxed);
    }

    /// No rest from now on.
    pub(crate) fn hurry(&self) {
        self.is_hurried.store(true, Relaxed);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.is_set.load(Relaxed)
    }

    /// Is called now and then by who works: rests where it is time to.
    pub(crate) fn check(&self) -> Result<(), Stopped> {
        if self.is_set() {
            return Err(Stopped);
        }
        if self.share < 1.0 && !self.is_hurried.load(Relaxed) {
            let (now, since) = (Instant::now(), SINCE.get());
            let worked = now - since.unwrap_or(now);
            if worked >= WORK {
                thread::sleep(worked.min(WORK_MAX).mul_f32(1.0 / self.share - 1.0));
            }
            if since.is_none() || worked >= WORK {
                SINCE.set(Some(Instant::now()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_to_leave_time_rests_as_long_as_it_worked() {
        let stop = Stop::new(0.5);
        assert_eq!(stop.check(), Ok(()));
        let begin = Instant::now();
        while begin.elapsed() < 4 * WORK {}
        let before = Instant::now();
        assert_eq!(stop.check(), Ok(()));
        assert!(before.elapsed() >= 3 * WORK, "{:?}", before.elapsed());
        stop.clone().hurry();
        let before = Instant::now();
        (0..100).for_each(|_| assert_eq!(stop.check(), Ok(())));
        while before.elapsed() < 2 * WORK {}
        let since = SINCE.get();
        assert_eq!((stop.check(), SINCE.get()), (Ok(()), since), "it rested");
        stop.set();
        assert_eq!(stop.check(), Err(Stopped));
    }

    #[test]
    fn any_share_is_some_work() {
        for share in [-1.0, 0.0, f32::NAN, 2.0] {
            assert!((SHARE_MIN..=1.0).contains(&Stop::new(share).share), "{share}");
        }
    }
}
