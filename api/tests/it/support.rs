//! One server for each test, a client for it, and photos that need no file.

use std::io::{Cursor, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;
use vultus::{Gallery, Recognizer};
use vultus_api::Options;
use vultus_api::wire::{Ingested, Problem};

pub(crate) const RED: [u8; 3] = [200, 40, 40];
pub(crate) const GREEN: [u8; 3] = [40, 200, 40];
pub(crate) const BLUE: [u8; 3] = [40, 40, 200];
/// The test recognizer finds no face in a black photo.
pub(crate) const BLACK: [u8; 3] = [0, 0, 0];

/// A photo of the person whom `color` stands for; each `take` is another photo.
pub(crate) fn photo(color: [u8; 3], take: u8) -> Vec<u8> {
    assert!(take < 8, "eight shades are one colour to the test recognizer");
    let shade = if color == BLACK { color } else { [color[0], color[1], color[2] + take] };
    let mut png = Cursor::new(Vec::new());
    let pixels = image::RgbImage::from_pixel(64 + u32::from(take), 64, image::Rgb(shade));
    pixels.write_to(&mut png, image::ImageFormat::Png).unwrap();
    png.into_inner()
}

/// Builds a multipart body by hand.
pub(crate) struct Parts(Vec<u8>);

impl Parts {
    pub(crate) const TYPE: &str = "multipart/form-data; boundary=edge";

    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn text(mut self, name: &str, text: &str) -> Self {
        write!(self.0, "--edge\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n").unwrap();
        self
    }

    pub(crate) fn photo(mut self, file_name: &str, photo: &[u8]) -> Self {
        let head = format!("form-data; name=\"photo\"; filename=\"{file_name}\"\r\nContent-Type: image/png");
        write!(self.0, "--edge\r\nContent-Disposition: {head}\r\n\r\n").unwrap();
        self.0.extend_from_slice(photo);
        self.0.extend_from_slice(b"\r\n");
        self
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(b"--edge--\r\n");
        self.0
    }
}

/// What the server answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: ureq::http::HeaderMap,
    body: String,
}

impl Answer {
    /// The body of a success.
    #[track_caller]
    pub(crate) fn ok<T: DeserializeOwned>(&self) -> T {
        assert!(self.status < 300, "{} {}", self.status, self.body);
        assert_eq!(self.headers["content-type"], "application/json");
        serde_json::from_str(&self.body).unwrap()
    }

    /// The detail of a problem, which must be of this status and this kind.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, kind: &str) -> String {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let problem: Problem = serde_json::from_str(&self.body).unwrap();
        assert_eq!((problem.status, problem.kind.as_str()), (status, format!("urn:vultus:{kind}").as_str()));
        assert!(!problem.title.is_empty());
        problem.detail
    }
}

/// A server on a port of its own, until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Mutex<Option<oneshot::Sender<()>>>,
    thread: Option<JoinHandle<vultus_api::Result<()>>>,
    agent: ureq::Agent,
}

impl Server {
    pub(crate) fn start(folder: &Path) -> Self {
        Self::start_with(folder, Recognizer::double(), Options::default())
    }

    pub(crate) fn start_with(folder: &Path, recognizer: Recognizer, options: Options) -> Self {
        let gallery = Arc::new(Gallery::open(folder, recognizer).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(vultus_api::serve(listener, gallery, options, async move {
                let _ = stopped.await;
            }))
        });
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(20)))
            .build();
        Self { address, stop: Mutex::new(Some(stop)), thread: Some(thread), agent: config.into() }
    }

    /// Begins the shutdown; [`join`](Self::join) waits for its end.
    pub(crate) fn stop(&self) {
        drop(self.stop.lock().unwrap().take());
    }

    /// What `serve` returned.
    pub(crate) fn join(mut self) -> vultus_api::Result<()> {
        self.stop();
        self.thread.take().unwrap().join().unwrap()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        answer(self.agent.get(self.url(path)).call().unwrap())
    }

    pub(crate) fn post(&self, path: &str, content_type: &str, body: &[u8]) -> Answer {
        answer(self.agent.post(self.url(path)).content_type(content_type).send(body).unwrap())
    }

    pub(crate) fn post_photo(&self, path: &str, photo: &[u8]) -> Answer {
        self.post(path, "image/png", photo)
    }

    pub(crate) fn post_json(&self, path: &str, body: &Value) -> Answer {
        self.post(path, "application/json", body.to_string().as_bytes())
    }

    /// Ingests a photo of a named person and returns the id of its only face.
    #[track_caller]
    pub(crate) fn ingest(&self, person: &str, photo: &[u8]) -> u64 {
        let ingested: Ingested = self.post_photo(&format!("/v1/ingest?person={person}"), photo).ok();
        assert_eq!(ingested.faces.len(), 1);
        ingested.faces[0].id
    }

    /// Sends bytes as they are and returns all that comes back until the server closes.
    pub(crate) fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            // A test that fails should say why itself.
            let _ = thread.join();
        }
    }
}

/// An empty gallery's folder.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn answer(mut response: ureq::http::Response<ureq::Body>) -> Answer {
    let body = response.body_mut().read_to_string().unwrap();
    Answer { status: response.status().as_u16(), headers: response.headers().clone(), body }
}
