//! Where a walk begins: the best of some rows near the query, found without a walk.
//!
//! Every 48th row is an entry. Entries stand in groups, each around a pivot, and their codes in columns: a query is compared with all pivots, then
//! with the groups of the best few, and no memory is waited for, since what is read is known before.

use super::{Entry, NONE, SEEDS, Scratch};
use crate::kernel::{self, COLUMN, columns_bytes, prefetch, put_in_column};

/// Groups that a query is compared with.
const GROUPS: usize = 2;

/// What is in a graph about its entries.
#[derive(Clone, Copy)]
pub(super) struct Entries<'a> {
    pub(super) pivots: usize,
    /// In columns.
    pub(super) pivot_codes: &'a [u8],
    /// In columns; each group begins one.
    pub(super) codes: &'a [u8],
    /// How many columns there are up to the end of each group.
    pub(super) ends: &'a [u32],
    /// Which rows they are; [`NONE`] where a column is not filled.
    pub(super) rows: &'a [u32],
}

impl Entries<'_> {
    /// The entries most like the query, best first; rows that don't exist where there are fewer.
    pub(super) fn seeds(&self, query: &[i8], scratch: &mut Scratch) -> [u32; SEEDS] {
        let columns = kernel::best().nibble_columns;
        let column_bytes = columns_bytes(COLUMN, query.len() / 2);
        let Scratch { scores, few, .. } = scratch;
        scores.resize(self.pivots.next_multiple_of(COLUMN).max(scores.len()), 0);
        columns(query, self.pivot_codes, scores);
        let pivots: [Entry; GROUPS] = few.best_of_first(&scores[..self.pivots]);

        // What a damaged file says may be anything.
        let group = |pivot: Entry| -> Option<(&[u8], &[u32])> {
            let end = *self.ends.get(pivot.row() as usize)? as usize;
            let start = pivot.row().checked_sub(1).map_or(0, |before| self.ends[before as usize] as usize);
            let codes = self.codes.get(start.checked_mul(column_bytes)?..end.checked_mul(column_bytes)?)?;
            Some((codes, self.rows.get(start * COLUMN..end * COLUMN)?))
        };
        let groups = pivots.map(|pivot| group(pivot).unwrap_or_default());
        for (codes, rows) in groups {
            // What follows the first column, hardware foresees.
            prefetch(&codes[..codes.len().min(column_bytes)]);
            prefetch(rows);
        }
        let rows = groups.map(|(_, rows)| rows.len());
        scores.resize(rows.iter().sum::<usize>().max(scores.len()), 0);
        let mut places = &mut scores[..];
        let scored = groups.map(|(codes, rows)| {
            let (scores, rest) = std::mem::take(&mut places).split_at_mut(rows.len());
            places = rest;
            // What fills up a column is compared, too.
            columns(query, codes, scores);
            (rows, &*scores)
        });
        let seeds: [Entry; SEEDS] = few.best_of(scored.into_iter());
        seeds.map(Entry::row)
    }
}

/// Entries on their way into a graph.
pub(super) struct Grouped {
    /// Which rows the pivots are.
    pivots: Vec<u32>,
    pub(super) ends: Vec<u32>,
    pub(super) rows: Vec<u32>,
}

impl Grouped {
    /// - `rows`: the entries, the first of which are the pivots; `pivot_of`: the nearest pivot of each.
    pub(super) fn new(rows: &[u32], pivots: usize, pivot_of: &[u32]) -> Self {
        let mut groups = vec![Vec::new(); pivots];
        rows.iter().zip(pivot_of).for_each(|(row, pivot)| groups[*pivot as usize].push(*row));
        let mut grouped = Self { pivots: rows[..pivots].to_vec(), ends: Vec::new(), rows: Vec::new() };
        for group in groups {
            grouped.rows.extend(group);
            grouped.rows.resize(grouped.rows.len().next_multiple_of(COLUMN), NONE);
            grouped.ends.push((grouped.rows.len() / COLUMN) as u32);
        }
        grouped
    }

    /// The codes of pivots and of entries, in columns.
    ///
    /// - `codes`: of all rows, in their order, of `width` bytes each.
    pub(super) fn codes(&self, codes: &[u8], width: usize) -> [Vec<u8>; 2] {
        [&self.pivots, &self.rows].map(|rows| {
            let mut columns = vec![0; columns_bytes(rows.len(), width)];
            for (at, row) in rows.iter().enumerate().filter(|(_, row)| **row != NONE) {
                put_in_column(&mut columns, at, &codes[*row as usize * width..][..width]);
            }
            columns
        })
    }
}
