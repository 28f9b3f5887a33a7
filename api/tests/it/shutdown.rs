//! The end of a server: requests that run are answered, and what was acknowledged is there afterwards.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use vultus::{Gallery, Recognizer};
use vultus_api::Options;
use vultus_api::wire::{Identified, Ingested};

use crate::bounds::Gate;
use crate::support::{RED, Server, folder, photo};

#[test]
fn a_gallery_reopens_with_nothing_to_rebuild_after_a_shutdown() {
    let folder = folder();
    let server = Server::start(folder.path());
    server.ingest("ana", &photo(RED, 0));
    server.join().unwrap();

    let stats = Gallery::open(folder.path(), Recognizer::double()).unwrap().stats().unwrap();
    assert_eq!((stats.faces, stats.rebuilt), (1, vec![]));
    let server = Server::start(folder.path());
    let answer: Identified = server.post_photo("/v1/identify", &photo(RED, 1)).ok();
    assert_eq!(answer.faces[0].people[0].person, "ana");
}

#[test]
fn a_request_that_runs_is_answered_before_the_end() {
    let folder = folder();
    let gate = Arc::new(Gate::default());
    let server = Server::start_with(folder.path(), gate.recognizer(), Options::default());
    thread::scope(|scope| {
        let request = scope.spawn(|| server.post_photo("/v1/ingest?person=ana", &photo(RED, 0)).ok::<Ingested>());
        gate.wait_for(1);
        server.stop();
        thread::sleep(Duration::from_millis(50));
        assert!(std::net::TcpStream::connect(server.address).is_err(), "a server that ends takes no new clients");
        gate.open();
        assert_eq!(request.join().unwrap().faces.len(), 1);
    });
    server.join().unwrap();
}
