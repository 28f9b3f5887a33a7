//! A face's values as terms: the bytes that filters are looked up by.
//!
//! The terms are ours and not the search engine's own typed ones, in which 2019, 2019.0 and "2019" are three
//! different things and a value of an unexpected type is lost. Each value is stored once for every way it can be read
//! (as text, as a number, as a boolean), and a filter asks for one way:
//!
//! | bytes | part  | meaning                                                                                |
//! |------:|-------|----------------------------------------------------------------------------------------|
//! |     n | field | the field's name, folded; UTF-8                                                        |
//! |     1 | end   | zero, which no name holds: a name is never the start of another's terms                |
//! |     1 | kind  | `b`, `n` or `t`                                                                        |
//! |     m | value | `b`: 0 or 1; `n`: 8 bytes, big-endian, that sort as the numbers do; `t`: folded UTF-8  |
//!
//! Terms sort as bytes, so a range of values is a range of terms. A change to this table is a new
//! [`VERSION`](super::VERSION): the index is a view, so an old one is rebuilt.

use std::ops::Bound;

use serde_json::Value;

use crate::catalog::filter::number;
use crate::catalog::{FilterValue, Metadata};

/// Text without regard to case: the lower case of each character by itself, as the search engine does to words.
pub(super) fn fold(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

/// The term of one value of a field, read in one way.
pub(super) fn term(field: &str, value: &FilterValue) -> Vec<u8> {
    let mut term = prefix(field);
    match value {
        FilterValue::Bool(flag) => term.extend([b'b', u8::from(*flag)]),
        FilterValue::Number(number) => {
            term.push(b'n');
            // Adding zero makes the two zeros one.
            term.extend(tantivy::f64_to_u64(number + 0.0).to_be_bytes());
        }
        FilterValue::Text(text) => {
            term.push(b't');
            term.extend(fold(text).into_bytes());
        }
    }
    term
}

/// The range of terms that holds a range of values. Both ends are of one kind; without any, all kinds are in it.
pub(super) fn terms(
    field: &str,
    from: &Bound<FilterValue>,
    to: &Bound<FilterValue>,
) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let start = |value: &FilterValue| term(field, value)[..=prefix(field).len()].to_vec();
    let after = |mut term: Vec<u8>| {
        // The last byte is one of ours, far below 255.
        if let Some(last) = term.last_mut() {
            *last += 1;
        }
        Bound::Excluded(term)
    };
    let from_term = from.as_ref().map(|value| term(field, value));
    let to_term = to.as_ref().map(|value| term(field, value));
    match (from, to) {
        (Bound::Unbounded, Bound::Unbounded) => (Bound::Included(prefix(field)), after(prefix(field))),
        (Bound::Unbounded, Bound::Included(to) | Bound::Excluded(to)) => (Bound::Included(start(to)), to_term),
        (Bound::Included(from) | Bound::Excluded(from), Bound::Unbounded) => (from_term, after(start(from))),
        _ => (from_term, to_term),
    }
}

/// Every way to read a text.
pub(super) fn readings(text: &str) -> impl Iterator<Item = FilterValue> {
    let flag = match fold(text).as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    };
    let number = number(text).or_else(|| year(text));
    [Some(FilterValue::Text(text.to_owned())), number.map(FilterValue::Number), flag.map(FilterValue::Bool)]
        .into_iter()
        .flatten()
}

/// The single values of a face's metadata, lists taken apart, as texts with their field.
pub(super) fn texts(metadata: &Metadata) -> impl Iterator<Item = (&str, String)> {
    metadata.iter().flat_map(|(key, value)| {
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        values.iter().map(move |value| (key.as_str(), text(value)))
    })
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        // `2019.0` is stored as `2019`: equal numbers are equal texts.
        Value::Number(number) if number.is_f64() => number.as_f64().map_or_else(String::new, |n| n.to_string()),
        other => other.to_string(),
    }
}

fn prefix(field: &str) -> Vec<u8> {
    let mut prefix = fold(field).into_bytes();
    prefix.push(0);
    prefix
}

/// The year of an ISO 8601 date: `2019-05`, `2019-05-01`, `2019-05-01T10:00:00Z`.
fn year(text: &str) -> Option<f64> {
    let (year, rest) = text.split_at_checked(4)?;
    let month = rest.strip_prefix('-')?.get(..2)?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let ends = rest.len() == 3 || rest[3..].starts_with(['-', 'T', ' ']);
    (digits(year) && digits(month) && ends).then(|| year.parse().ok()).flatten()
}
