//! Requests that can't be answered, and what their clients are told.

use serde_json::json;
use vultus_api::Options;
use vultus_api::wire::{Health, Stats};

use crate::support::{BLACK, Parts, RED, Server, folder, photo};

#[test]
fn what_is_not_a_photo_is_refused_and_nothing_is_stored() {
    let folder = folder();
    let server = Server::start(folder.path());
    let good = photo(RED, 0);
    for verb in ["/v1/ingest", "/v1/identify"] {
        let detail = server.post_photo(verb, b"this is text").problem(422, "unreadable-photo");
        assert!(detail.starts_with("not a readable photo: "), "{detail}");
        server.post_photo(verb, &good[..good.len() / 2]).problem(422, "unreadable-photo");
        assert!(server.post_photo(verb, b"").problem(400, "bad-request").starts_with("photo: expected one, found 0"));
        server.post(verb, "text/plain", b"hello").problem(415, "unsupported-media-type");
        server.post(verb, "application/json", br#"{"k": 1"#).problem(400, "bad-request");
        server.post(verb, Parts::TYPE, b"no boundary anywhere").problem(400, "bad-request");
        server.post(verb, "multipart/form-data", b"--edge--").problem(400, "bad-request");
        let two = Parts::new().photo("a", &good).photo("b", &good).end();
        assert!(server.post(verb, Parts::TYPE, &two).problem(400, "bad-request").contains("found 2"));
    }
    assert_eq!(server.get("/v1/stats").ok::<Stats>().photos, 0);
}

#[test]
fn parameters_out_of_range_misspelt_or_contradictory_are_refused_by_name() {
    let folder = folder();
    let server = Server::start(folder.path());
    let id = server.ingest("ana", &photo(RED, 0));
    let queries = [
        ("identify?k=0", "k"),
        ("identify?k=ten", "k"),
        ("identify?k=1000000000", "k"),
        ("identify?kk=1", "kk"),
        ("identify?k=1&k=2", "k"),
        ("identify?within=5", "within"),
        ("identify?within=NaN", "within"),
        ("identify?within=1&far=0.1", "within"),
        ("identify?far=2", "far"),
        ("identify?exact=perhaps", "exact"),
        ("identify?filter=person:(ana", "filter"),
        ("ingest?metadata=[1]", "metadata"),
        ("ingest?metadata={", "metadata"),
        ("verify?face=x", "face"),
        ("verify", "expected two"),
        ("forget?person=ana", "photo"),
    ];
    for (query, name) in queries {
        let query = query.replace('[', "%5B").replace(']', "%5D").replace('{', "%7B").replace('(', "%28");
        let detail = server.post_photo(&format!("/v1/{query}"), &photo(RED, 1)).problem(400, "bad-request");
        assert!(detail.contains(name), "{query}: {detail}");
    }
    let bodies = [
        ("cluster", json!({"cut": 9})),
        ("cluster", json!({"cut": 1, "far": 0.1})),
        ("cluster", json!({"k_means": 0})),
        ("cluster", json!({"k_means": 1, "cut": 1})),
        ("cluster", json!({"seed": 1})),
        ("forget", json!({})),
        ("forget", json!({"face": id, "person": "ana"})),
        ("forget", json!({"photo": "12ab"})),
        ("forget", json!({"person": 7})),
        ("forget", json!([])),
    ];
    for (verb, body) in bodies {
        server.post_json(&format!("/v1/{verb}"), &body).problem(400, "bad-request");
    }
    server.get("/v1/faces?limit=0").problem(400, "bad-request");
    server.get("/v1/people?limit=1").problem(400, "bad-request");
}

#[test]
fn what_is_not_there_is_not_found() {
    let folder = folder();
    let server = Server::start(folder.path());
    let id = server.ingest("ana", &photo(RED, 0));
    server.post_json("/v1/forget", &json!({"face": id + 1})).problem(404, "not-found");
    server.post_json("/v1/forget", &json!({"person": "nobody"})).problem(404, "not-found");
    server.post_json("/v1/forget", &json!({"photo": "00".repeat(32)})).problem(404, "not-found");
    server.post_json("/v1/verify", &json!({"face": [id, id + 1]})).problem(404, "not-found");
    server.get("/v1/nothing").problem(404, "not-found");
    server.get("/").problem(404, "not-found");
}

#[test]
fn a_photo_without_a_face_can_not_be_verified() {
    let folder = folder();
    let server = Server::start(folder.path());
    let body = Parts::new().photo("a.png", &photo(BLACK, 0)).photo("b.png", &photo(RED, 0)).end();
    server.post("/v1/verify", Parts::TYPE, &body).problem(422, "no-face");
}

#[test]
fn a_wrong_method_hears_which_one_is_right() {
    let folder = folder();
    let server = Server::start(folder.path());
    let answer = server.get("/v1/identify");
    answer.problem(405, "method-not-allowed");
    assert_eq!(answer.headers["allow"], "POST");
    server.post_json("/v1/stats", &json!({})).problem(405, "method-not-allowed");
}

#[test]
fn a_body_beyond_the_limit_is_refused_however_it_is_sent() {
    let folder = folder();
    let options = Options { body_bytes_max: 50_000, ..Options::default() };
    let server = Server::start_with(folder.path(), vultus::Recognizer::double(), options);
    let body = vec![7; 3_000_000];
    server.post_photo("/v1/identify", &body).problem(413, "too-large");
    // Without a length announced, in chunks of 32 KiB.
    let mut chunked = b"POST /v1/identify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..2 {
        chunked.extend_from_slice(b"8000\r\n");
        chunked.extend_from_slice(&[7; 0x8000]);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    assert!(server.raw(&chunked).starts_with("HTTP/1.1 413 "));
    // A client that asks first is told at once, before it sends anything.
    let polite = b"POST /v1/identify HTTP/1.1\r\nHost: x\r\nContent-Length: 50001\r\nExpect: 100-continue\r\n\r\n";
    assert!(server.raw(polite).starts_with("HTTP/1.1 413 "));
}

#[test]
fn pages_of_other_sites_are_refused() {
    let folder = folder();
    let server = Server::start(folder.path());
    let from = |origin: &str| {
        let head = "GET /v1/health HTTP/1.1\r\nHost: 127.0.0.1:7878\r\nConnection: close\r\nOrigin: ";
        server.raw(format!("{head}{origin}\r\n\r\n").as_bytes())
    };
    assert!(from("http://127.0.0.1:7878").starts_with("HTTP/1.1 200 "));
    for other in ["https://example.com", "http://127.0.0.1:80", "null"] {
        assert!(from(other).starts_with("HTTP/1.1 403 "), "{other}");
    }
    server.get("/v1/health").ok::<Health>();
}
