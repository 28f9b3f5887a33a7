//! A good folder with some words of one file changed, and all checksums made to fit.
#![no_main]
#![allow(dead_code, reason = "tests use more of what is shared with them")]

#[path = "../../tests/it/crafted.rs"]
mod crafted;
#[path = "../../tests/it/data.rs"]
mod data;
#[path = "../../tests/it/simulated.rs"]
mod simulated;

libfuzzer_sys::fuzz_target!(|edits: (u8, Vec<(u16, u32)>)| {
    let (which, edits) = edits;
    crafted::use_it(&crafted::edited(which.into(), edits.into_iter().map(|(word, value)| (word.into(), value))));
});
