//! A folder in memory that crashes, runs full and fails when told to, and forgets what was not synced.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Cursor, ErrorKind, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use vultus_index::{Bytes, NewFile, Storage};

/// What happens at one step. Steps are the calls that change something: making a file, writing to it, syncing it, renaming, removing, syncing
/// the folder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// Nothing that is asked for from here on happens.
    Crash,
    /// This call fails, and what it asked for did not happen.
    Error(ErrorKind),
    /// A write takes half of what it is given and says so, as it may; any other call succeeds.
    Short,
    /// The names were synced, or the file's bytes, and the call fails all the same; any other call fails.
    DoneAndFailed,
}

/// Clones are the same folder.
#[derive(Clone, Default)]
pub(crate) struct Simulated(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    /// As they were when the folder was last synced, and what happened to them since.
    synced_names: BTreeMap<String, usize>,
    unsynced: Vec<Change>,
    steps: usize,
    fault: Option<(usize, Fault)>,
}

#[derive(Clone, Default)]
struct File {
    bytes: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Change {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Create(name, file) => drop(names.insert(name.clone(), *file)),
            Self::Remove(name) => drop(names.remove(name)),
            Self::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }
}

/// What a write that was not synced may have left of a file's bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Left {
    Nothing,
    Half,
    Everything,
    /// As long as it was, but zeros where nothing was synced.
    Zeros,
}

impl Simulated {
    /// A folder with these files, all of them durable.
    pub(crate) fn with(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        let folder = Self::default();
        let mut state = folder.state();
        for (at, (name, bytes)) in files.into_iter().enumerate() {
            state.files.push(File { synced: bytes.clone(), bytes });
            state.names.insert(name, at);
        }
        state.synced_names = state.names.clone();
        drop(state);
        folder
    }

    /// The same, and something that happens at a step.
    pub(crate) fn failing(step: usize, fault: Fault) -> Self {
        let folder = Self::default();
        folder.state().fault = Some((step, fault));
        folder
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Steps so far.
    pub(crate) fn steps(&self) -> usize {
        self.state().steps
    }

    /// The files and their bytes.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        state.names.iter().map(|(name, file)| (name.clone(), state.files[*file].bytes.clone())).collect()
    }

    /// Changes of names that were not synced: each may be there after a crash or not.
    pub(crate) fn unsynced(&self) -> usize {
        self.state().unsynced.len()
    }

    /// The folder as a crash may leave it.
    ///
    /// - `kept`: a bit for each change of a name that was not synced.
    pub(crate) fn after_crash(&self, kept: usize, left: Left) -> Self {
        let state = self.state();
        let mut names = state.synced_names.clone();
        let changes = state.unsynced.iter().enumerate().filter(|(at, _)| kept >> at & 1 == 1);
        changes.for_each(|(_, change)| change.apply(&mut names));
        let bytes = |file: &File| match left {
            Left::Nothing => file.synced.clone(),
            Left::Half => file.bytes[..file.synced.len().max(file.bytes.len() / 2)].to_vec(),
            Left::Everything => file.bytes.clone(),
            Left::Zeros => {
                let mut bytes = file.synced.clone();
                bytes.resize(file.bytes.len(), 0);
                bytes
            }
        };
        Self::with(names.iter().map(|(name, file)| (name.clone(), bytes(&state.files[*file]))))
    }
}

impl State {
    /// What is to happen at this step; an error where it is that nothing does.
    fn step(&mut self) -> io::Result<Option<Fault>> {
        let step = self.steps;
        self.steps += 1;
        match self.fault {
            Some((at, Fault::Crash)) if step >= at => Err(io::Error::other("the machine is off")),
            Some((at, Fault::Error(kind))) if step == at => Err(kind.into()),
            Some((at, fault)) if step == at => Ok(Some(fault)),
            _ => Ok(None),
        }
    }

    /// The same for calls that are done or not.
    fn whole_step(&mut self) -> io::Result<()> {
        match self.step()? {
            Some(Fault::DoneAndFailed) => Err(ErrorKind::Other.into()),
            _ => Ok(()),
        }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.unsynced.push(change);
    }
}

impl Storage for Simulated {
    fn path(&self) -> &Path {
        Path::new("simulated")
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Bytes>> {
        let state = self.state();
        let file = state.names.get(name).ok_or(ErrorKind::NotFound)?;
        Ok(Box::new(Aligned::new(&state.files[*file].bytes)))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn NewFile>> {
        let mut state = self.state();
        state.whole_step()?;
        let file = state.files.len();
        state.files.push(File::default());
        state.change(Change::Create(name.to_owned(), file));
        Ok(Box::new(Open { folder: self.clone(), file, at: 0 }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.whole_step()?;
        assert!(state.names.contains_key(from), "{from} is renamed and not there");
        state.change(Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        if !state.names.contains_key(name) {
            return Err(ErrorKind::NotFound.into());
        }
        state.whole_step()?;
        state.change(Change::Remove(name.to_owned()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        let fault = state.step()?;
        state.synced_names = state.names.clone();
        state.unsynced.clear();
        // Nobody can ask for the others any more.
        let State { files, names, .. } = &mut *state;
        let named: HashSet<usize> = names.values().copied().collect();
        files
            .iter_mut()
            .enumerate()
            .filter(|(at, _)| !named.contains(at))
            .for_each(|(_, file)| *file = File::default());
        if fault == Some(Fault::DoneAndFailed) { Err(ErrorKind::Other.into()) } else { Ok(()) }
    }
}

/// A file that is being written.
struct Open {
    folder: Simulated,
    file: usize,
    at: u64,
}

impl Write for Open {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.folder.state();
        let taken = match state.step()? {
            Some(Fault::Short) => bytes.len().div_ceil(2),
            Some(_) => return Err(ErrorKind::Other.into()),
            None => bytes.len(),
        };
        let mut file = Cursor::new(&mut state.files[self.file].bytes);
        file.set_position(self.at);
        file.write_all(&bytes[..taken])?;
        self.at += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Open {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let mut state = self.folder.state();
        let mut file = Cursor::new(&mut state.files[self.file].bytes);
        file.set_position(self.at);
        self.at = file.seek(to)?;
        Ok(self.at)
    }
}

impl NewFile for Open {
    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.folder.state();
        let fault = state.step()?;
        let file = &mut state.files[self.file];
        file.synced = file.bytes.clone();
        if fault == Some(Fault::DoneAndFailed) { Err(ErrorKind::Other.into()) } else { Ok(()) }
    }
}

/// Bytes that begin at a multiple of 64.
struct Aligned {
    buffer: Vec<u8>,
    start: usize,
}

impl Aligned {
    fn new(bytes: &[u8]) -> Self {
        let mut buffer: Vec<u8> = Vec::with_capacity(bytes.len() + 64);
        let start = buffer.as_ptr().align_offset(64);
        buffer.resize(start, 0);
        buffer.extend_from_slice(bytes);
        Self { buffer, start }
    }
}

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[self.start..]
    }
}
