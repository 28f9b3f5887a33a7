//! A neighbor graph (HNSW) in one flat run of `u32`s, version 1: the graph section of a segment.
//!
//! | words                    | field       | meaning                                                                    |
//! |--------------------------|-------------|----------------------------------------------------------------------------|
//! | 1                        | links       | slots in a list of layer 0 (the paper's M_max0)                            |
//! | 1                        | upper_links | slots in a list of any layer above (the paper's M_max)                     |
//! | 1                        | upper_lists | lists above layer 0                                                        |
//! | 1                        | seeds       | rows where a walk begins, at least one                                     |
//! | 12                       | reserved    | zero                                                                       |
//! | links × count            | bottom      | layer 0: one list per row                                                  |
//! | count + 1                | upper_at    | a row's first upper list; its lists end where the next row's begin         |
//! | upper_links × upper_lists| upper       | layers above 0: a row's lists, from layer 1 up                             |
//! | seeds                    | seeds       | the entry point of the descent, then a way into every part it cannot reach |
//!
//! Words are little-endian `u32`; `count` is the segment's. A list is the rows linked to, nearest first, and then `u32::MAX`. The
//! version is the segment header's.
//!
//! Knows rows and distances only: ids, deletions and filters are the caller's business.

mod build;
mod walk;

pub(crate) use build::build;
pub(crate) use walk::Scratch;

/// Fills a list that has fewer links than slots.
const NONE: u32 = u32::MAX;
const HEAD_WORDS: usize = 16;

/// A graph, as it lies in the mapped file.
#[derive(Clone, Copy)]
pub(crate) struct Graph<'a> {
    links: usize,
    upper_links: usize,
    bottom: &'a [u32],
    upper_at: &'a [u32],
    upper: &'a [u32],
    seeds: &'a [u32],
}

impl<'a> Graph<'a> {
    /// Says what is wrong with bytes that a walk of [`view`](Self::view) could leave the segment by, or get lost in.
    pub(crate) fn check(bytes: &'a [u8], count: usize) -> Result<(), &'static str> {
        let head: [u32; 4] = bytes
            .get(..HEAD_WORDS * 4)
            .map(|head| bytemuck::cast_slice(&head[..16]))
            .and_then(|head: &[u32]| head.try_into().ok())
            .ok_or("the graph is shorter than its header")?;
        let [links, upper_links, upper_lists, seeds] = head.map(u128::from);
        let words = HEAD_WORDS as u128 + links * count as u128 + count as u128 + 1 + upper_links * upper_lists + seeds;
        if bytes.len() as u128 != words * 4 {
            return Err("the graph is not as long as its header says");
        }
        let graph = Self::view(bytes, count);
        let is_row = |row: &u32| (*row as usize) < count;
        if graph.seeds.is_empty() || !graph.seeds.iter().all(is_row) {
            return Err("the graph begins outside of the segment");
        }
        if !graph.bottom.iter().chain(graph.upper).all(|row| *row == NONE || is_row(row)) {
            return Err("the graph links outside of the segment");
        }
        if !graph.upper_at.is_sorted() || graph.upper_at.first() != Some(&0) || graph.upper_at.last() != Some(&head[2])
        {
            return Err("the graph's upper lists do not ascend");
        }
        Ok(())
    }

    /// The graph in bytes that passed [`check`](Self::check).
    pub(crate) fn view(bytes: &'a [u8], count: usize) -> Self {
        let words: &[u32] = bytemuck::cast_slice(bytes);
        let (head, words) = words.split_at(HEAD_WORDS);
        let (links, upper_links) = (head[0] as usize, head[1] as usize);
        let (bottom, words) = words.split_at(links * count);
        let (upper_at, words) = words.split_at(count + 1);
        let (upper, seeds) = words.split_at(upper_links * head[2] as usize);
        Self { links, upper_links, bottom, upper_at, upper, seeds }
    }

    /// The top layer that a row is in.
    fn level(&self, row: u32) -> usize {
        (self.upper_at[row as usize + 1] - self.upper_at[row as usize]) as usize
    }

    /// The rows that `row` is linked to in a layer; none where it is not in that layer.
    fn neighbors(&self, row: u32, layer: usize) -> impl Iterator<Item = u32> {
        let slots = if layer == 0 {
            &self.bottom[row as usize * self.links..][..self.links]
        } else if layer <= self.level(row) {
            let list = self.upper_at[row as usize] as usize + layer - 1;
            &self.upper[list * self.upper_links..][..self.upper_links]
        } else {
            &[]
        };
        slots.iter().copied().take_while(|row| *row != NONE)
    }
}

/// A graph on its way into a file.
struct Lists {
    links: usize,
    upper_links: usize,
    /// `links` slots per row.
    bottom: Vec<u32>,
    /// Per row, `upper_links` slots for each layer above 0 that it is in.
    upper: Vec<Vec<u32>>,
}

impl Lists {
    fn encode(&self) -> Vec<u8> {
        let mut upper_at = vec![0];
        let mut upper_lists = 0;
        for lists in &self.upper {
            upper_lists += (lists.len() / self.upper_links) as u32;
            upper_at.push(upper_lists);
        }
        let seeds = self.seeds();
        let mut head = [0; HEAD_WORDS];
        head[..4].copy_from_slice(&[self.links as u32, self.upper_links as u32, upper_lists, seeds.len() as u32]);
        let upper = self.upper.iter().flatten();
        let words = head.iter().chain(&self.bottom).chain(&upper_at).chain(upper).chain(&seeds);
        words.flat_map(|word| word.to_le_bytes()).collect()
    }

    /// One of the rows in the most layers, and a row of every part of layer 0 that no path leads to from the seeds before it:
    /// the builder drops links, and a row nobody links to would never be found.
    fn seeds(&self) -> Vec<u32> {
        let rows = 0..self.upper.len() as u32;
        let Some(entry) = rows.clone().max_by_key(|row| self.upper[*row as usize].len()) else { return Vec::new() };
        let mut reached = vec![false; self.upper.len()];
        let mut seeds = Vec::new();
        let mut to_visit = Vec::new();
        for seed in [entry].into_iter().chain(rows) {
            if reached[seed as usize] {
                continue;
            }
            seeds.push(seed);
            reached[seed as usize] = true;
            to_visit.push(seed);
            while let Some(row) = to_visit.pop() {
                for &next in &self.bottom[row as usize * self.links..][..self.links] {
                    if next != NONE && !reached[next as usize] {
                        reached[next as usize] = true;
                        to_visit.push(next);
                    }
                }
            }
        }
        seeds
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    /// Four rows: 0, 1 and 2 in a ring; 3 is linked to by nobody; 1 is in layer 1 too.
    fn ring() -> Lists {
        Lists {
            links: 2,
            upper_links: 1,
            bottom: vec![1, NONE, 2, 0, 0, NONE, 0, NONE],
            upper: vec![vec![], vec![NONE], vec![], vec![]],
        }
    }

    /// Aligned as a mapped section is.
    fn words(lists: &Lists) -> Vec<u32> {
        lists.encode().chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
    }

    #[test]
    fn a_graph_reads_back_as_written() {
        let words = words(&ring());
        let bytes = bytemuck::cast_slice(&words);
        Graph::check(bytes, 4).unwrap();
        let graph = Graph::view(bytes, 4);
        assert_eq!(graph.neighbors(1, 0).collect::<Vec<_>>(), [2, 0]);
        assert_eq!((graph.level(0), graph.level(1)), (0, 1));
        assert_eq!(graph.neighbors(0, 1).count(), 0);
    }

    #[test]
    fn a_row_that_nobody_links_to_becomes_a_seed() {
        let words = words(&ring());
        assert_eq!(Graph::view(bytemuck::cast_slice(&words), 4).seeds, [1, 3]);
    }

    #[test]
    fn a_graph_that_leaves_the_segment_is_refused() {
        let good = words(&ring());
        for (at, word) in [(0, 3), (2, u32::MAX), (3, 0), (HEAD_WORDS, 4), (HEAD_WORDS + 9, 7), (good.len() - 1, NONE)]
        {
            let mut bad = good.clone();
            bad[at] = word;
            assert!(Graph::check(bytemuck::cast_slice(&bad), 4).is_err(), "word {at} = {word} went unnoticed");
        }
        assert!(Graph::check(bytemuck::cast_slice(&good[..good.len() - 1]), 4).is_err());
        assert!(Graph::check(&[], 4).is_err());
    }
}
