//! Which of many points is nearest to each of some others, by comparing with all: no graph, no matrix in memory.
//!
//! Nearest means the largest dot product, which for unit vectors and for means of unit vectors is the smallest (mean)
//! squared distance, `2 - 2 a·b`. A dot product here depends on its two points only: it is summed in one order, by
//! multiplications and additions that are never fused, so it is the same for every thread count, block and CPU.

use rayon::prelude::*;

use crate::Embedding;

/// Floats of one point.
const DIMENSIONS: usize = Embedding::DIMENSIONS;
/// Points side by side in a panel: two registers of AVX, so that four rows of sums stay in registers.
const LANES: usize = 16;
/// Rows that share one pass over a panel.
const ROWS: usize = 4;
/// Panels that stay in the second-level cache while the rows of a job pass over them: 128 KiB.
const PANELS_CACHED: usize = 16;
/// Rows, and panels, of one job for a thread.
const JOB_ROWS: usize = 64;
const JOB_PANELS: usize = 128;

/// The coordinates of a point.
pub(super) type Point = [f32; DIMENSIONS];

/// Sixteen points, dimension by dimension.
type Panel = [[f32; LANES]; DIMENSIONS];

/// Points that can be searched, each in its slot. An empty slot holds NaN, which is nearer than nothing.
pub(super) struct Points {
    panels: Vec<Panel>,
}

/// A point that asks, and the slot that must not be its answer.
pub(super) struct Row {
    pub(super) point: Point,
    pub(super) own: u32,
}

impl Row {
    /// For `own`: every slot may be the answer.
    pub(super) const ANY: u32 = u32::MAX;
}

/// The answer: a slot and the dot product with it. Of two that are equally near, the lower slot is nearer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Near {
    pub(super) dot: f32,
    pub(super) slot: u32,
}

impl Near {
    /// No slot at all.
    pub(super) const NONE: Self = Self { dot: f32::NEG_INFINITY, slot: u32::MAX };

    /// Whether this answer is nearer than the other.
    pub(super) fn beats(self, other: Self) -> bool {
        self.dot > other.dot || (self.dot == other.dot && self.slot < other.slot)
    }

    /// The mean squared distance between two means of unit vectors whose dot product this is.
    pub(super) fn distance(self) -> f32 {
        2.0 - 2.0 * self.dot
    }
}

impl Points {
    /// Puts each point into the slot of its position.
    pub(super) fn new(points: impl ExactSizeIterator<Item = Point>) -> Self {
        let mut all = Self { panels: vec![[[f32::NAN; LANES]; DIMENSIONS]; points.len().div_ceil(LANES)] };
        points.enumerate().for_each(|(slot, point)| all.set(slot, &point));
        all
    }

    /// The point in a slot.
    pub(super) fn get(&self, slot: usize) -> Point {
        let panel = &self.panels[slot / LANES];
        std::array::from_fn(|dimension| panel[dimension][slot % LANES])
    }

    /// Replaces the point in a slot.
    pub(super) fn set(&mut self, slot: usize, point: &Point) {
        let panel = &mut self.panels[slot / LANES];
        panel.iter_mut().zip(point).for_each(|(lanes, value)| lanes[slot % LANES] = *value);
    }

    /// Empties a slot.
    pub(super) fn remove(&mut self, slot: usize) {
        self.set(slot, &[f32::NAN; DIMENSIONS]);
    }

    /// The nearest slot to each row.
    pub(super) fn nearest(&self, rows: &[Row]) -> Vec<Near> {
        let job = |rows: &[Row]| {
            let none = || vec![Near::NONE; rows.len()];
            let parts = self.panels.par_chunks(JOB_PANELS).enumerate().map(|(part, panels)| {
                let mut best = none();
                let first = (part * JOB_PANELS * LANES) as u32;
                pulp::Arch::new().dispatch(|| scan(rows, panels, first, &mut best));
                best
            });
            parts.reduce(none, |mut best, other| {
                best.iter_mut().zip(other).filter(|(best, other)| other.beats(**best)).for_each(|(best, o)| *best = o);
                best
            })
        };
        rows.par_chunks(JOB_ROWS).flat_map_iter(job).collect()
    }
}

/// The dot product as the panels compute it.
pub(super) fn dot(a: &Point, b: &Point) -> f32 {
    a.iter().zip(b).fold(0.0, |sum, (a, b)| sum + a * b)
}

/// Compares every row with every point of `panels`, whose first point is in slot `first`.
#[inline(always)]
fn scan(rows: &[Row], panels: &[Panel], first: u32, best: &mut [Near]) {
    for (block, panels) in panels.chunks(PANELS_CACHED).enumerate() {
        for (rows, best) in rows.chunks(ROWS).zip(best.chunks_mut(ROWS)) {
            // A last group that is not full computes its last row again.
            let points: [&Point; ROWS] = std::array::from_fn(|row| &rows[row.min(rows.len() - 1)].point);
            for (panel, lanes) in panels.iter().enumerate() {
                let dots = dots(points, lanes);
                let first = first + ((block * PANELS_CACHED + panel) * LANES) as u32;
                for ((row, best), dots) in rows.iter().zip(best.iter_mut()).zip(&dots) {
                    if dots.iter().fold(false, |any, dot| any | (*dot >= best.dot)) {
                        for (slot, dot) in (first..).zip(dots) {
                            let near = Near { dot: *dot, slot };
                            if near.beats(*best) && slot != row.own {
                                *best = near;
                            }
                        }
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn dots(points: [&Point; ROWS], panel: &Panel) -> [[f32; LANES]; ROWS] {
    let mut sums = [[0f32; LANES]; ROWS];
    for (dimension, lanes) in panel.iter().enumerate() {
        for (sums, point) in sums.iter_mut().zip(points) {
            let value = point[dimension];
            sums.iter_mut().zip(lanes).for_each(|(sum, lane)| *sum += value * lane);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};

    #[test]
    fn the_nearest_slot_is_the_one_that_plain_comparison_finds() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
        let mut points: Vec<Point> = (0..2500).map(|_| std::array::from_fn(|_| rng.random_range(-1.0..1.0))).collect();
        points[2100] = points[40];
        let mut searched = Points::new(points.iter().copied());
        searched.remove(7);
        let rows: Vec<Row> =
            (0..points.len()).step_by(19).chain([40, 2100]).map(|i| Row { point: points[i], own: i as u32 }).collect();
        for (row, near) in rows.iter().zip(searched.nearest(&rows)) {
            let mut plain = Near::NONE;
            for (slot, point) in points.iter().enumerate().filter(|(slot, _)| *slot != 7) {
                let near = Near { dot: dot(&row.point, point), slot: slot as u32 };
                if near.slot != row.own && near.beats(plain) {
                    plain = near;
                }
            }
            assert_eq!(near, plain, "for the point in slot {}", row.own);
        }
        assert_eq!(searched.get(41), points[41]);
    }

    #[test]
    fn among_no_other_points_nothing_is_near() {
        let mut alone = Points::new([[1.0; DIMENSIONS]].into_iter());
        let row = || [Row { point: [1.0; DIMENSIONS], own: 0 }];
        assert_eq!(alone.nearest(&row()), [Near::NONE]);
        alone.remove(0);
        assert_eq!(alone.nearest(&row()), [Near::NONE]);
        assert_eq!(Points::new([].into_iter()).nearest(&row()), [Near::NONE]);
    }
}
