//! The best `limit` of everything offered, in an order without ties: by distance, then by key.
//!
//! A key is an id where answers are collected, and a row inside a segment. Rows ascend with ids, so both orders agree.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// There is room from the start for so many: most searches want no more, and a limit may be as large as there are numbers for.
const ROOM: usize = 32;

/// The nearest so far. Takes any number of offers and remembers `limit` of them, none farther than `within`.
#[derive(Clone)]
pub(crate) struct Nearest {
    limit: usize,
    within: f32,
    farthest_first: BinaryHeap<Found>,
}

impl Nearest {
    pub(crate) fn new(limit: usize, within: f32) -> Self {
        Self { limit, within, farthest_first: BinaryHeap::with_capacity(limit.min(ROOM)) }
    }

    /// How many it remembers at most.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Whether it remembers as many as it can.
    pub(crate) fn is_full(&self) -> bool {
        self.farthest_first.len() >= self.limit
    }

    /// Offers beyond this distance are refused: `within` until `limit` were taken.
    pub(crate) fn bound(&self) -> f32 {
        match self.farthest_first.peek() {
            Some(farthest) if self.is_full() => farthest.distance,
            _ => self.within,
        }
    }

    /// Takes what is near enough; whether it did.
    pub(crate) fn offer(&mut self, found: Found) -> bool {
        // False for what is no number.
        let is_within = found.distance <= self.within;
        if !is_within {
            return false;
        }
        if self.farthest_first.len() < self.limit {
            self.farthest_first.push(found);
            return true;
        }
        match self.farthest_first.peek_mut() {
            Some(mut farthest) if found < *farthest => {
                *farthest = found;
                true
            }
            _ => false,
        }
    }

    /// The nearest of both, which have one limit.
    pub(crate) fn merged((mut all, more): (Self, Self)) -> Self {
        for found in more.farthest_first {
            all.offer(found);
        }
        all
    }

    /// Nearest first.
    pub(crate) fn into_sorted(self) -> Vec<Found> {
        self.farthest_first.into_sorted_vec()
    }
}

/// A key and how far it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) distance: f32,
    pub(crate) key: u64,
}

impl Ord for Found {
    fn cmp(&self, other: &Self) -> Ordering {
        self.distance.total_cmp(&other.distance).then(self.key.cmp(&other.key))
    }
}

impl PartialOrd for Found {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Found {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Found {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_are_kept_and_the_lower_key_wins_a_tie() {
        let mut nearest = Nearest::new(2, f32::INFINITY);
        for (distance, key) in [(0.5, 9), (0.5, 3), (0.7, 1), (0.5, 5)] {
            nearest.offer(Found { distance, key });
        }
        assert_eq!(nearest.into_sorted().iter().map(|found| found.key).collect::<Vec<_>>(), [3, 5]);
    }

    #[test]
    fn what_is_too_far_away_or_no_number_is_not_taken() {
        let mut nearest = Nearest::new(2, 0.5);
        for (distance, key) in [(0.6, 1), (f32::NAN, 2), (0.5, 3), (0.4, 4), (f32::NAN, 5)] {
            nearest.offer(Found { distance, key });
        }
        assert_eq!(nearest.into_sorted().iter().map(|found| found.key).collect::<Vec<_>>(), [4, 3]);
    }

    #[test]
    fn the_bound_is_infinite_until_enough_were_taken() {
        let mut nearest = Nearest::new(2, f32::INFINITY);
        nearest.offer(Found { distance: 0.5, key: 0 });
        assert_eq!(nearest.bound(), f32::INFINITY);
        nearest.offer(Found { distance: 1.5, key: 1 });
        assert_eq!(nearest.bound(), 1.5);
    }
}
