//! Exact search: the query against every row.
//!
//! Allocates nothing but the answers: distances are measured block by block into an array on the stack. Whether a row counts
//! is asked only of rows near enough to be an answer, since asking costs as much as measuring.

use crate::kernel;
use crate::nearest::{Found, Nearest};

/// Rows measured at a time: 1 KiB of distances, and 128 KiB of vectors at 128 dimensions.
const BLOCK: usize = 256;

/// Offers every row of `vectors` that counts. `key` gives the row's key in the answers, or `None` where it does not count.
pub(crate) fn every_row(
    query: &[f32],
    vectors: &[f32],
    nearest: &mut Nearest,
    mut key: impl FnMut(usize) -> Option<u64>,
) {
    let kernel = kernel::best();
    let mut distances = [0.0; BLOCK];
    for (block, rows) in vectors.chunks(BLOCK * query.len()).enumerate() {
        let distances = &mut distances[..rows.len() / query.len()];
        (kernel.scan)(query, rows, distances);
        for (i, &distance) in distances.iter().enumerate() {
            if distance <= nearest.bound()
                && let Some(key) = key(block * BLOCK + i)
            {
                nearest.offer(Found { distance, key });
            }
        }
    }
}
