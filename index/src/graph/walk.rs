//! Greedy descent through the upper layers, then beam search in layer 0.
//!
//! Follows Malkov & Yashunin 2018 (arXiv:1603.09320), algorithms 2 and 5. Two departures: rows that do not count are walked
//! through but not returned, because cutting them would disconnect the graph; and the beam begins at every seed, so that each
//! row can be found.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Graph;
use crate::kernel;
use crate::nearest::{Found, Nearest};

impl Graph<'_> {
    /// The rows nearest to the query, at most `ef` of those that count, nearest first; keys are rows.
    ///
    /// - `budget`: distances that may be measured; `None` when they are spent.
    pub(crate) fn walk(
        &self,
        query: &[f32],
        vectors: &[f32],
        ef: usize,
        budget: usize,
        counts: impl Fn(u32) -> bool,
        scratch: &mut Scratch,
    ) -> Option<Vec<Found>> {
        scratch.reset(self.upper_at.len());
        let start = self.descend(query, vectors, scratch);
        let mut found = Nearest::new(ef);
        scratch.meet([start].into_iter().chain(self.seeds.iter().copied()));
        loop {
            if scratch.met.len() > budget {
                return None;
            }
            scratch.measure(query, vectors);
            for (&row, &distance) in scratch.rows.iter().zip(&scratch.distances) {
                if distance <= found.bound() {
                    let here = Found { distance, key: u64::from(row) };
                    scratch.to_visit.push(Reverse(here));
                    if counts(row) {
                        found.offer(here);
                    }
                }
            }
            match scratch.to_visit.pop() {
                Some(Reverse(next)) if next.distance <= found.bound() => {
                    scratch.meet(self.neighbors(next.key as u32, 0))
                }
                _ => return Some(found.into_sorted()),
            }
        }
    }

    /// The nearest row of layer 1 that steps to nearer neighbors lead to.
    fn descend(&self, query: &[f32], vectors: &[f32], scratch: &mut Scratch) -> u32 {
        let entry = self.seeds[0];
        let mut best = Found { distance: f32::INFINITY, key: u64::from(entry) };
        for layer in (1..=self.level(entry)).rev() {
            loop {
                let here = best;
                scratch.rows.clear();
                scratch.rows.extend(self.neighbors(here.key as u32, layer));
                scratch.rows.push(here.key as u32);
                scratch.measure(query, vectors);
                for (&row, &distance) in scratch.rows.iter().zip(&scratch.distances) {
                    best = best.min(Found { distance, key: u64::from(row) });
                }
                if best.key == here.key {
                    break;
                }
            }
        }
        best.key as u32
    }
}

/// What a walk needs to remember, kept from one query to the next so that a query allocates next to nothing.
#[derive(Default)]
pub(crate) struct Scratch {
    /// A bit per row that was met.
    is_met: Vec<u64>,
    /// The rows whose bits are set.
    met: Vec<u32>,
    to_visit: BinaryHeap<Reverse<Found>>,
    /// Rows to measure, and how far they are.
    rows: Vec<u32>,
    distances: Vec<f32>,
}

impl Scratch {
    fn reset(&mut self, rows: usize) {
        for row in self.met.drain(..) {
            self.is_met[row as usize / 64] = 0;
        }
        self.is_met.resize(self.is_met.len().max(rows.div_ceil(64)), 0);
        self.to_visit.clear();
    }

    /// Those of the rows that are met for the first time are what [`measure`](Self::measure) measures next.
    fn meet(&mut self, rows: impl Iterator<Item = u32>) {
        self.rows.clear();
        for row in rows {
            let bit = 1 << (row % 64);
            let word = &mut self.is_met[row as usize / 64];
            if *word & bit == 0 {
                *word |= bit;
                self.rows.push(row);
            }
        }
        self.met.extend_from_slice(&self.rows);
    }

    fn measure(&mut self, query: &[f32], vectors: &[f32]) {
        self.distances.resize(self.rows.len(), 0.0);
        (kernel::best().gather)(query, vectors, &self.rows, &mut self.distances);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::build;
    use crate::segment::Row;

    /// The graph of 600 points on a circle, and the points.
    fn circle() -> (Vec<u32>, Vec<f32>) {
        let vectors: Vec<f32> = (0..600).flat_map(|i| [(i as f32).cos(), (i as f32).sin()]).collect();
        let rows: Vec<Row<'_>> = (0..).zip(vectors.chunks(2)).map(|(id, vector)| Row { id, vector }).collect();
        let words =
            build(&rows).chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect();
        (words, vectors)
    }

    fn walk(ef: usize, budget: usize, counts: impl Fn(u32) -> bool) -> Option<Vec<u64>> {
        let (words, vectors) = circle();
        let graph = Graph::view(bytemuck::cast_slice(&words), vectors.len() / 2);
        let found = graph.walk(&[1.0, 0.0], &vectors, ef, budget, counts, &mut Scratch::default())?;
        Some(found.into_iter().map(|found| found.key).collect())
    }

    #[test]
    fn a_walk_finds_the_nearest_and_measures_few() {
        // 333 / 53 and 377 / 60 are nearly a turn.
        assert_eq!(walk(3, 300, |_| true).as_deref(), Some(&[0, 333, 377][..]));
    }

    #[test]
    fn rows_that_do_not_count_are_walked_through() {
        assert_eq!(walk(2, 600, |row| row > 590).map(|found| found.len()), Some(2));
    }

    #[test]
    fn a_walk_ends_when_its_budget_is_spent() {
        assert_eq!(walk(3, 100, |_| false), None);
        assert_eq!(walk(3, 600, |_| false), Some(vec![]));
    }
}
