//! Opens a folder some of whose segments are damaged, without these: for owners who cannot write everything anew.

use std::path::{Path, PathBuf};

use super::live::Live;
use super::manifest::Entry;
use super::{Index, check_dimensions};
use crate::storage::{Disk, Storage};
use crate::{Error, Options, Result, segment};

/// A segment that was left out.
#[derive(Debug)]
pub struct Lost {
    /// Where the file is now, if it is still there: the name of a segment, and `.damaged`.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: Error,
    /// Its vectors are from writes behind the first of the caller's sequence numbers, up to the second: to be replayed.
    pub sequences: [u64; 2],
    /// Vectors that were alive in it; `None` where the file does not say how many it holds.
    pub vectors: Option<u64>,
}

/// Ends the names of segments that were left out.
const DAMAGED: &str = ".damaged";

impl Index {
    /// Opens the folder without the segments whose ids or vectors are damaged. Every byte is verified, and what is left out is renamed and
    /// forgotten by the manifest, so that the next open finds all in order. Where only codes or links are damaged, nothing is lost: the next
    /// [`settle`](Self::settle) writes them anew.
    ///
    /// # Errors
    /// As [`open`](Self::open): without its manifest a folder cannot be recovered, since what was deleted would come back.
    pub fn recover(folder: &Path, options: Options) -> Result<(Self, Vec<Lost>)> {
        check_dimensions(options)?;
        Self::recover_in(Disk::open(folder)?, options)
    }

    /// The same, in files of another kind.
    ///
    /// # Errors
    /// As [`recover`](Self::recover).
    pub fn recover_in(storage: impl Storage, options: Options) -> Result<(Self, Vec<Lost>)> {
        let mut unread = Vec::new();
        let mut index = Self::load(storage, options, |entry, reason| {
            unread.push((entry, reason));
            Ok(())
        })?;
        index.verify();
        let sequence = index.sequence();
        let mut lost: Vec<(u64, Lost)> = Vec::new();
        for (Entry { number, .. }, reason) in unread {
            lost.push((number, index.lost(number, reason, [0, sequence], None)));
        }
        let (kept, damaged): (Vec<Live>, Vec<Live>) =
            std::mem::take(&mut index.state.segments).into_iter().partition(Live::is_readable);
        index.state.segments = kept;
        for live in damaged {
            if let Err(reason) = live.check() {
                let (sequences, alive) = (live.segment.sequences(), live.alive() as u64);
                lost.push((live.number, index.lost(live.number, reason, sequences, Some(alive))));
            }
        }
        if !lost.is_empty() {
            let segments = index.state.segments.clone();
            index.write_manifest(&segments, sequence)?;
            for (number, _) in &lost {
                let name = segment::file(*number);
                // Kept for whoever wants to know what happened; not there where it was missing.
                let _ = index.storage.rename(&name, &format!("{name}{DAMAGED}"));
            }
        }
        index.publish();
        index.remove_unnamed();
        Ok((index, lost.into_iter().map(|(_, lost)| lost).collect()))
    }

    fn lost(&self, number: u64, reason: Error, sequences: [u64; 2], vectors: Option<u64>) -> Lost {
        let name = format!("{}{DAMAGED}", segment::file(number));
        Lost { path: self.storage.path().join(name), reason, sequences, vectors }
    }
}
