//! Answers on standard output: one JSON document, or text for people.

use std::io::{self, Write};

use serde::Serialize;

/// Writes `answer` as one JSON document and a line break.
///
/// # Errors
/// Only those of `out`.
pub(crate) fn json(out: &mut dyn Write, answer: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(answer)?;
    text.push('\n');
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// `1 face`, `2 faces`.
pub(crate) fn count(number: u64, one: &str) -> String {
    let many = match one {
        "person" => "people".to_owned(),
        "named person" => "named people".to_owned(),
        _ => format!("{one}s"),
    };
    format!("{number} {}", if number == 1 { one } else { &many })
}

/// Bytes for people: `1.4 GB`, in powers of ten.
pub(crate) fn bytes(bytes: u64) -> String {
    let units = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    let unit = units.into_iter().find(|(size, _)| bytes as f64 >= *size);
    unit.map_or_else(|| format!("{bytes} bytes"), |(size, unit)| format!("{:.1} {unit}", bytes as f64 / size))
}

/// A share for people: `1.250 %`, or `4.0e-5` where a percentage would be all zeros.
pub(crate) fn rate(share: f64) -> String {
    if share >= 1e-3 { format!("{:.3} %", share * 100.0) } else { format!("{share:.1e}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_like_prose() {
        assert_eq!([count(1, "face"), count(0, "face"), count(2, "person")], ["1 face", "0 faces", "2 people"]);
        assert_eq!([rate(0.0125), rate(4e-5)], ["1.250 %", "4.0e-5"]);
        assert_eq!([bytes(999), bytes(1_000), bytes(1_449_999_999)], ["999 bytes", "1.0 kB", "1.4 GB"]);
    }
}
