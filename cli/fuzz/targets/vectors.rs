//! Bytes of any kind as a file of vectors, under each of the names that such files have.
#![no_main]
#![allow(dead_code, reason = "the program uses more of what is shared with it")]

#[path = "../../src/commands/bench/vectors/mod.rs"]
mod vectors;

const EXTENSIONS: [&str; 4] = ["fvecs", "bvecs", "npy", "hdf5"];

libfuzzer_sys::fuzz_target!(|file: (u8, &[u8])| {
    let (kind, bytes) = file;
    let suffix = format!(".{}", EXTENSIONS[usize::from(kind) % EXTENSIONS.len()]);
    let mut file = tempfile::Builder::new().suffix(&suffix).tempfile().expect("a temporary file");
    std::io::Write::write_all(&mut file, bytes).expect("room for a temporary file");
    if let Ok(read) = vectors::read(file.path(), 100) {
        assert!((1..=100).contains(&read.vectors.count()));
    }
});
