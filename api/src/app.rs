//! What all requests share: the gallery, and the bounds that keep many clients from exhausting the machine.

use std::num::NonZero;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::Json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use vultus::Gallery;

use crate::error::{Failure, Kind};

/// Bounds of a server; the defaults suit one machine that does little else.
#[derive(Clone, Debug)]
pub struct Options {
    /// Longest request body, in bytes.
    pub body_bytes_max: usize,
    /// Bytes of all request bodies held at one time; at least `body_bytes_max`.
    pub bodies_bytes_max: usize,
    /// Requests computed at one time.
    pub workers: usize,
    /// Requests that may wait for a worker; one more is answered 503.
    pub queue: usize,
    /// Open connections; more wait to be accepted.
    pub connections_max: usize,
    /// How long a client may take to send its headers, and then again its body.
    pub read_timeout: Duration,
    /// How long requests may go on after the shutdown began.
    pub shutdown_grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            body_bytes_max: 32 << 20,
            bodies_bytes_max: 512 << 20,
            workers: thread::available_parallelism().map_or(1, NonZero::get),
            queue: 64,
            connections_max: 1024,
            read_timeout: Duration::from_secs(30),
            shutdown_grace: Duration::from_secs(30),
        }
    }
}

/// Body bytes are counted in units of this size, since a semaphore counts to `u32` only at a time.
const BODY_UNIT_BYTES: usize = 1024;

/// What handlers work with.
pub(crate) struct App {
    gallery: Arc<Gallery>,
    pub(crate) options: Options,
    /// Requests that wait or work.
    places: Arc<Semaphore>,
    workers: Arc<Semaphore>,
    /// Memory for bodies, in units.
    bodies: Arc<Semaphore>,
    /// Clustering takes memory that grows with the square of the gallery: one at a time.
    clustering: Arc<Semaphore>,
}

impl App {
    pub(crate) fn new(gallery: Arc<Gallery>, options: Options) -> Self {
        let workers = options.workers.clamp(1, Semaphore::MAX_PERMITS / 2);
        let places = workers + options.queue.min(Semaphore::MAX_PERMITS / 2);
        let bodies = options.bodies_bytes_max.max(options.body_bytes_max) / BODY_UNIT_BYTES + 1;
        Self {
            gallery,
            places: Arc::new(Semaphore::new(places)),
            workers: Arc::new(Semaphore::new(workers)),
            bodies: Arc::new(Semaphore::new(bodies.min(Semaphore::MAX_PERMITS))),
            clustering: Arc::new(Semaphore::new(1)),
            options: Options { workers, ..options },
        }
    }

    /// The digest of the loaded model; needs no worker.
    pub(crate) fn model(&self) -> &str {
        self.gallery.recognizer().digest()
    }

    /// Memory for a body of at most `bytes`, until the permit is dropped.
    pub(crate) fn body_permit(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Failure> {
        let units = u32::try_from(bytes.div_ceil(BODY_UNIT_BYTES)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.bodies).try_acquire_many_owned(units);
        permit.map_err(|_| Failure::new(Kind::Busy, "too many uploads at one time"))
    }

    /// The right to cluster, until the permit is dropped.
    pub(crate) fn clustering_permit(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let permit = Arc::clone(&self.clustering).try_acquire_owned();
        permit.map_err(|_| Failure::new(Kind::Busy, "another clustering is running"))
    }

    /// Runs `job` on a worker thread and answers what it returns as JSON.
    ///
    /// The permits travel with the job: when a client goes away, its job still counts until it ends.
    pub(crate) async fn work<T, J>(&self, job: J) -> Result<Json<T>, Failure>
    where
        T: Send + 'static,
        J: FnOnce(&Gallery) -> Result<T, Failure> + Send + 'static,
    {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let waiting = format!("{} requests are waiting already", self.options.queue);
            return Err(Failure::new(Kind::Busy, waiting));
        };
        let worker = Arc::clone(&self.workers).acquire_owned().await.map_err(Failure::fault)?;
        let gallery = Arc::clone(&self.gallery);
        let done = tokio::task::spawn_blocking(move || {
            let answer = job(&gallery);
            drop((worker, place));
            answer
        });
        // A job that panics has said why on standard error; the server goes on.
        done.await.map_err(Failure::fault)?.map(Json)
    }

    /// Waits until no job is running, then writes the gallery's views to disk.
    pub(crate) async fn finish(&self) -> vultus::Result<()> {
        let all = u32::try_from(self.options.workers).unwrap_or(u32::MAX);
        let idle = tokio::time::timeout(self.options.shutdown_grace, self.workers.acquire_many(all)).await;
        if idle.is_err() {
            eprintln!(
                "vultus: some requests did not end within {:?}; not waiting for them",
                self.options.shutdown_grace
            );
        }
        let gallery = Arc::clone(&self.gallery);
        let flushed = tokio::task::spawn_blocking(move || gallery.flush()).await;
        flushed.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }
}
