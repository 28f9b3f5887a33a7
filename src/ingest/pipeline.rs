//! One run: a thread that reads, threads that decode and look for faces, and the caller's thread, which embeds faces of
//! many photos as one batch and commits them.
//!
//! ```text
//! reader ──candidates──▶ lookers ──events──▶ desk: embed, commit, report
//! counter ─────────────────────────events──▶
//! ```
//!
//! Both queues are short and block their senders, so the memory in use is that of `threads` photos and a batch of crops.
//! All figures are kept at the desk. When it leaves, for an error, its end of the queue closes and everyone goes home.

use std::any::Any;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::dead_letters::DeadLetters;
use super::sources::{self, Sighting};
use super::{Observer, Options, PersonFrom, Progress};
use crate::catalog::{Metadata, PhotoHash};
use crate::gallery::{Added, NewPhoto};
use crate::photo::Limits;
use crate::recognizer::FoundFace;
use crate::{Error, Gallery, Photo, Recognizer, Result};

/// Photos that wait in a queue. Looking at one takes tens of milliseconds, reading one less than one.
const QUEUE_PHOTOS: usize = 4;
/// How often progress is told when nothing is committed.
const TICK: Duration = Duration::from_millis(200);
/// How long a found face waits for its batch to fill.
const BATCH_WAIT_MAX: Duration = Duration::from_secs(2);
/// Photos a batch may have for each face it may have: photos without faces must be committed too.
const BATCH_PHOTOS_PER_FACE: usize = 4;

/// A photo that has been read and that the gallery does not have.
struct Candidate {
    bytes: Vec<u8>,
    hash: PhotoHash,
    path: String,
    person: Option<String>,
    metadata: Metadata,
    described: bool,
}

/// A photo with its faces found, but not embedded.
struct Looked {
    photo: NewPhoto,
    found: Vec<FoundFace>,
    person: Option<String>,
    described: bool,
}

/// What the desk hears.
enum Event {
    Counted(u64),
    Other,
    Known,
    Unreadable { path: String, reason: String },
    Looked(Box<Looked>),
    Stopped,
    Failed(Error),
}

pub(super) fn run(
    gallery: &Gallery,
    options: &Options,
    stop: &AtomicBool,
    observer: &dyn Observer,
    dead_letters: DeadLetters,
) -> Result<Progress> {
    let threads = match options.threads {
        0 => thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    // The counter is the only one who would not notice by itself that the desk is gone.
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let (event_sender, events) = sync_channel(QUEUE_PHOTOS);
        let (candidate_sender, candidates) = sync_channel(QUEUE_PHOTOS);
        let candidates = Arc::new(Mutex::new(candidates));
        for _ in 0..threads {
            let (candidates, events) = (Arc::clone(&candidates), event_sender.clone());
            scope.spawn(move || look_at_all(gallery.recognizer(), &candidates, stop, &events));
        }
        drop(candidates);
        let counter_events = event_sender.clone();
        let ended = &ended;
        scope.spawn(move || {
            count(options, || stop.load(Ordering::Relaxed) || ended.load(Ordering::Relaxed), &counter_events)
        });
        scope.spawn(move || read_all(gallery, options, stop, &candidate_sender, &event_sender));
        let progress = Desk::new(gallery, options, observer, dead_letters).work(events);
        ended.store(true, Ordering::Relaxed);
        progress
    })
}

/// Counts the photos, for those who want to know when it is done; much faster than reading them.
fn count(options: &Options, over: impl Fn() -> bool, events: &SyncSender<Event>) {
    let mut photos = 0;
    let walked = sources::visit(&options.paths, &mut |sighting| {
        photos += u64::from(!matches!(sighting, Sighting::Other));
        Ok(if over() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    });
    if walked.is_ok() && !over() {
        // The desk may have left; then nobody wants to know.
        let _ = events.send(Event::Counted(photos));
    }
}

/// Reads, hashes, and hands on what the gallery does not have.
fn read_all(
    gallery: &Gallery,
    options: &Options,
    stop: &AtomicBool,
    candidates: &SyncSender<Candidate>,
    events: &SyncSender<Event>,
) {
    // A queue whose other end is gone ends the walk: somebody else has said why.
    let go_on = |sent: bool| if sent { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
    let walked = sources::visit(&options.paths, &mut |sighting| {
        if stop.load(Ordering::Relaxed) {
            let _ = events.send(Event::Stopped);
            return Ok(ControlFlow::Break(()));
        }
        let (path, relative, folder, bytes) = match sighting {
            Sighting::Photo { path, relative, folder, read } => (path, relative, folder, read()),
            Sighting::Other => return Ok(go_on(events.send(Event::Other).is_ok())),
            Sighting::Unreadable { path, reason } => {
                return Ok(go_on(events.send(Event::Unreadable { path, reason }).is_ok()));
            }
        };
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => {
                let reason = error.to_string();
                return Ok(go_on(events.send(Event::Unreadable { path, reason }).is_ok()));
            }
        };
        let hash = PhotoHash::of(&bytes);
        if gallery.photo(&hash)?.is_some() {
            return Ok(go_on(events.send(Event::Known).is_ok()));
        }
        let person = folder.filter(|_| options.person_from_folder == PersonFrom::Folder);
        let row = options.metadata.row(&path, &relative);
        let (described, metadata) = (row.is_some(), row.cloned().unwrap_or_default());
        let candidate = Candidate { bytes, hash, path, person, metadata, described };
        Ok(go_on(candidates.send(candidate).is_ok()))
    });
    if let Err(error) = walked {
        let _ = events.send(Event::Failed(error));
    }
}

/// Looks at candidates until there are no more, or until nobody listens.
fn look_at_all(
    recognizer: &Recognizer,
    candidates: &Mutex<Receiver<Candidate>>,
    stop: &AtomicBool,
    events: &SyncSender<Event>,
) {
    loop {
        // The lock is held while waiting: whoever has it gets the next one.
        let next = candidates.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(candidate) = next else { return };
        let event = if stop.load(Ordering::Relaxed) { Event::Stopped } else { look(recognizer, candidate) };
        if events.send(event).is_err() {
            return;
        }
    }
}

fn look(recognizer: &Recognizer, candidate: Candidate) -> Event {
    let Candidate { bytes, hash, path, person, metadata, described } = candidate;
    // One photo among millions that trips a fault in a decoder must not end a run of hours. Nothing is shared with the
    // closure that a panic could leave half done.
    let looked = catch_unwind(AssertUnwindSafe(|| {
        let photo = Photo::decode(&bytes, &Limits::default()).map_err(Trouble::Photo)?;
        drop(bytes);
        let found = recognizer.find(&photo).map_err(Trouble::Recognizer)?;
        Ok((photo.width(), photo.height(), found))
    }));
    match looked {
        Ok(Ok((width, height, found))) => {
            let photo = NewPhoto { hash, path, width, height, metadata, faces: Vec::new(), refused: Vec::new() };
            Event::Looked(Box::new(Looked { photo, found, person, described }))
        }
        Ok(Err(Trouble::Photo(error))) => Event::Unreadable { path, reason: error.to_string() },
        Ok(Err(Trouble::Recognizer(error))) => Event::Failed(error),
        Err(panic) => {
            Event::Unreadable { path, reason: format!("a fault of vultus, please report it: {}", said(&*panic)) }
        }
    }
}

/// Whose fault it is: the photo's (the run goes on) or the recognizer's (it would fail for the next photo too).
enum Trouble {
    Photo(Error),
    Recognizer(Error),
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it gave no reason")
}

/// Where everything comes together: batches, commits, figures.
struct Desk<'a> {
    gallery: &'a Gallery,
    observer: &'a dyn Observer,
    dead_letters: DeadLetters,
    batch_faces: usize,
    batch: Vec<Looked>,
    /// When the oldest of the batch came.
    batch_since: Instant,
    progress: Progress,
    start: Instant,
    told: Instant,
}

impl<'a> Desk<'a> {
    fn new(gallery: &'a Gallery, options: &Options, observer: &'a dyn Observer, dead_letters: DeadLetters) -> Self {
        let now = Instant::now();
        Self {
            gallery,
            observer,
            dead_letters,
            batch_faces: options.batch_faces.max(1),
            batch: Vec::new(),
            batch_since: now,
            progress: Progress::default(),
            start: now,
            told: now,
        }
    }

    /// Works until all senders are gone, or something fails.
    fn work(mut self, events: Receiver<Event>) -> Result<Progress> {
        loop {
            match events.recv_timeout(TICK) {
                Ok(event) => self.hear(event)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.batch_is_due() {
                self.commit()?;
                self.tell();
            } else if self.told.elapsed() >= TICK {
                self.tell();
            }
        }
        self.commit()?;
        self.tell();
        Ok(self.progress)
    }

    fn hear(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Counted(photos) => self.progress.photos_total = Some(photos),
            Event::Other => self.progress.others += 1,
            Event::Stopped => self.progress.stopped = true,
            Event::Failed(error) => return Err(error),
            Event::Known => {
                self.progress.known += 1;
                self.progress.photos += 1;
            }
            Event::Unreadable { path, reason } => {
                self.dead_letters.post(&path, &reason)?;
                self.observer.unreadable(&path, &reason);
                self.progress.unreadable += 1;
                self.progress.photos += 1;
            }
            Event::Looked(looked) => {
                if self.batch.is_empty() {
                    self.batch_since = Instant::now();
                }
                self.batch.push(*looked);
            }
        }
        Ok(())
    }

    fn batch_is_due(&self) -> bool {
        let faces: usize = self.batch.iter().map(|looked| looked.found.len()).sum();
        faces >= self.batch_faces
            || self.batch.len() >= self.batch_faces.saturating_mul(BATCH_PHOTOS_PER_FACE)
            || (!self.batch.is_empty() && self.batch_since.elapsed() >= BATCH_WAIT_MAX)
    }

    /// Embeds and commits the batch; returns when it is durable.
    fn commit(&mut self) -> Result<()> {
        let mut photos = Vec::new();
        let mut about = Vec::new();
        let mut found = Vec::new();
        for looked in self.batch.drain(..) {
            photos.push(looked.photo);
            about.push((looked.person, looked.described));
            found.push(looked.found);
        }
        if photos.is_empty() {
            return Ok(());
        }
        let faces = self.gallery.recognizer().embed_found(found)?;
        let photos: Vec<NewPhoto> = photos
            .into_iter()
            .zip(faces)
            .zip(&about)
            .map(|((photo, faces), (person, _))| photo.with_faces(faces, person.as_deref()))
            .collect();
        let added = self.gallery.add(&photos)?;
        for ((photo, added), (_, described)) in photos.iter().zip(added).zip(about) {
            self.progress.photos += 1;
            match added {
                Added::Known(_) => self.progress.known += 1,
                Added::New(_) => {
                    self.progress.added += 1;
                    self.progress.described += u64::from(described);
                    self.progress.faces += photo.faces.len() as u64;
                    self.progress.refused += photo.refused.len() as u64;
                    self.progress.without_faces += u64::from(photo.faces.is_empty() && photo.refused.is_empty());
                }
            }
        }
        Ok(())
    }

    fn tell(&mut self) {
        self.told = Instant::now();
        self.progress.seconds = self.start.elapsed().as_secs_f64();
        self.observer.progress(&self.progress);
    }
}
