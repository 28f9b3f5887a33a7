//! The bytes of a segment file, each block compared with its checksum before it is first read.
//!
//! So a file is open at once, however large it is, and still no answer comes from bytes that are not what was written. Who reads row by row
//! asks for each of them; once all blocks were seen, there is nothing left to ask.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};

use super::header::{BLOCK, LEN};
use crate::storage::Bytes;

/// What is known of a block. It only ever changes from the first of these to one of the others, and the bytes do not change at all: whoever
/// sees an older state compares once more, and nothing else depends on the order in which threads see them.
const UNSEEN: u8 = 0;
const SOUND: u8 = 1;
const DAMAGED: u8 = 2;

pub(super) struct Checked {
    bytes: Box<dyn Bytes>,
    /// The bytes that have checksums, and these.
    content: Range<usize>,
    checks: Range<usize>,
    blocks: Box<[AtomicU8]>,
    all_sound: AtomicBool,
}

/// Bytes that are not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Damaged(pub(super) Range<usize>);

impl Checked {
    /// - `checks`: where the checksums are, right behind what they are of; they were compared with their own.
    pub(super) fn new(bytes: Box<dyn Bytes>, checks: Range<usize>) -> Self {
        let content = LEN..checks.start;
        let blocks = (0..content.len().div_ceil(BLOCK)).map(|_| AtomicU8::new(UNSEEN)).collect();
        Self { bytes, content, checks, blocks, all_sound: AtomicBool::new(false) }
    }

    /// Bytes that nobody may rely on before [`check`](Self::check) said so.
    pub(super) fn unchecked(&self, range: Range<usize>) -> &[u8] {
        &(*self.bytes).as_ref()[range]
    }

    /// Bytes that are what was written.
    pub(super) fn get(&self, range: Range<usize>) -> Result<&[u8], Damaged> {
        self.check(range.clone())?;
        Ok(self.unchecked(range))
    }

    /// Whether there is nothing left to check.
    pub(super) fn is_all_sound(&self) -> bool {
        self.all_sound.load(Relaxed)
    }

    /// Compares those blocks with their checksums that bytes of the range are in and that nobody saw before.
    #[inline]
    pub(super) fn check(&self, range: Range<usize>) -> Result<(), Damaged> {
        if range.is_empty() || self.is_all_sound() {
            return Ok(());
        }
        let [first, last] = [range.start, range.end - 1].map(|at| (at - LEN) / BLOCK);
        (first..=last).try_for_each(|block| match self.blocks[block].load(Relaxed) {
            SOUND => Ok(()),
            UNSEEN => self.see(block),
            _ => Err(Damaged(self.range_of(block))),
        })
    }

    #[cold]
    fn see(&self, block: usize) -> Result<(), Damaged> {
        let range = self.range_of(block);
        let crc = self.unchecked(self.checks.clone()).as_chunks::<4>().0.get(block).copied().map(u32::from_le_bytes);
        let is_sound = crc == Some(crc32fast::hash(self.unchecked(range.clone())));
        self.blocks[block].store(if is_sound { SOUND } else { DAMAGED }, Relaxed);
        if is_sound { Ok(()) } else { Err(Damaged(range)) }
    }

    fn range_of(&self, block: usize) -> Range<usize> {
        let from = self.content.start + block * BLOCK;
        from..self.content.end.min(from + BLOCK)
    }

    /// Looks at every block that nobody saw before; `between` is asked after each whether to go on.
    pub(super) fn check_all(&self, mut between: impl FnMut() -> bool) {
        for block in 0..self.blocks.len() {
            if self.blocks[block].load(Relaxed) == UNSEEN {
                // What comes of it stands in `blocks`.
                let _ = self.see(block);
                if !between() {
                    return;
                }
            }
        }
        let is_sound = |block: &AtomicU8| block.load(Relaxed) == SOUND;
        self.all_sound.store(self.blocks.iter().all(is_sound), Relaxed);
    }

    /// What is known to be damaged.
    pub(super) fn damaged(&self) -> impl Iterator<Item = Range<usize>> {
        let states = self.blocks.iter().enumerate();
        states.filter(|(_, state)| state.load(Relaxed) == DAMAGED).map(|(block, _)| self.range_of(block))
    }
}
