//! Every row can be reached: a row that no links lead to would never be found.

use super::layer::{Layer, links};

/// Rounds of adding links: each can push out others.
const ROUNDS: usize = 8;

/// Adds links until every row with links of its own can be reached from `seeds`, or the rounds are over.
pub(super) fn every_row(layer: &mut Layer<'_>, seeds: &[u32]) {
    for _ in 0..ROUNDS {
        let reached = reached(layer, seeds);
        let lost = (0..layer.count() as u32).filter(|row| !reached[*row as usize]);
        let pairs: Vec<(u32, u32)> = lost
            .filter_map(|row| {
                let from = links(layer.lists().of(row)).find(|other| reached[*other as usize]);
                Some((from.or(seeds.first().copied())?, row))
            })
            .collect();
        if pairs.is_empty() {
            return;
        }
        layer.link(pairs);
    }
}

/// Which rows can be reached.
fn reached(layer: &Layer<'_>, seeds: &[u32]) -> Vec<bool> {
    let mut reached = vec![false; layer.count()];
    let mut stack = seeds.to_vec();
    while let Some(row) = stack.pop() {
        if !std::mem::replace(&mut reached[row as usize], true) {
            stack.extend(links(layer.lists().of(row)));
        }
    }
    reached
}
