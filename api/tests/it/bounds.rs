//! Many clients, slow clients, and work that fails: the server stays up and answers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use vultus::detect::Detect;
use vultus::detect::double::WholePhoto;
use vultus::model::double::ColorHash;
use vultus::{Face, Photo, Recognizer};
use vultus_api::Options;
use vultus_api::wire::{Health, Identified, Stats};

use crate::support::{GREEN, RED, Server, folder, photo};

/// Waits in front of every photo until the gate is opened, and counts who waits.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    pub(crate) fn recognizer(self: &Arc<Self>) -> Recognizer {
        recognizer(Arc::new(GatedDetector(Arc::clone(self))))
    }

    pub(crate) fn open(&self) {
        self.state.lock().unwrap().0 = true;
        self.changed.notify_all();
    }

    pub(crate) fn wait_for(&self, count: usize) {
        let state = self.state.lock().unwrap();
        let waited = self.changed.wait_timeout_while(state, Duration::from_secs(20), |state| state.1 < count);
        assert!(!waited.unwrap().1.timed_out(), "nobody came to the gate");
    }
}

struct GatedDetector(Arc<Gate>);

impl Detect for GatedDetector {
    fn detect(&self, photo: &Photo) -> vultus::Result<Vec<Face>> {
        let mut state = self.0.state.lock().unwrap();
        state.1 += 1;
        self.0.changed.notify_all();
        drop(self.0.changed.wait_while(state, |state| !state.0).unwrap());
        WholePhoto.detect(photo)
    }

    fn name(&self) -> &str {
        "gated"
    }
}

/// Panics once.
#[derive(Default)]
struct BrokenDetector(AtomicBool);

impl Detect for BrokenDetector {
    fn detect(&self, photo: &Photo) -> vultus::Result<Vec<Face>> {
        assert!(self.0.swap(true, Ordering::SeqCst), "this panic belongs to a test");
        WholePhoto.detect(photo)
    }

    fn name(&self) -> &str {
        "broken"
    }
}

fn recognizer(detector: Arc<dyn Detect>) -> Recognizer {
    Recognizer::new(detector, Arc::new(ColorHash::new("color-hash"))).with_limits(vultus::face::QualityLimits::NONE)
}

#[test]
fn identify_answers_while_photos_are_ingested() {
    let folder = folder();
    let server = Server::start(folder.path());
    server.ingest("ana", &photo(RED, 0));
    thread::scope(|scope| {
        for worker in 0..4 {
            let server = &server;
            scope.spawn(move || {
                for step in 0..8 {
                    server.ingest("bo", &photo([40, 200, 8 + 16 * (worker * 2 + step / 4)], step % 4));
                }
            });
            scope.spawn(move || {
                for _ in 0..8 {
                    let answer: Identified = server.post_photo("/v1/identify", &photo(RED, 1)).ok();
                    assert_eq!(answer.faces[0].people[0].person, "ana");
                }
            });
        }
    });
    assert_eq!(server.get("/v1/stats").ok::<Stats>().faces, 33);
}

#[test]
fn a_full_queue_is_busy_but_healthy() {
    let folder = folder();
    let gate = Arc::new(Gate::default());
    let options = Options { workers: 1, queue: 1, ..Options::default() };
    let server = Server::start_with(folder.path(), gate.recognizer(), options);
    let (answers, answered) = mpsc::channel();
    thread::scope(|scope| {
        let identify = |take| {
            let (server, answers) = (&server, answers.clone());
            scope.spawn(move || answers.send(server.post_photo("/v1/identify", &photo(RED, take))).unwrap());
        };
        identify(0);
        gate.wait_for(1);
        // One of these two waits behind the first; there is no place for the other.
        identify(1);
        identify(2);
        let refused = answered.recv_timeout(Duration::from_secs(20)).unwrap();
        refused.problem(503, "busy");
        assert_eq!(refused.headers["retry-after"], "1");
        server.get("/v1/health").ok::<Health>();
        gate.open();
        answered.recv().unwrap().ok::<Identified>();
        answered.recv().unwrap().ok::<Identified>();
    });
    server.get("/v1/stats").ok::<Stats>();
}

#[test]
fn a_panic_is_one_clients_answer_and_nobody_elses_trouble() {
    let folder = folder();
    let server = Server::start_with(folder.path(), recognizer(Arc::new(BrokenDetector::default())), Options::default());
    let detail = server.post_photo("/v1/ingest", &photo(GREEN, 0)).problem(500, "fault");
    assert!(!detail.contains("panic"), "{detail}");
    server.ingest("bo", &photo(GREEN, 0));
}

#[test]
fn slow_clients_lose_their_connection_and_hold_nobody_up() {
    let folder = folder();
    let options = Options { workers: 1, read_timeout: Duration::from_millis(300), ..Options::default() };
    let server = Server::start_with(folder.path(), Recognizer::double(), options);
    // Says nothing; says half a header; says half a body.
    assert_eq!(server.raw(b""), "");
    server.raw(b"POST /v1/identify HTTP/1.1\r\nHost:");
    let half = server.raw(b"POST /v1/identify HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf");
    assert!(half.starts_with("HTTP/1.1 408 "), "{half}");

    let mut slow = TcpStream::connect(server.address).unwrap();
    slow.write_all(b"POST /v1/identify HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n").unwrap();
    server.post_photo("/v1/identify", &photo(RED, 0)).ok::<Identified>();
    slow.read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn uploads_share_a_bounded_memory() {
    let folder = folder();
    let options = Options { body_bytes_max: 100_000, bodies_bytes_max: 150_000, ..Options::default() };
    let server = Server::start_with(folder.path(), Recognizer::double(), options);
    let since = Instant::now();
    // One that comes while the second is still being read is refused itself, so there may have to be another.
    let mut large = Vec::new();
    let mut ask = || {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(b"POST /v1/identify HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nx").unwrap();
        large.push(stream);
        server.post_photo("/v1/identify", &[7; 99_000])
    };
    let mut second = ask();
    while second.status != 503 && since.elapsed() < Duration::from_secs(20) {
        second = ask();
    }
    second.problem(503, "busy");
    server.post_photo("/v1/identify", &photo(RED, 0)).ok::<Identified>();
}
