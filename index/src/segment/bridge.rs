//! Ways from the rows of a large segment to those of a small one, so that a search need not begin anew in each.
//!
//! A walk of the large segment ends among its rows that are nearest to the query. A row of the small one that is near the query is near to some of these,
//! too. So each is reached from its piers, the rows of the large segment that are nearest to it, and what is reached from several of the rows where
//! a walk ended is compared by its code, and by its vector where that may be near enough. What only one of them leads to is more than that, and rarely near.
//!
//! In memory only, some 200 bytes for each row and a bit for each of the large segment, since it is soon made anew, and a search without it walks or
//! scans instead. Whether it finds enough is measured when it is made.

use std::ops::RangeInclusive;

use roaring::{RoaringBitmap, RoaringTreemap};

use super::Segment;
use crate::graph::{Reach, Scratch, Trusted};
use crate::kernel::prefetch;
use crate::nearest::Nearest;
use crate::quantiser::{self, Scorer, code_bytes};
use crate::sieve::Query;
use crate::stop::Stop;
use crate::{Effort, Result, Search};

/// Rows of the large segment that each is reached from, and from how many of them it must be.
const PIERS: usize = 32;
const REACHED_MIN: u8 = 2;
/// Of fewer ends, hardly any two lead to the same row.
const ENDS_MIN: usize = 8;
/// A scan of fewer rows takes no longer, and the ways to more could not be counted in 32 bits.
const ROWS: RangeInclusive<usize> = 128..=1 << 26;
/// Ways are kept in groups of about so many: half a line of the cache.
const GROUP: usize = 8;
/// Standard deviations of the codes that a row may be nearer by than its code says.
const ERRORS: f32 = 3.0;
/// Rows that are looked for when it is measured what is found, at most; what the walks of the large segment aim at then, and the least share of the
/// nearest in the small one that must be found. Few of the answers are from there.
const QUERIES: usize = 256;
const RECALL: f32 = 0.95;
const FOUND_MIN: f64 = 0.8;

/// From one segment to another.
pub(crate) struct Bridge {
    /// Of the small segment.
    rows: usize,
    /// A bit for each row of the large one: whether anything is reached from there. Most are no piers of a small segment, and need not be looked up.
    piers: Vec<u64>,
    /// Of a pier so many of its lowest bits, and below them a row that is reached from there; in the order of piers.
    ways: Vec<u32>,
    pier_bits: u32,
    row_bits: u32,
    /// Where the ways from piers begin that are alike but for these bits, and where the last of them end.
    starts: Vec<u32>,
    /// Of each row, as the large segment's quantiser has it.
    codes: Vec<u8>,
}

/// Where a walk ended, and room for what is reached from there.
#[derive(Default)]
pub(crate) struct Ends {
    rows: Vec<u32>,
    /// Those of them that anything is reached from.
    piers: Vec<u32>,
    /// What the walk looked for.
    query: quantiser::Query,
    /// What is reached, as often as it is.
    reached: Vec<u32>,
    /// How often each row was, and zero between two searches.
    times: Vec<u8>,
    /// What was reached often enough, each once, and what their codes say.
    near: Vec<u32>,
    scores: Vec<i32>,
}

impl Bridge {
    /// `None` where a bridge would not help or would not find enough, and where it was to stop.
    ///
    /// - `from`: what is walked; the larger one, all of which was compared with its checksums.
    ///
    /// # Errors
    /// `Corrupt`.
    pub(crate) fn new(from: &Segment, to: &Segment, stop: &Stop) -> Result<Option<Self>> {
        let pays = ROWS.contains(&to.count()) && from.count() > to.count() && from.is_walked();
        if !pays {
            return Ok(None);
        }
        let (graph, quantiser, vectors) = (from.graph()?, from.quantiser()?, to.vectors()?);
        let codes = from.bytes.unchecked(from.sections.codes.clone());
        let mut scratch = Scratch::default();
        let mut ends = Vec::with_capacity(PIERS * to.count());
        let dimensions = to.header.dimensions as usize;
        let mut of_rows = vec![0; code_bytes(dimensions) * to.count()];
        let each = of_rows.chunks_exact_mut(code_bytes(dimensions));
        for ((row, vector), code) in (0u32..).zip(vectors.chunks_exact(dimensions)).zip(each) {
            if stop.check().is_err() {
                return Ok(None);
            }
            let query = quantiser.query(vector, Default::default());
            let Ok(piers) = graph.search(&query, codes, None, &Reach::width(PIERS), &mut scratch, &Trusted);
            ends.extend(piers.iter().map(|pier| [pier.row(), row]));
            quantiser.encode(vector, code);
            quantiser.straighten(vector, code);
        }
        ends.sort_unstable();
        let mut piers = vec![0; from.count().div_ceil(64)];
        ends.iter().for_each(|[pier, _]| piers[*pier as usize / 64] |= 1 << (pier % 64));
        let row_bits = to.count().next_power_of_two().ilog2();
        let group = (from.count() * GROUP / ends.len().max(1)).max(1);
        let pier_bits = group.ilog2().min(u32::BITS - row_bits);
        let groups = ((from.count() - 1) >> pier_bits) as u32 + 1;
        let starts = (0..=groups).map(|group| ends.partition_point(|[pier, _]| pier >> pier_bits < group) as u32);
        let starts = starts.collect();
        let ways = ends.iter().map(|[pier, row]| lowest(*pier, pier_bits) << row_bits | row).collect();
        let bridge = Self { rows: to.count(), piers, ways, pier_bits, row_bits, starts, codes: of_rows };
        Ok(bridge.finds_enough(from, to, &mut scratch, stop)?.then_some(bridge))
    }

    /// Asks for what is read first.
    pub(crate) fn prefetch(&self, ends: &mut Ends) {
        self.find_piers(ends);
        ends.piers.iter().for_each(|pier| prefetch(self.ways(*pier)));
    }

    /// Offers the rows that are allowed and not deleted, under their ids, as far as they are reached.
    ///
    /// # Errors
    /// `Corrupt` where the ids or vectors that it needs are.
    pub(crate) fn search(
        &self,
        to: &Segment,
        query: &Query<'_>,
        allowed: Option<&RoaringTreemap>,
        deleted: &RoaringBitmap,
        ends: &mut Ends,
        nearest: &mut Nearest,
    ) -> Result<()> {
        let Some(eligible) = to.eligible(allowed, deleted)? else { return Ok(()) };
        self.reach(ends, nearest.bound());
        ends.near.retain(|row| eligible.contains(*row));
        if ends.near.is_empty() {
            return Ok(());
        }
        to.compare(query.vector, &ends.near, |found| {
            nearest.offer(found);
        })
    }

    /// Which of the ends are piers: without a branch for each, like all that follows.
    fn find_piers(&self, Ends { rows, piers, .. }: &mut Ends) {
        piers.resize(rows.len() + 1, 0);
        let mut count = 0;
        for row in rows {
            piers[count] = *row;
            count += (self.piers[*row as usize / 64] >> (*row % 64) & 1) as usize;
        }
        piers.truncate(count);
    }

    /// The ways from a pier, and from some beside it.
    fn ways(&self, pier: u32) -> &[u32] {
        let group = (pier >> self.pier_bits) as usize;
        let [start, end] = [0, 1].map(|more| self.starts[group + more] as usize);
        &self.ways[start..end]
    }

    /// Finds what may be within a squared distance: without a branch for each row, since nothing foresees which that are.
    fn reach(&self, ends: &mut Ends, within: f32) {
        self.find_piers(ends);
        let Ends { piers, query, reached, times, near, scores, .. } = ends;
        let mut count = 0;
        for pier in piers {
            let (ways, pier) = (self.ways(*pier), lowest(*pier, self.pier_bits));
            reached.resize(reached.len().max(count + ways.len()), 0);
            for way in ways {
                reached[count] = lowest(*way, self.row_bits);
                count += usize::from(way >> self.row_bits == pier);
            }
        }
        let reached = &reached[..count];
        times.resize(times.len().max(self.rows), 0);
        near.resize(count + 1, 0);
        let mut count = 0;
        for row in reached {
            let times = &mut times[*row as usize];
            *times = times.saturating_add(1);
            near[count] = *row;
            count += usize::from(*times == REACHED_MIN);
        }
        near.truncate(count);
        reached.iter().for_each(|row| times[*row as usize] = 0);
        Scorer::nibbles(&query.numbers, &self.codes).score(near, scores);
        // Between unit vectors a product of p is a squared distance of 2 - 2 p.
        let least = (1.0 - within / 2.0 - query.origin - ERRORS * query.error) / query.scale;
        let mut scores = scores.iter();
        near.retain(|_| scores.next().is_some_and(|score| *score as f32 >= least));
    }

    /// Whether enough is found of what is nearer to rows of `to` than the ten nearest rows of `from`.
    fn finds_enough(&self, from: &Segment, to: &Segment, scratch: &mut Scratch, stop: &Stop) -> Result<bool> {
        let search = Search { effort: Effort::Recall(RECALL), ..Search::default() };
        let (kept, none, mut ends) = (to.kept()?, RoaringBitmap::new(), Ends::default());
        let (mut found, mut all) = (0, 0);
        for row in (0..self.rows).step_by(self.rows.div_ceil(QUERIES)) {
            let vector = to.vector(row as u32)?;
            let mut nearest = Nearest::new(search.k, f32::INFINITY);
            let is_walked = from.search(&Query::new(&vector), &search, &none, scratch, &mut nearest)?;
            if !is_walked || stop.check().is_err() {
                return Ok(false);
            }
            let [mut of_near, mut of_all] = [(); 2].map(|()| Nearest::new(search.k, nearest.bound()));
            ends.set(scratch);
            self.reach(&mut ends, nearest.bound());
            let own = to.id(row as u32)?;
            to.compare(&vector, &ends.near, |found| {
                if found.key != own {
                    of_near.offer(found);
                }
            })?;
            kept.scan(&vector, self.rows, &mut of_all, |at| (at != row).then_some(at as u64));
            found += of_near.into_sorted().len();
            all += of_all.into_sorted().len();
        }
        Ok(f64::from(found as u32) >= FOUND_MIN * f64::from(all as u32))
    }
}

fn lowest(number: u32, bits: u32) -> u32 {
    number & ((1 << bits) - 1)
}

impl Ends {
    /// Where the last walk ended, and what it looked for; whether that is enough to go on from.
    pub(crate) fn set(&mut self, scratch: &mut Scratch) -> bool {
        self.rows.clear();
        self.rows.extend(scratch.found().iter().map(|entry| entry.row()));
        std::mem::swap(&mut self.query, &mut scratch.query);
        self.rows.len() >= ENDS_MIN
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::super::{Layout, Row, write};
    use super::*;
    use crate::graph::Progress;
    use crate::storage::Disk;
    use crate::{Kept, kernel};

    const DIMENSIONS: usize = 16;

    /// Vectors around a few dozen centres.
    fn vectors(count: usize, seed: u64) -> Vec<Vec<f32>> {
        let mut of_centres = ChaCha8Rng::seed_from_u64(1);
        let centres: Vec<Vec<f32>> =
            (0..40).map(|_| (0..DIMENSIONS).map(|_| of_centres.random_range(-1.0..1.0)).collect()).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut vector = |at: usize| {
            let mut vector: Vec<f32> = centres[at % 40].iter().map(|x| x + rng.random_range(-0.7..0.7)).collect();
            let length = kernel::dot(&vector, &vector).sqrt();
            vector.iter_mut().for_each(|x| *x /= length);
            vector
        };
        (0..count).map(&mut vector).collect()
    }

    /// A segment with a graph or without, whose ids begin at `first`.
    fn segment(disk: &Disk, number: u64, first: u64, vectors: &[Vec<f32>], graph: Option<Kept>) -> Segment {
        let rows: Vec<Row<'_>> = (first..).zip(vectors).map(|(id, vector)| Row { id, vector }).collect();
        let layout = Layout { dimensions: DIMENSIONS, graph, sequences: [0, 1] };
        let stamp = write(disk, number, &rows, layout, Progress::NONE, &Stop::default()).unwrap();
        let segment = Segment::open(disk, number, stamp, DIMENSIONS).unwrap();
        segment.warm_up().unwrap();
        segment
    }

    fn segments(graph: Option<Kept>) -> (tempfile::TempDir, [Segment; 2]) {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        let large = segment(&disk, 1, 0, &vectors(4000, 2), Some(Kept::F32));
        let small = segment(&disk, 2, 10_000, &vectors(400, 3), graph);
        (folder, [large, small])
    }

    /// Of the ids that are found in the small segment and those that are to be found, how many there are.
    fn found(bridge: &Bridge, [large, small]: &[Segment; 2], queries: &[Vec<f32>]) -> [usize; 2] {
        let (mut scratch, mut ends, none) = (Scratch::default(), Ends::default(), RoaringBitmap::new());
        let search = Search { effort: Effort::Recall(RECALL), ..Search::default() };
        let exact = Search { effort: Effort::Exact, ..search };
        let mut counts = [0, 0];
        for query in queries.iter().map(|vector| Query::new(vector)) {
            let mut nearest = Nearest::new(10, f32::INFINITY);
            assert!(large.search(&query, &search, &none, &mut scratch, &mut nearest).unwrap());
            let mut all = nearest.clone();
            ends.set(&mut scratch);
            bridge.search(small, &query, None, &none, &mut ends, &mut nearest).unwrap();
            small.search(&query, &exact, &none, &mut scratch, &mut all).unwrap();
            let [reached, all] = [nearest, all].map(|nearest| -> Vec<u64> {
                nearest.into_sorted().iter().map(|found| found.key).filter(|key| *key >= 10_000).collect()
            });
            assert!(reached.windows(2).all(|pair| pair[0] != pair[1]), "{reached:?}");
            counts[0] += all.iter().filter(|id| reached.contains(id)).count();
            counts[1] += all.len();
        }
        counts
    }

    #[test]
    fn most_of_a_small_segment_that_is_near_is_reached_from_a_large_one() {
        for graph in [None, Some(Kept::F32), Some(Kept::Codes)] {
            let (_folder, segments) = segments(graph);
            let bridge = Bridge::new(&segments[0], &segments[1], &Stop::default()).unwrap().unwrap();
            let [reached, all] = found(&bridge, &segments, &vectors(200, 4));
            assert!(all > 100 && reached * 10 >= all * 9, "{reached} of {all}");
        }
    }

    #[test]
    fn what_is_deleted_or_not_allowed_is_not_offered() {
        let (_folder, [large, small]) = segments(None);
        let bridge = Bridge::new(&large, &small, &Stop::default()).unwrap().unwrap();
        let deleted: RoaringBitmap = (0..400).filter(|row| row % 2 == 0).collect();
        let allowed: RoaringTreemap = (10_000..10_400).filter(|id| id % 3 == 0).collect();
        let (mut scratch, mut ends, mut offered) = (Scratch::default(), Ends::default(), 0);
        for vector in &vectors(100, 5) {
            let query = Query::new(vector);
            let mut nearest = Nearest::new(10, f32::INFINITY);
            large.search(&query, &Search::default(), &RoaringBitmap::new(), &mut scratch, &mut nearest).unwrap();
            ends.set(&mut scratch);
            let mut nearest = Nearest::new(10, f32::INFINITY);
            bridge.search(&small, &query, Some(&allowed), &deleted, &mut ends, &mut nearest).unwrap();
            for found in nearest.into_sorted() {
                assert!(allowed.contains(found.key) && !deleted.contains((found.key - 10_000) as u32));
                offered += 1;
            }
        }
        assert!(offered > 50, "{offered}");
    }

    #[test]
    fn what_is_too_far_away_by_its_code_is_not_compared() {
        let (_folder, [large, small]) = segments(None);
        let bridge = Bridge::new(&large, &small, &Stop::default()).unwrap().unwrap();
        let (mut scratch, mut ends, mut counts) = (Scratch::default(), Ends::default(), [0; 3]);
        for vector in &vectors(100, 5) {
            let mut nearest = Nearest::new(10, f32::INFINITY);
            let (search, none) = (Search::default(), RoaringBitmap::new());
            large.search(&Query::new(vector), &search, &none, &mut scratch, &mut nearest).unwrap();
            ends.set(&mut scratch);
            bridge.reach(&mut ends, f32::INFINITY);
            let all = ends.near.clone();
            bridge.reach(&mut ends, nearest.bound());
            let mut distances = vec![0.0; all.len()];
            small.kept().unwrap().distances(vector, &all, &mut distances);
            let is_within = all.iter().zip(distances).filter(|(_, distance)| *distance <= nearest.bound());
            let within: Vec<u32> = is_within.map(|(row, _)| *row).collect();
            let missed = within.iter().filter(|row| !ends.near.contains(row));
            counts = [counts[0] + all.len(), counts[1] + ends.near.len(), counts[2] + missed.count()];
        }
        let [all, near, missed] = counts;
        assert!(near * 3 < all * 2 && missed * 100 < near, "{near} of {all}, {missed} missed");
    }

    #[test]
    fn what_finds_too_little_is_known_to() {
        let (_folder, [large, small]) = segments(None);
        let mut bridge = Bridge::new(&large, &small, &Stop::default()).unwrap().unwrap();
        let mut scratch = Scratch::default();
        assert!(bridge.finds_enough(&large, &small, &mut scratch, &Stop::default()).unwrap());
        for way in &mut bridge.ways {
            let row = lowest(*way, bridge.row_bits);
            *way = *way - row + (row + 1) % 400;
        }
        assert!(!bridge.finds_enough(&large, &small, &mut scratch, &Stop::default()).unwrap());
    }

    #[test]
    fn none_is_built_where_it_does_not_pay_or_is_not_wanted_any_more() {
        let (folder, [large, small]) = segments(None);
        let stop = Stop::default();
        stop.set();
        assert!(Bridge::new(&large, &small, &stop).unwrap().is_none());
        // Nothing to walk, and nothing to go to.
        assert!(Bridge::new(&small, &large, &Stop::default()).unwrap().is_none());
        let disk = Disk::open(folder.path()).unwrap();
        let few = segment(&disk, 3, 0, &vectors(ROWS.start() - 1, 6), None);
        assert!(Bridge::new(&large, &few, &Stop::default()).unwrap().is_none());
    }
}
