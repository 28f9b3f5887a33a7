//! Things made ahead by threads, and handed over in order: what keeps a trainer from waiting for its data.
//!
//! Thread `i` of `n` makes every n-th thing, and hands it over through a channel of its own that holds one. So order needs no lock, memory
//! is bounded by two things a thread, and what is made depends on its number alone.

use std::ops::Range;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;
use std::time::{Duration, Instant};

/// Things on their way, by number.
pub(super) struct Ahead<T> {
    lanes: Vec<Receiver<T>>,
    next: usize,
    waited: Duration,
}

impl<T: Send> Ahead<T> {
    /// Starts at least one thread; they end when all is made, or when this is dropped.
    pub(super) fn begin<'scope, 'env: 'scope>(
        scope: &'scope Scope<'scope, 'env>,
        threads: usize,
        numbers: Range<u64>,
        make: impl Fn(u64) -> T + Clone + Send + 'scope,
    ) -> Self
    where
        T: 'scope,
    {
        let threads = threads.max(1);
        let lane = |first: usize| {
            let (sender, receiver) = sync_channel(1);
            let (make, numbers) = (make.clone(), numbers.clone());
            scope.spawn(move || {
                // A receiver that is gone means that nobody wants more.
                numbers.skip(first).step_by(threads).try_for_each(|number| sender.send(make(number)).ok())
            });
            receiver
        };
        Self { lanes: (0..threads).map(lane).collect(), next: 0, waited: Duration::ZERO }
    }

    /// The next thing in order; none after the last.
    pub(super) fn next(&mut self) -> Option<T> {
        let begin = Instant::now();
        let thing = self.lanes[self.next].recv().ok();
        self.waited += begin.elapsed();
        self.next = (self.next + 1) % self.lanes.len();
        thing
    }

    /// How long `next` has waited, in all.
    pub(super) fn waited(&self) -> Duration {
        self.waited
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn things_come_in_order_whoever_made_them_and_no_more_than_were_asked_for() {
        for threads in [0, 1, 2, 3, 7] {
            let made: Vec<u64> = std::thread::scope(|scope| {
                let slow_at_times = |number: u64| {
                    std::thread::sleep(Duration::from_micros(if number.is_multiple_of(3) { 300 } else { 0 }));
                    number
                };
                let mut ahead = Ahead::begin(scope, threads, 5..25, slow_at_times);
                std::iter::from_fn(|| ahead.next()).collect()
            });
            assert_eq!(made, (5..25).collect::<Vec<_>>(), "{threads} threads");
        }
    }

    #[test]
    fn no_more_than_two_a_thread_are_made_ahead_and_dropping_ends_the_threads() {
        let made = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let mut ahead = Ahead::begin(scope, 2, 0..u64::MAX, |number| {
                made.fetch_add(1, Ordering::SeqCst);
                number
            });
            assert_eq!(ahead.next(), Some(0));
            std::thread::sleep(Duration::from_millis(30));
            assert!(made.load(Ordering::SeqCst) <= 1 + 2 * 2, "{} made", made.load(Ordering::SeqCst));
        });
    }
}
