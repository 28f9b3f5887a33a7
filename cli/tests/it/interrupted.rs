//! Runs that do not reach their end: killed at any moment, or stopped by Ctrl-C.

#![cfg(unix)]

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::{folder, json, photo, vultus, write};

const PHOTOS: u64 = 300;

fn many_photos() -> TempDir {
    let folder = folder();
    for number in 0..PHOTOS as u32 {
        let color = [(number % 200) as u8 + 20, (number / 2) as u8, 90];
        write(&folder, &format!("photos/{number:04}.jpg"), photo(color, number % 40));
    }
    folder
}

/// That the gallery holds so many photos, a face each, none twice.
#[track_caller]
fn holds(folder: &TempDir, at_least: u64) -> u64 {
    let stats = json(folder, 0, &["stats"]);
    let faces = json(folder, 0, &["people", "faces", "--limit", "100000"]);
    let photos: Vec<String> = faces["faces"].as_array().unwrap().iter().map(|face| face["photo"].to_string()).collect();
    let distinct: HashSet<&String> = photos.iter().collect();
    assert_eq!(distinct.len(), photos.len(), "a photo is stored twice");
    assert_eq!(
        (stats["photos"].as_u64(), stats["faces"].as_u64()),
        (Some(photos.len() as u64), Some(photos.len() as u64))
    );
    assert!(photos.len() as u64 >= at_least, "{} photos, there were {at_least}", photos.len());
    photos.len() as u64
}

#[test]
fn a_run_that_is_killed_at_any_moment_loses_nothing_and_the_next_stores_nothing_twice() {
    let folder = many_photos();
    // A gallery to start from, so that there is one whatever the first kill hits.
    json(&folder, 0, &["ingest", "photos/0000.jpg"]);
    let mut stored = 1;
    // Moments between the start of a program and some commits later; a prime step keeps them from repeating.
    for round in 0..10 {
        let mut child = vultus(&folder, &["ingest", "photos", "--test-double", "--batch", "3"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(3 + round * 37 % 101));
        child.kill().unwrap();
        child.wait().unwrap();
        stored = holds(&folder, stored);
    }
    let last = json(&folder, 0, &["ingest", "photos"]);
    assert_eq!((last["known"].as_u64(), last["added"].as_u64()), (Some(stored), Some(PHOTOS - stored)));
    assert_eq!(holds(&folder, PHOTOS), PHOTOS);
}

#[test]
fn ctrl_c_ends_a_run_with_a_summary_and_the_next_goes_on() {
    let folder = many_photos();
    // A named pipe among the photos holds the run in its middle until the test has pressed Ctrl-C.
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let (first, last) = ("photos/0001.jpg", "photos/0002.jpg");
    let mut child =
        vultus(&folder, &["ingest", first, "pipe", last, "photos", "--test-double", "--json"]).spawn().unwrap();
    // Opening waits for the reader: once it is open, the run has come to the pipe.
    let mut writer = File::options().write(true).open(&pipe).unwrap();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let mut messages = BufReader::new(child.stderr.take().unwrap());
    let mut message = String::new();
    messages.read_line(&mut message).unwrap();
    assert!(message.contains("stopping"), "{message}");
    writer.write_all(&fs::read(folder.path().join("photos/0003.jpg")).unwrap()).unwrap();
    drop(writer);
    messages.read_to_string(&mut message).unwrap();

    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{message}");
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let added = summary["added"].as_u64().unwrap();
    assert!(summary["stopped"] == true && added <= 2, "{summary}");
    assert_eq!(holds(&folder, added), added);
    assert_eq!(json(&folder, 0, &["ingest", "photos"])["known"].as_u64(), Some(added));
    assert_eq!(holds(&folder, PHOTOS), PHOTOS);
}
