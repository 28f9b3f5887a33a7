//! Bytes of a file of unknown length, taken piece by piece: a claim of more than there is costs no memory.

use std::io::{self, Read};

/// Replaces what is in `buffer` by the next `wanted` bytes, or by as many as are left; returns how many these are.
pub(super) fn next(file: &mut impl Read, wanted: usize, buffer: &mut Vec<u8>) -> io::Result<usize> {
    buffer.clear();
    file.by_ref().take(wanted as u64).read_to_end(buffer)
}
