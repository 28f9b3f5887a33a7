//! Any bytes in the place of one file of a good folder, with checksums that fit.
#![no_main]
#![allow(dead_code, reason = "tests use more of what is shared with them")]

#[path = "../../tests/it/crafted.rs"]
mod crafted;
#[path = "../../tests/it/data.rs"]
mod data;
#[path = "../../tests/it/simulated.rs"]
mod simulated;

libfuzzer_sys::fuzz_target!(|replaced: (u8, &[u8])| {
    let (which, bytes) = replaced;
    crafted::use_it(&crafted::with_file(usize::from(which) % 3, bytes));
});
