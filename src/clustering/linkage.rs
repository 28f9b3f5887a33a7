//! Exact average linkage from sums: groups merge, nearest pairs first, while their mean squared distance is within a cut.
//!
//! For unit vectors the mean squared distance between the members of A and B is `2 - 2 mean(A)·mean(B)`, so a group is
//! its sum and its size. Average linkage is reducible: a merge brings nobody nearer than they were. Hence
//!
//! - two groups that are each other's nearest may merge at once, in any order, and the result is that of the textbook
//!   loop which always merges the nearest pair of all (Bruynooghe 1977; Sumengen et al. 2021, arXiv:2105.11653);
//! - a nearest neighbor stays right until it merges, and its distance is a lower bound after that;
//! - a group whose nearest neighbor is beyond the cut is finished, and nobody's business any more.
//!
//! So each round refreshes neighbors that have merged away, against all groups that are left, and merges mutual pairs.
//! O(N) memory whatever the data, about N² products of 128 terms on faces. Where many groups share one neighbor, as
//! around the middle of one large crowd, refreshing all of them after each merge would be N³: the work a merge may cause is
//! therefore limited, nearest first, and the path of neighbors from one group is always among it. That path alone is the
//! nearest-neighbor chain, which needs at most 3 N refreshes.
//!
//! Sums are integers, so they do not depend on the order of merges, and slots are sorted by content, so ties do not
//! depend on the order of the input.

use rayon::prelude::*;

use super::nearest::{Near, Point, Points, Row};
use crate::Embedding;

/// One in the fixed point of sums. 2^31 of them fit for 2^32 members; half a unit is far below the rounding of an `f32`.
const ONE: f64 = (1u32 << 31) as f64;

/// Refreshes that one merge pays for, beyond the chain's.
const REFRESHES_PER_MERGE: usize = 8;

/// The sum of unit vectors, in fixed point.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sum([i64; Embedding::DIMENSIONS]);

impl Sum {
    pub(super) const ZERO: Self = Self([0; Embedding::DIMENSIONS]);

    pub(super) fn of(embedding: &Embedding) -> Self {
        let values = embedding.as_slice();
        Self(std::array::from_fn(|at| (f64::from(values[at]) * ONE).round() as i64))
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, value)| *sum += value);
    }

    /// The sum over `divisor` of the vectors' length.
    pub(super) fn over(&self, divisor: f64) -> Point {
        self.0.map(|sum| (sum as f64 / (ONE * divisor)) as f32)
    }

    /// The length of the sum.
    pub(super) fn length(&self) -> f64 {
        self.0.iter().map(|sum| (*sum as f64 / ONE).powi(2)).sum::<f64>().sqrt()
    }
}

/// One group on its way.
struct Group {
    sum: Sum,
    size: u64,
    /// Its name for ever: the lowest of its members' ranks.
    rank: u32,
    /// Its nearest neighbor, or where that has merged away a bound: nobody is nearer.
    near: Near,
    fresh: bool,
    alive: bool,
}

impl Group {
    fn mean(&self) -> Point {
        self.sum.over(self.size as f64)
    }

    /// Whether the neighbor is known; then the slot it is in.
    fn neighbor(&self) -> Option<usize> {
        (self.alive && self.fresh).then_some(self.near.slot as usize)
    }
}

/// Which group each embedding ends in. Labels are arbitrary.
pub(super) fn average_linkage(embeddings: &[Embedding], cut: f32) -> Vec<u32> {
    let sums: Vec<Sum> = embeddings.par_iter().map(Sum::of).collect();
    let mut order: Vec<u32> = (0..sums.len() as u32).collect();
    order.par_sort_unstable_by(|a, b| sums[*a as usize].cmp(&sums[*b as usize]).then(a.cmp(b)));

    // Equal embeddings are at distance zero, the first that any linkage merges; merged here, a crowd of copies is one point.
    let mut rank_of = vec![0u32; sums.len()];
    let mut groups: Vec<Group> = Vec::new();
    let mut last: Option<u32> = None;
    for input in order {
        let sum = &sums[input as usize];
        match groups.last_mut() {
            Some(group) if last.is_some_and(|last| sums[last as usize] == *sum) => {
                group.sum.add(sum);
                group.size += 1;
            }
            _ => groups.push(Group {
                sum: sum.clone(),
                size: 1,
                rank: groups.len() as u32,
                near: Near { dot: f32::INFINITY, slot: u32::MAX },
                fresh: false,
                alive: true,
            }),
        }
        rank_of[input as usize] = groups.len() as u32 - 1;
        last = Some(input);
    }
    drop(sums);

    let merged_into = Merging::new(groups, cut).run();
    rank_of.into_iter().map(|rank| root(&merged_into, rank)).collect()
}

/// Follows merges to the group that is left.
fn root(merged_into: &[u32], mut rank: u32) -> u32 {
    while merged_into[rank as usize] != rank {
        rank = merged_into[rank as usize];
    }
    rank
}

/// All groups on their way; a group's slot is its position, ascending by rank.
struct Merging {
    groups: Vec<Group>,
    means: Points,
    cut: f32,
    alive: usize,
    merged_into: Vec<u32>,
    /// Refreshes that have been paid for and not been made.
    allowance: usize,
}

impl Merging {
    fn new(groups: Vec<Group>, cut: f32) -> Self {
        let means = Points::new(groups.iter().map(Group::mean));
        let merged_into = (0..groups.len() as u32).collect();
        Self { means, cut, alive: groups.len(), merged_into, allowance: groups.len(), groups }
    }

    /// Merges until no two groups are within the cut; returns for each rank the rank it merged into, or itself.
    fn run(mut self) -> Vec<u32> {
        while self.alive > 0 {
            let refreshed = self.refresh();
            let merged = self.merge_mutual_pairs();
            assert!(refreshed || merged, "every group knows its neighbor, so the two nearest are each other's");
            if self.alive * 4 < self.groups.len() * 3 {
                self.compact();
            }
        }
        self.merged_into
    }

    /// Finds neighbors anew where they have merged away, as far as the allowance goes; finishes who is alone.
    fn refresh(&mut self) -> bool {
        let chosen = self.stale_to_refresh();
        let row = |slot: &u32| Row { point: self.means.get(*slot as usize), own: *slot };
        let rows: Vec<Row> = chosen.iter().map(row).collect();
        let nearest = self.means.nearest(&rows);
        for (slot, near) in chosen.iter().zip(&nearest) {
            let group = &mut self.groups[*slot as usize];
            (group.near, group.fresh) = (*near, true);
            // A group without any neighbor is at infinity.
            if near.distance() > self.cut {
                group.alive = false;
                self.alive -= 1;
                self.means.remove(*slot as usize);
            }
        }
        // Rounding can bring a merged group nearer to its neighbor than that neighbor's own was. Telling it keeps the nearest
        // pair of all mutual, whatever the rounding.
        for (slot, near) in chosen.iter().zip(&nearest) {
            if self.groups[*slot as usize].alive {
                let back = Near { dot: near.dot, slot: *slot };
                let neighbor = &mut self.groups[near.slot as usize];
                if neighbor.fresh && back.beats(neighbor.near) {
                    neighbor.near = back;
                }
            }
        }
        !chosen.is_empty()
    }

    /// Slots whose neighbor is unknown: all of them, or the most promising and the end of the chain.
    fn stale_to_refresh(&mut self) -> Vec<u32> {
        let stale = |(slot, group): (usize, &Group)| (group.alive && !group.fresh).then_some(slot as u32);
        let mut stale: Vec<u32> = self.groups.iter().enumerate().filter_map(stale).collect();
        if stale.len() > self.allowance {
            let promising = |slot: &u32| (-self.groups[*slot as usize].near.dot, *slot);
            stale.select_nth_unstable_by(self.allowance, |a, b| {
                let (a, b) = (promising(a), promising(b));
                a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
            });
            stale.truncate(self.allowance);
            if let Some(end) = self.chain_end().filter(|end| !stale.contains(end)) {
                stale.push(end);
            }
        }
        self.allowance = self.allowance.saturating_sub(stale.len());
        stale
    }

    /// From the first group along nearest neighbors, to one whose neighbor is unknown.
    fn chain_end(&self) -> Option<u32> {
        let mut slot = self.groups.iter().position(|group| group.alive)?;
        for _ in 0..self.alive {
            let Some(next) = self.groups[slot].neighbor() else { return Some(slot as u32) };
            slot = next;
        }
        None
    }

    fn merge_mutual_pairs(&mut self) -> bool {
        let mutual = |(slot, group): (usize, &Group)| {
            let other = group.neighbor()?;
            (slot < other && self.groups[other].neighbor() == Some(slot)).then_some((slot, other))
        };
        let pairs: Vec<(usize, usize)> = self.groups.iter().enumerate().filter_map(mutual).collect();
        let mut merged = vec![false; self.groups.len()];
        for &(kept, gone) in &pairs {
            let (left, right) = self.groups.split_at_mut(gone);
            let (keep, go) = (&mut left[kept], &mut right[0]);
            keep.sum.add(&go.sum);
            keep.size += go.size;
            keep.fresh = false;
            go.alive = false;
            self.merged_into[go.rank as usize] = keep.rank;
            self.means.set(kept, &keep.mean());
            self.means.remove(gone);
            (merged[kept], merged[gone]) = (true, true);
        }
        for group in &mut self.groups {
            if group.neighbor().is_some_and(|slot| merged[slot]) {
                group.fresh = false;
            }
        }
        self.alive -= pairs.len();
        self.allowance += pairs.len() * REFRESHES_PER_MERGE;
        !pairs.is_empty()
    }

    /// Moves the groups that are left together, in order.
    fn compact(&mut self) {
        let mut slots = vec![u32::MAX; self.groups.len()];
        let alive = self.groups.iter().enumerate().filter(|(_, group)| group.alive);
        alive.zip(0..).for_each(|((slot, _), moved)| slots[slot] = moved);
        self.groups.retain(|group| group.alive);
        for group in self.groups.iter_mut().filter(|group| group.fresh) {
            group.near.slot = slots[group.near.slot as usize];
        }
        self.means = Points::new(self.groups.iter().map(Group::mean));
    }
}
