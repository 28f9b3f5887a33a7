//! Any bytes for how far a merge was that was cut off, with a checksum that fits.
#![no_main]
#![allow(dead_code, reason = "tests use more of what is shared with them")]

#[path = "../../tests/it/power/cut_off.rs"]
mod cut_off;
#[path = "../../tests/it/data.rs"]
mod data;
#[path = "../../tests/it/simulated.rs"]
mod simulated;

libfuzzer_sys::fuzz_target!(|replaced: (u16, &[u8])| {
    let (at, bytes) = replaced;
    cut_off::use_it(&cut_off::with_part(|part| {
        let at = usize::from(at) % part.len();
        part.splice(at..part.len().min(at + bytes.len()), bytes.iter().copied());
    }));
});
