//! What each command answers when all is well.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use serde_json::{Value, json as value};

use crate::{ANA, BEN, folder, json, people, photo, run, stderr, stdout, vultus, write};

/// A gallery of Ana, twice, and Ben.
fn known_people() -> tempfile::TempDir {
    let folder = folder();
    people(&folder);
    let summary = json(&folder, 0, &["ingest", "photos", "--person-from", "folder"]);
    assert_eq!((&summary["added"], &summary["faces"]), (&value!(3), &value!(3)));
    folder
}

#[test]
fn ingest_counts_what_it_did_and_a_second_run_adds_nothing() {
    let folder = known_people();
    let again = json(&folder, 0, &["ingest", "photos"]);
    assert_eq!((&again["added"], &again["known"], &again["photos_total"]), (&value!(0), &value!(3), &value!(3)));
    assert_eq!(again["stopped"], false);
    assert!(!cfg!(target_os = "linux") || again["peak_memory_bytes"].as_u64().unwrap() > 1_000_000);
    let text = stdout(&run(&folder, &["ingest", "photos"]));
    assert!(text.starts_with("3 photos in ") && text.contains("3 known already"), "{text}");
}

#[test]
fn a_list_comes_from_standard_input() {
    let folder = folder();
    people(&folder);
    let mut child = vultus(&folder, &["ingest", "-", "--test-double", "--json"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"photos/Ana/1.jpg\nphotos/Ben/1.jpg\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["added"], 2);
}

#[test]
fn identify_names_who_is_known_and_says_no_when_nobody_is() {
    let folder = known_people();
    write(&folder, "ana.jpg", photo(ANA, 9));
    write(&folder, "eva.jpg", photo([40, 200, 40], 9));
    let answer = json(&folder, 0, &["identify", "ana.jpg", "eva.jpg"]);
    let [ana, eva] = [0, 1].map(|at| &answer["photos"][at]);
    assert_eq!((&ana["path"], &ana["faces"][0]["people"][0]["person"]), (&value!("ana.jpg"), &value!("Ana")));
    assert_eq!(ana["faces"][0]["neighbors"].as_array().unwrap().len(), 2);
    assert_eq!(eva["faces"][0]["people"], value!([]));
    assert!(stdout(&run(&folder, &["identify", "ana.jpg"])).contains("Ana"));
    json(&folder, 1, &["identify", "eva.jpg"]);
    json(&folder, 1, &["identify", "ana.jpg", "--filter", "NOT person:Ana"]);
    json(&folder, 0, &["identify", "ana.jpg", "--filter", "person:Ana", "--exact", "-k", "1"]);
}

#[test]
fn verify_answers_with_its_exit_code_and_needs_no_gallery_for_two_photos() {
    let folder = folder();
    people(&folder);
    let same = json(&folder, 0, &["verify", "photos/Ana/1.jpg", "photos/Ana/2.jpg"]);
    assert_eq!(same["same"], true);
    let different = json(&folder, 1, &["verify", "photos/Ana/1.jpg", "photos/Ben/1.jpg"]);
    assert!(different["distance"].as_f64() > different["within"].as_f64(), "{different}");
    json(&folder, 0, &["verify", "photos/Ana/1.jpg", "photos/Ben/1.jpg", "--within", "4"]);
    assert!(!folder.path().join("vultus.gallery").exists());
}

#[test]
fn stored_faces_are_listed_named_verified_and_forgotten_by_id() {
    let folder = known_people();
    let faces = json(&folder, 0, &["people", "faces", "--filter", "person:Ben"]);
    let id = faces["faces"][0]["id"].to_string();
    assert_eq!(faces["faces"].as_array().unwrap().len(), 1);

    json(&folder, 0, &["verify", "photos/Ben/1.jpg", &format!("face:{id}")]);
    assert_eq!(json(&folder, 0, &["people", "name", &id, "Benno"])["faces"][0]["person"], "Benno");
    let names = json(&folder, 0, &["people"]);
    assert_eq!(names, value!({ "people": [{ "name": "Ana", "faces": 2 }, { "name": "Benno", "faces": 1 }] }));
    json(&folder, 0, &["people", "unname", &id]);
    assert_eq!(json(&folder, 0, &["stats"])["unnamed"], 1);

    assert_eq!(json(&folder, 0, &["forget", "--face", &id]), value!({ "removed": 1 }));
    assert_eq!(json(&folder, 0, &["forget", "--photo", "photos/Ana/1.jpg"]), value!({ "removed": 1 }));
    assert_eq!(json(&folder, 0, &["forget", "--person", "Ana"]), value!({ "removed": 1 }));
    assert_eq!(json(&folder, 0, &["stats"])["faces"], 0);
    assert_eq!(run(&folder, &["forget", "--person", "Ana"]).status.code(), Some(2));
}

#[test]
fn cluster_groups_faces_scores_itself_by_the_names_and_draws_a_sheet() {
    let folder = known_people();
    let answer = json(&folder, 0, &["cluster", "--html", "sheet.html"]);
    assert_eq!(answer["groups"].as_array().unwrap().len(), 2);
    assert_eq!((&answer["agreement"]["bcubed"]["f"], &answer["faces"]), (&value!(1.0), &value!(3)));
    let sheet = std::fs::read_to_string(folder.path().join("sheet.html")).unwrap();
    assert_eq!(sheet.matches("data:image/jpeg;base64,").count(), 3);
    assert!(sheet.contains("Ana: 2 faces") && sheet.contains("On their own: 1 face"));
    assert_eq!(json(&folder, 0, &["cluster", "--k-means", "1"])["groups"].as_array().unwrap().len(), 1);
    let text = stdout(&run(&folder, &["cluster", "--far", "1e-4"]));
    assert!(text.contains("3 faces in 2 groups") && text.contains("BCubed"), "{text}");
}

#[test]
fn pictures_of_a_sheet_come_from_shards_too() {
    let folder = folder();
    let mut shard = tar::Builder::new(Vec::new());
    for (name, color) in [("Ana/1.jpg", ANA), ("Ben/1.jpg", BEN)] {
        let bytes = photo(color, 1);
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        shard.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    write(&folder, "shard.tar", shard.into_inner().unwrap());
    json(&folder, 0, &["ingest", "shard.tar"]);
    json(&folder, 0, &["cluster", "--html", "sheet.html"]);
    let sheet = std::fs::read_to_string(folder.path().join("sheet.html")).unwrap();
    assert_eq!(sheet.matches("data:image/jpeg;base64,").count(), 2);
    std::fs::remove_file(folder.path().join("shard.tar")).unwrap();
    json(&folder, 0, &["cluster", "--html", "sheet.html"]);
    let sheet = std::fs::read_to_string(folder.path().join("sheet.html")).unwrap();
    assert_eq!(sheet.matches("the photo has moved or changed").count(), 2);
}

#[test]
fn a_question_to_a_gallery_that_is_not_there_starts_none() {
    let folder = folder();
    write(&folder, "ana.jpg", photo(ANA, 1));
    for question in [&["stats"][..], &["people"], &["cluster"], &["identify", "ana.jpg"], &["forget", "--face", "1"]] {
        let output = run(&folder, question);
        assert_eq!(output.status.code(), Some(2), "{question:?}");
        assert!(stderr(&output).contains("vultus.gallery: no gallery there"), "{}", stderr(&output));
    }
    assert!(!folder.path().join("vultus.gallery").exists());
}

#[test]
fn every_command_has_help_with_an_example() {
    let folder = folder();
    let commands = [
        "demo", "ingest", "identify", "verify", "cluster", "people", "forget", "stats", "serve", "align", "train",
        "eval",
    ];
    for command in commands {
        let output = run(&folder, &[command, "--help"]);
        let help = stdout(&output);
        assert!(output.status.success() && help.contains("Usage: vultus"), "{command}: {help}");
        assert!(help.contains("Example") && help.contains(&format!("vultus {command}")), "{command}: {help}");
        assert!(!help.contains("test-double"), "{command} shows what is only for tests");
    }
}

#[test]
fn a_reader_that_leaves_early_ends_the_program_quietly() {
    let folder = folder();
    (0..200).for_each(|view| write(&folder, &format!("photos/{view:03}.jpg"), photo(ANA, view)));
    assert!(run(&folder, &["ingest", "photos"]).status.success());
    // Enough text to fill any pipe: the program can't have written all of it before the reader left.
    let mut child = vultus(&folder, &["people", "faces", "--limit", "200", "--json", "--test-double"]).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()));
}

#[test]
fn the_demo_runs_and_draws_its_sheet() {
    let folder = folder();
    let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/../samples");
    let answer = json(&folder, 0, &["demo", "--samples", samples, "--into", "out"]);
    assert_eq!((&answer["ingested"]["added"], &answer["held_back"]["people"]), (&value!(60), &value!(20)));
    assert_eq!(answer["clusters"]["faces"], 90);
    let sheet = std::fs::read_to_string(folder.path().join("out/contact-sheet.html")).unwrap();
    assert!(sheet.contains("vultus demo: faces by group") && sheet.contains("data:image/jpeg;base64,"));

    let output = run(&folder, &["demo"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--samples FOLDER"), "{}", stderr(&output));
    let output = run(&folder, &["demo", "--samples", samples, "--into", "out"]);
    assert!(stderr(&output).contains("out: not empty"), "{}", stderr(&output));
}

#[test]
fn a_network_can_be_exported_and_the_double_has_none() {
    let folder = folder();
    for net in ["proposal", "refine", "output"] {
        let answer = json(&folder, 0, &["export", "--net", net, "--out", "net.onnx"]);
        let written = std::fs::metadata(folder.path().join("net.onnx")).unwrap().len();
        assert_eq!((&answer["net"], &answer["bytes"]), (&value!(net), &value!(written)));
    }
    let refused = run(&folder, &["export", "--out", "face.onnx"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("no network to export"), "{}", stderr(&refused));
    assert!(!folder.path().join("face.onnx").exists());
}
