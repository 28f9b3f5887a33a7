//! Bytes of any kind as a file of vectors, under each of the names that such files have.
#![no_main]
#![allow(dead_code, reason = "the program uses more of what is shared with it")]

#[path = "../../src/commands/bench/vectors/mod.rs"]
mod vectors;

const EXTENSIONS: [&str; 4] = ["fvecs", "bvecs", "npy", "hdf5"];

libfuzzer_sys::fuzz_target!(|file: (u8, &[u8])| {
    let (kind, bytes) = file;
    let suffix = format!(".{}", EXTENSIONS[usize::from(kind) % EXTENSIONS.len()]);
    // A full disk is no finding.
    let Ok(mut file) = tempfile::Builder::new().suffix(&suffix).tempfile() else { return };
    if std::io::Write::write_all(&mut file, bytes).is_err() {
        return;
    }
    if let Ok(read) = vectors::read(file.path(), 100) {
        assert!((1..=100).contains(&read.vectors.count()));
    }
});
