//! One layer of a graph while it is built: rows are inserted in batches, each row of a batch on its own.
//!
//! Every row of a batch looks for its neighbours in the layer as it was before the batch; then the links back are added, target by target. So
//! the threads never write what others read, and the layer is the same for any number of them: ParlayANN (Dobson et al. 2023, arXiv:2305.04359),
//! section 3. Rows of one batch don't see each other, so batches are a small share of what is there.

use rayon::prelude::*;

use crate::graph::beam::beam;
use crate::graph::{Lists, NONE, Reach, SEEDS, Scratch, Trusted};
use crate::kernel;
use crate::quantiser::{Quantiser, Scorer};
use crate::stop::{Stop, Stopped};

/// How many links rows have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Degrees {
    /// Slots of a list.
    pub(super) slots: usize,
    /// Links that a row is inserted with.
    pub(super) forward: usize,
    /// Links that are left when a full list is chosen anew: room for some more before it is again.
    pub(super) kept: usize,
}

/// The most slots of any layer.
const SLOTS_MAX: usize = 32;
/// Batches are at most one in so many of the rows that are there, and of the rows there will be.
const SHARES: [usize; 2] = [4, 50];
/// What turns a number into its byte: no sign, the order kept.
pub(super) const OFFSET: u8 = 128;

/// Rows, their codes of a byte for each dimension, and their links.
pub(super) struct Layer<'a> {
    degrees: Degrees,
    ef: usize,
    /// Bytes of a row of codes.
    width: usize,
    codes: Vec<u8>,
    /// The sum of each row's numbers.
    sums: Vec<i32>,
    pub(super) links: Vec<u32>,
    /// What rows are looked for by, where that is not their codes.
    halves: Option<Halves<'a>>,
}

/// Codes of half a byte a dimension: half as much to read, and near enough to find what is then compared by bytes.
pub(super) struct Halves<'a> {
    pub(super) quantiser: Quantiser<'a>,
    /// The vector and the code of each row.
    pub(super) vectors: Vec<&'a [f32]>,
    pub(super) codes: Vec<u8>,
}

/// A list of links, filled up with [`NONE`].
type List = [u32; SLOTS_MAX];

/// What choosing links needs to remember.
#[derive(Default)]
struct Buffers {
    query: Vec<i8>,
    dots: Vec<i32>,
    candidates: Vec<(i32, u32)>,
    found: Vec<u32>,
    scratch: Scratch,
}

impl<'a> Layer<'a> {
    /// - `codes`: rows of `width` bytes, numbers from -127 to 127 as bytes from 1 to 255; `ef`: how wide neighbours are searched, and by `halves` where there are
    ///   any.
    pub(super) fn new(codes: Vec<u8>, width: usize, degrees: Degrees, ef: usize, halves: Option<Halves<'a>>) -> Self {
        let sum = |row: &[u8]| row.iter().map(|code| i32::from((code ^ OFFSET).cast_signed())).sum();
        let sums: Vec<i32> = codes.par_chunks(width).map(sum).collect();
        let links = vec![NONE; sums.len() * degrees.slots];
        Self { degrees, ef, width, codes, sums, links, halves }
    }

    pub(super) fn count(&self) -> usize {
        self.sums.len()
    }

    /// CRC-32 of all codes.
    pub(super) fn codes_crc(&self) -> u32 {
        crc32fast::hash(&self.codes)
    }

    /// Bytes of a code.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// The links, and the half bytes of rows.
    pub(super) fn into_parts(self) -> (Vec<u32>, Vec<u8>) {
        (self.links, self.halves.map(|halves| halves.codes).unwrap_or_default())
    }

    pub(super) fn lists(&self) -> Lists<'_> {
        Lists { slots: self.degrees.slots, links: &self.links }
    }

    /// A row as a query.
    pub(super) fn query<'q>(&self, row: u32, query: &'q mut Vec<i8>) -> &'q [i8] {
        query.clear();
        query.extend(self.code(row).iter().map(|code| (code ^ OFFSET).cast_signed()));
        query
    }

    fn code(&self, row: u32) -> &[u8] {
        &self.codes[row as usize * self.width..][..self.width]
    }

    /// A search of this layer.
    pub(super) fn scorer<'q>(&'q self, query: &'q [i8]) -> Scorer<'q> {
        Scorer::bytes(query, &self.codes)
    }

    /// Inserts rows, the first of which is there without a link.
    ///
    /// - `from`: of these rows that were inserted before; `seeds`: where the search for a row's neighbours begins: rows that were inserted before `at` of
    ///   these; `after`: is told after each batch how many are.
    pub(super) fn insert(
        &mut self,
        rows: &[u32],
        from: usize,
        stop: &Stop,
        seeds: impl Fn(&Self, usize, u32, &mut Scratch) -> [u32; SEEDS] + Sync,
        mut after: impl FnMut(&mut Self, usize),
    ) -> Result<(), Stopped> {
        let most = (rows.len() / SHARES[1]).max(1);
        let mut at = from.max(1);
        while at < rows.len() {
            let batch = &rows[at..rows.len().min(at + (at / SHARES[0]).clamp(1, most))];
            self.insert_batch(batch, stop, |layer, row, scratch| seeds(layer, at, row, scratch));
            stop.check()?;
            at += batch.len();
            after(self, at);
        }
        Ok(())
    }

    fn insert_batch(
        &mut self,
        batch: &[u32],
        stop: &Stop,
        seeds: impl Fn(&Self, u32, &mut Scratch) -> [u32; SEEDS] + Sync,
    ) {
        let forward: Vec<List> = batch
            .par_iter()
            .map_init(Buffers::default, |buffers, row| {
                // Then the layer is good for nothing, and nobody gets it.
                if stop.check().is_err() {
                    return [NONE; SLOTS_MAX];
                }
                let seeds = seeds(self, *row, &mut buffers.scratch);
                self.forward(*row, &seeds, buffers)
            })
            .collect();
        let mut back = Vec::with_capacity(batch.len() * self.degrees.forward);
        for (&row, list) in batch.iter().zip(&forward) {
            self.set(row, list);
            back.extend(links(list).map(|target| (target, row)));
        }
        self.link(back);
    }

    /// Adds links, pairs of where from and where to.
    pub(super) fn link(&mut self, mut pairs: Vec<(u32, u32)>) {
        pairs.par_sort_unstable();
        let groups: Vec<&[(u32, u32)]> = pairs.chunk_by(|a, b| a.0 == b.0).collect();
        let changed: Vec<List> =
            groups.par_iter().map_init(Buffers::default, |buffers, group| self.with(group, buffers)).collect();
        for (group, list) in groups.iter().zip(changed) {
            self.set(group[0].0, &list);
        }
    }

    /// Links copies of a row to it, one behind the other: however many there are, they take one of its links.
    pub(super) fn chain(&mut self, first: u32, copies: &[u32]) {
        let mut list = [NONE; SLOTS_MAX];
        list[..self.degrees.slots].copy_from_slice(self.lists().of(first));
        let count = links(&list).count();
        list[count.min(self.degrees.slots - 1)] = copies[0];
        self.set(first, &list);
        for (at, copy) in copies.iter().enumerate() {
            let mut list = [NONE; SLOTS_MAX];
            let next = copies.get(at + 1).copied();
            list.iter_mut().zip([first].into_iter().chain(next)).for_each(|(slot, row)| *slot = row);
            self.set(*copy, &list);
        }
    }

    fn set(&mut self, row: u32, list: &List) {
        let slots = self.degrees.slots;
        self.links[row as usize * slots..][..slots].copy_from_slice(&list[..slots]);
    }

    /// The links that a row begins with.
    fn forward(&self, row: u32, seeds: &[u32], buffers: &mut Buffers) -> List {
        let mut query = std::mem::take(&mut buffers.query);
        let scorer = self.scorer(self.query(row, &mut query));
        let Buffers { scratch, found, dots, .. } = buffers;
        let reach = Reach::width(self.ef);
        let Ok(()) = match &self.halves {
            None => beam(self.lists(), &scorer, seeds, None, &reach, scratch, &Trusted),
            Some(Halves { quantiser, vectors, codes }) => {
                let halves = quantiser.query(vectors[row as usize], std::mem::take(&mut scratch.query));
                let scorer = Scorer::nibbles(&halves.numbers, codes);
                let found = beam(self.lists(), &scorer, seeds, None, &reach, scratch, &Trusted);
                scratch.query = halves;
                found
            }
        };
        found.clear();
        found.extend(scratch.found().iter().map(|entry| entry.row()).filter(|found| *found != row));
        scorer.score(found, dots);
        let candidates = dots.iter().copied().zip(found.iter().copied());
        buffers.candidates.clear();
        buffers.candidates.extend(candidates);
        buffers.query = query;
        self.choose(row, self.degrees.forward, buffers)
    }

    /// A row's list with the sources of some pairs in it: all links where they fit, the best of them else.
    fn with(&self, group: &[(u32, u32)], buffers: &mut Buffers) -> List {
        let row = group[0].0;
        let mut all: Vec<u32> = links(self.lists().of(row)).collect();
        for (_, other) in group {
            if !all.contains(other) {
                all.push(*other);
            }
        }
        if all.len() <= self.degrees.slots {
            let mut list = [NONE; SLOTS_MAX];
            list[..all.len()].copy_from_slice(&all);
            return list;
        }
        let mut query = std::mem::take(&mut buffers.query);
        self.scorer(self.query(row, &mut query)).score(&all, &mut buffers.dots);
        buffers.query = query;
        buffers.candidates.clear();
        buffers.candidates.extend(buffers.dots.iter().copied().zip(all));
        self.choose(row, self.degrees.kept, buffers)
    }

    /// What bytes without a sign add to a product with this row as the query.
    fn offset(&self, row: u32) -> i32 {
        i32::from(OFFSET) * self.sums[row as usize]
    }

    /// Of the candidates, rows and their scores, those that are nearer to a row than to any that was chosen before, best first: links in all directions (Malkov &
    /// Yashunin, algorithm 4).
    fn choose(&self, row: u32, most: usize, buffers: &mut Buffers) -> List {
        let Buffers { query, dots, candidates, .. } = buffers;
        let offset = self.offset(row);
        candidates.iter_mut().for_each(|(dot, _)| *dot -= offset);
        candidates.sort_unstable_by_key(|(dot, row)| (std::cmp::Reverse(*dot), *row));
        let mut list = [NONE; SLOTS_MAX];
        let mut chosen = 0;
        for &(dot, candidate) in candidates.iter() {
            if chosen == most {
                break;
            }
            self.query(candidate, query);
            let nearest = dot + self.offset(candidate);
            let mut is_nearer_elsewhere = false;
            for four in list[..chosen].chunks(4) {
                dots.resize(four.len(), 0);
                (kernel::best().bytes)(query, &self.codes, four, dots);
                is_nearer_elsewhere |= dots.iter().any(|dot| *dot > nearest);
                if is_nearer_elsewhere {
                    break;
                }
            }
            if !is_nearer_elsewhere {
                list[chosen] = candidate;
                chosen += 1;
            }
        }
        list
    }
}

/// The links of a list.
pub(super) fn links(list: &[u32]) -> impl Iterator<Item = u32> {
    list.iter().copied().take_while(|row| *row != NONE)
}
