//! What each verb answers.

use serde_json::json;
use vultus::catalog::PhotoHash;
use vultus_api::wire::{
    Cluster, Faces, Forgotten, Health, Identified, Ingested, IngestedOutcome, People, Person, Stats, Verified,
};

use crate::support::{BLACK, BLUE, GREEN, Parts, RED, Server, folder, photo};

fn person(name: &str, faces: u64) -> Person {
    Person { name: name.to_owned(), faces }
}

#[test]
fn a_photo_is_added_once_and_known_afterwards() {
    let folder = folder();
    let server = Server::start(folder.path());
    let bytes = photo(RED, 0);
    let first = server.post_photo("/v1/ingest?person=ana&path=album/1.png", &bytes);
    assert_eq!(first.status, 201);
    let first: Ingested = first.ok();
    assert_eq!(first.outcome, IngestedOutcome::Added);
    assert_eq!(first.photo, PhotoHash::of(&bytes).to_string());
    assert_eq!((first.path.as_str(), first.width, first.height), ("album/1.png", 64, 64));
    assert_eq!(first.faces[0].person.as_deref(), Some("ana"));
    assert_eq!(first.faces[0].face.bounds.width, 64.0);

    let again = server.post_photo("/v1/ingest?person=bo&path=elsewhere", &bytes);
    assert_eq!(again.status, 200);
    let again: Ingested = again.ok();
    assert_eq!(again, Ingested { outcome: IngestedOutcome::Known, ..first });
}

#[test]
fn a_multipart_ingest_carries_person_path_and_metadata() {
    let folder = folder();
    let server = Server::start(folder.path());
    let body = Parts::new()
        .text("person", "ana maria")
        .text("metadata", r#"{"album": "2019", "rating": 4}"#)
        .photo("beach.png", &photo(RED, 0))
        .end();
    let ingested: Ingested = server.post("/v1/ingest", Parts::TYPE, &body).ok();
    assert_eq!(ingested.path, "beach.png");
    assert_eq!(ingested.faces[0].person.as_deref(), Some("ana maria"));
    assert_eq!(serde_json::Value::from(ingested.metadata), json!({"album": "2019", "rating": 4}));

    let body = Parts::new().text("path", "x/y.png").photo("y.png", &photo(RED, 1)).end();
    assert_eq!(server.post("/v1/ingest", Parts::TYPE, &body).ok::<Ingested>().path, "x/y.png");
}

#[test]
fn a_photo_without_a_face_is_stored_without_one() {
    let folder = folder();
    let server = Server::start(folder.path());
    assert_eq!(server.post_photo("/v1/ingest", &photo(BLACK, 0)).ok::<Ingested>().faces, []);
    assert_eq!(server.post_photo("/v1/identify", &photo(BLACK, 0)).ok::<Identified>().faces, []);
}

#[test]
fn identify_names_who_is_known_and_nobody_else() {
    let folder = folder();
    let server = Server::start(folder.path());
    let ana = server.ingest("ana", &photo(RED, 0));
    server.ingest("bo", &photo(GREEN, 0));

    let answer: Identified = server.post_photo("/v1/identify", &photo(RED, 1)).ok();
    let [face] = &answer.faces[..] else { panic!("{answer:?}") };
    assert_eq!(face.people.len(), 1);
    assert_eq!((face.people[0].person.as_str(), face.people[0].face), ("ana", ana));
    assert_eq!(face.people[0].distance, face.neighbors[0].distance);
    assert!(face.people[0].distance < answer.within);
    assert!(face.people[0].far <= 1e-3);

    let stranger: Identified = server.post_photo("/v1/identify", &photo(BLUE, 0)).ok();
    assert_eq!(stranger.faces.len(), 1);
    assert!(stranger.faces[0].people.is_empty() && stranger.faces[0].neighbors.is_empty());
}

#[test]
fn identify_heeds_its_parameters() {
    let folder = folder();
    let server = Server::start(folder.path());
    let body = Parts::new().text("metadata", r#"{"album": "2019"}"#).photo("1.png", &photo(RED, 0)).end();
    server.post("/v1/ingest?person=ana", Parts::TYPE, &body).ok::<Ingested>();
    server.ingest("ana", &photo(RED, 1));
    server.ingest("bo", &photo(GREEN, 0));
    let neighbors = |query: &str| {
        let answer: Identified = server.post_photo(&format!("/v1/identify?{query}"), &photo(RED, 2)).ok();
        answer.faces[0].neighbors.len()
    };
    assert_eq!(neighbors("exact=true"), 2);
    assert_eq!(neighbors("within=4"), 3);
    assert_eq!(neighbors("within=4&k=1"), 1);
    assert_eq!(neighbors("far=1e-5"), 2);
    assert_eq!(neighbors("filter=album:2019"), 1);
    assert_eq!(neighbors("filter=NOT%20person:ana"), 0);
    assert_eq!(neighbors("within=4&filter=NOT%20person:ana"), 1);

    let body = Parts::new().text("within", "4").text("k", "2").photo("q.png", &photo(RED, 2)).end();
    let answer: Identified = server.post("/v1/identify", Parts::TYPE, &body).ok();
    assert_eq!((answer.within, answer.faces[0].neighbors.len()), (4.0, 2));
}

#[test]
fn verify_compares_photos_and_stored_faces_alike() {
    let folder = folder();
    let server = Server::start(folder.path());
    let ana = server.ingest("ana", &photo(RED, 0));
    let bo = server.ingest("bo", &photo(GREEN, 0));

    let pair = |a, b| Parts::new().photo("a.png", &photo(a, 1)).photo("b.png", &photo(b, 2)).end();
    let same: Verified = server.post("/v1/verify", Parts::TYPE, &pair(RED, RED)).ok();
    assert!(same.same && same.distance <= same.within && same.far <= 1e-3);
    let different: Verified = server.post("/v1/verify", Parts::TYPE, &pair(RED, GREEN)).ok();
    assert!(!different.same && different.distance > different.within);

    let stored: Verified = server.post_json("/v1/verify", &json!({"face": [ana, bo], "within": 4})).ok();
    assert!(stored.same && stored.within == 4.0 && stored.distance > 1.0);
    let mixed: Verified = server.post_photo(&format!("/v1/verify?face={ana}"), &photo(RED, 3)).ok();
    assert!(mixed.same);
    let identical: Verified = server.post_photo(&format!("/v1/verify?face={ana}"), &photo(RED, 0)).ok();
    assert!(identical.distance < 1e-6);
}

#[test]
fn cluster_groups_photos_of_one_person_and_says_how_well() {
    let folder = folder();
    let server = Server::start(folder.path());
    let anas = [0, 1, 2].map(|take| server.ingest("ana", &photo(RED, take)));
    let bos = [0, 1].map(|take| server.ingest("bo", &photo(GREEN, take)));
    let unnamed: Ingested = server.post_photo("/v1/ingest", &photo(BLUE, 0)).ok();

    let cluster: Cluster = server.post_json("/v1/cluster", &json!({})).ok();
    assert_eq!((cluster.method.as_str(), cluster.faces), ("average_linkage", 6));
    let groups: Vec<_> = cluster.groups.iter().map(|group| (group.faces.clone(), group.people.clone())).collect();
    let expected = [
        (anas.to_vec(), vec![person("ana", 3)]),
        (bos.to_vec(), vec![person("bo", 2)]),
        (vec![unnamed.faces[0].id], vec![]),
    ];
    assert_eq!(groups, expected);
    let agreement = cluster.agreement.unwrap();
    assert_eq!((agreement.faces, agreement.bcubed.f, agreement.pairwise.f), (5, 1.0, 1.0));

    let all: Cluster = server.post_json("/v1/cluster", &json!({"cut": 4.0})).ok();
    assert_eq!((all.cut, all.groups.len()), (Some(4.0), 1));
    let three: Cluster = server.post("/v1/cluster?k_means=3&seed=7", "application/json", b"{}").ok();
    assert_eq!((three.method.as_str(), three.k, three.seed, three.groups.len()), ("k_means", Some(3), Some(7), 3));
}

#[test]
fn faces_are_listed_by_filter_and_page_by_page() {
    let folder = folder();
    let server = Server::start(folder.path());
    let anas = [0, 1, 2].map(|take| server.ingest("ana", &photo(RED, take)));
    server.ingest("bo", &photo(GREEN, 0));

    let people: People = server.get("/v1/people").ok();
    assert_eq!(people.people, [person("ana", 3), person("bo", 1)]);

    let first: Faces = server.get("/v1/faces?filter=person:ana&limit=2").ok();
    assert_eq!(first.faces.iter().map(|face| face.id).collect::<Vec<_>>(), anas[..2]);
    assert_eq!(first.next, Some(anas[2]));
    let last: Faces = server.get(&format!("/v1/faces?filter=person:ana&limit=2&from={}", anas[2])).ok();
    assert_eq!(last.faces.iter().map(|face| face.id).collect::<Vec<_>>(), anas[2..]);
    assert_eq!(last.next, None);
}

#[test]
fn what_is_forgotten_is_never_answered_again() {
    let folder = folder();
    let server = Server::start(folder.path());
    let anas = [0, 1].map(|take| server.ingest("ana", &photo(RED, take)));
    server.ingest("bo", &photo(GREEN, 0));
    server.ingest("cy", &photo(BLUE, 0));
    let forget = |what| server.post_json("/v1/forget", &what).ok::<Forgotten>().removed;
    let known = |color| server.post_photo("/v1/identify", &photo(color, 5)).ok::<Identified>().faces[0].people.len();

    assert_eq!(forget(json!({"face": anas[0]})), 1);
    assert_eq!(known(RED), 1);
    assert_eq!(forget(json!({"person": "ana"})), 1);
    assert_eq!(known(RED), 0);
    assert_eq!(forget(json!({"photo": PhotoHash::of(&photo(GREEN, 0)).to_string()})), 1);
    assert_eq!(known(GREEN), 0);
    assert_eq!(known(BLUE), 1);
    server.post_json("/v1/forget", &json!({"person": "ana"})).problem(404, "not-found");
    assert_eq!(server.get("/v1/people").ok::<People>().people, [person("cy", 1)]);
}

#[test]
fn stats_and_health_say_what_runs() {
    let folder = folder();
    let server = Server::start(folder.path());
    server.ingest("ana", &photo(RED, 0));
    server.post_photo("/v1/ingest", &photo(BLUE, 0)).ok::<Ingested>();
    let stats: Stats = server.get("/v1/stats").ok();
    assert_eq!((stats.photos, stats.faces, stats.people, stats.unnamed), (2, 2, 1, 1));
    let health: Health = server.get("/v1/health").ok();
    assert_eq!((health.status.as_str(), health.model), ("ok", stats.model));
}
