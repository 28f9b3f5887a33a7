//! The program from outside: the real binary, its exit codes, its text and its JSON.
//!
//! Most tests use the hidden `--test-double`, which needs no networks: a photo is one face, and photos of one colour are
//! one person.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

mod answers;
mod bench;
mod interrupted;
mod networks;
mod rubbish;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use vultus::Photo;

/// Colours that the test double takes for different people.
const ANA: [u8; 3] = [200, 40, 40];
const BEN: [u8; 3] = [40, 40, 200];

/// An empty folder to run in.
fn folder() -> TempDir {
    TempDir::new().unwrap()
}

/// The program, about to run in `folder`.
fn vultus(folder: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vultus"));
    command.current_dir(folder.path()).args(arguments).env_remove("VULTUS_GALLERY");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it with the test double.
#[track_caller]
fn run(folder: &TempDir, arguments: &[&str]) -> Output {
    let output = vultus(folder, arguments).arg("--test-double").output().unwrap();
    assert!(!stderr(&output).contains("panicked"), "{arguments:?}: {}", stderr(&output));
    output
}

/// Runs it with `--json`, expects this exit code, and parses what it printed.
#[track_caller]
fn json(folder: &TempDir, code: i32, arguments: &[&str]) -> Value {
    let output = run(folder, &[arguments, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", stdout(&output)))
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A JPEG of one colour; `view` makes its bytes its own.
fn photo(color: [u8; 3], view: u32) -> Vec<u8> {
    let pixels = color.repeat((8 + view as usize) * 8);
    Photo::from_rgb(8 + view, 8, pixels).unwrap().to_jpeg(95).unwrap()
}

fn write(folder: &TempDir, name: &str, bytes: impl AsRef<[u8]>) {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap_or(Path::new(""))).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Two photos of Ana and one of Ben, in a folder each.
fn people(folder: &TempDir) {
    write(folder, "photos/Ana/1.jpg", photo(ANA, 1));
    write(folder, "photos/Ana/2.jpg", photo(ANA, 2));
    write(folder, "photos/Ben/1.jpg", photo(BEN, 3));
}
