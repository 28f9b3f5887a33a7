//! What people say about photos, read from a table beside them: CSV or JSON lines, one photo a row.
//!
//! The whole table is read and checked before a run starts, so that a slip in its last line does not show after hours.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde_json::Value;

use crate::catalog::Metadata;
use crate::{Error, Result};

/// Metadata of photos by path, from CSV (a `path` column and any others) or JSON lines (a `path` member and any others).
///
/// A row belongs to the photo whose stored path it spells (`album/1.jpg`, `shard.tar!Ana/1.jpg`), or else whose path from
/// the ingested folder, or inside the ingested shard, it spells. A leading `./` is ignored.
#[derive(Clone, Debug, Default)]
pub struct MetadataTable {
    rows: HashMap<String, Metadata>,
}

impl MetadataTable {
    /// Reads `.csv`, or `.jsonl` / `.ndjson` / `.json` with one object a line.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Argument`] with the line number for another extension, a row without a path, a path given
    /// twice, a value that is neither text, number, boolean nor a list of them, and bytes that can't be parsed.
    pub fn read(path: &Path) -> Result<Self> {
        let file = BufReader::new(File::open(path).map_err(Error::io(path))?);
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        let rows = match extension.as_deref() {
            Some("csv") => csv_rows(file),
            Some("jsonl" | "ndjson" | "json") => json_rows(file),
            _ => Err("expected a name that ends in .csv or .jsonl".to_owned()),
        };
        rows.map(|rows| Self { rows })
            .map_err(|what| Error::argument("metadata", format!("{}: {what}", path.display())))
    }

    /// Rows in the table.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The row of a photo, by its stored path or its path from the ingested folder.
    pub(super) fn row(&self, path: &str, relative: &str) -> Option<&Metadata> {
        self.rows.get(key(path)).or_else(|| self.rows.get(key(relative)))
    }
}

fn key(path: &str) -> &str {
    path.strip_prefix("./").unwrap_or(path)
}

/// A problem, with its line.
type Problem = String;

fn insert(rows: &mut HashMap<String, Metadata>, line: u64, path: &str, row: Metadata) -> Result<(), Problem> {
    if path.is_empty() {
        return Err(format!("line {line}: the path is empty"));
    }
    if row.contains_key("person") {
        return Err(format!(
            "line {line}: `person` is not metadata; sort photos in folders by person, or name faces later"
        ));
    }
    match rows.entry(key(path).to_owned()) {
        Entry::Occupied(_) => Err(format!("line {line}: {path} has a row already")),
        Entry::Vacant(place) => {
            place.insert(row);
            Ok(())
        }
    }
}

fn csv_rows(file: impl Read) -> Result<HashMap<String, Metadata>, Problem> {
    let mut reader = csv::Reader::from_reader(file);
    let problem = |error: csv::Error| match error.position() {
        Some(at) => format!("line {}: {error}", at.line()),
        None => error.to_string(),
    };
    let mut headers = reader.headers().map_err(problem)?.clone();
    // Spreadsheets put a byte order mark in front of the first name.
    if let Some(first) = headers.get(0).and_then(|first| first.strip_prefix('\u{feff}')) {
        headers = std::iter::once(first.to_owned()).chain(headers.iter().skip(1).map(str::to_owned)).collect();
    }
    for (at, name) in headers.iter().enumerate() {
        if name.is_empty() || headers.iter().take(at).any(|earlier| earlier == name) {
            return Err(format!("line 1: column {} has no name of its own: {name:?}", at + 1));
        }
    }
    let path_at = headers.iter().position(|name| name == "path").ok_or("line 1: no column is named `path`")?;
    let mut rows = HashMap::new();
    for record in reader.records() {
        let record = record.map_err(problem)?;
        let line = record.position().map_or(0, csv::Position::line);
        let cells =
            headers.iter().zip(&record).enumerate().filter(|(at, (_, cell))| *at != path_at && !cell.is_empty());
        let row = cells.map(|(_, (name, cell))| (name.to_owned(), typed(cell))).collect();
        insert(&mut rows, line, &record[path_at], row)?;
    }
    Ok(rows)
}

/// What a cell means: `true` and `false`, plain decimal numbers, and otherwise text. A number that would not read the
/// same when written back, such as `007` or `1e5`, is text, for it is more likely a name.
fn typed(cell: &str) -> Value {
    match cell {
        "true" => return Value::Bool(true),
        "false" => return Value::Bool(false),
        _ => {}
    }
    if let Ok(whole) = cell.parse::<i64>()
        && whole.to_string() == cell
    {
        return whole.into();
    }
    let digits = cell.strip_prefix('-').unwrap_or(cell);
    let decimal = digits.split_once('.').is_some_and(|(whole, part)| {
        let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        all_digits(whole) && all_digits(part) && (whole == "0" || !whole.starts_with('0'))
    });
    match cell.parse::<f64>() {
        Ok(number) if decimal && number.is_finite() => number.into(),
        _ => cell.into(),
    }
}

fn json_rows(file: impl BufRead) -> Result<HashMap<String, Metadata>, Problem> {
    let mut rows = HashMap::new();
    for (line, text) in (1..).zip(file.lines()) {
        let text = text.map_err(|error| format!("line {line}: {error}"))?;
        if text.trim().is_empty() {
            continue;
        }
        let mut row: Metadata = serde_json::from_str(&text).map_err(|error| format!("line {line}: {error}"))?;
        let Some(Value::String(path)) = row.remove("path") else {
            return Err(format!("line {line}: no member `path` that is text"));
        };
        if let Some((name, value)) = row.iter().find(|(_, value)| !is_flat(value)) {
            return Err(format!(
                "line {line}: {name} must be text, a number, a boolean or a list of them; found {value}"
            ));
        }
        insert(&mut rows, line, &path, row)?;
    }
    Ok(rows)
}

fn is_flat(value: &Value) -> bool {
    let plain = |value: &Value| value.is_string() || value.is_number() || value.is_boolean();
    plain(value) || value.as_array().is_some_and(|list| list.iter().all(plain))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use super::*;
    use serde_json::json;

    fn read(name: &str, text: &str) -> Result<MetadataTable> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), text).unwrap();
        MetadataTable::read(&folder.path().join(name))
    }

    #[track_caller]
    fn refused(name: &str, text: &str, expected: &str) {
        let message = read(name, text).unwrap_err().to_string();
        assert!(message.contains(expected) && message.contains(name), "{message}");
    }

    #[test]
    fn cells_are_numbers_and_booleans_only_when_they_read_the_same_written_back() {
        let table = read(
            "a.csv",
            "path,v\n1,2019\n2,-3.50\n3,true\n4,007\n5,1e5\n6,NaN\n7,\n8,\"a, b\"\n9,99999999999999999999\n",
        )
        .unwrap();
        let value = |path| table.row(path, "").unwrap().get("v").cloned();
        let values: Vec<_> = ["1", "2", "3", "4", "5", "6", "7", "8", "9"].map(value).into();
        let text = |text: &str| Some(json!(text));
        let expected = [
            Some(json!(2019)),
            Some(json!(-3.5)),
            Some(json!(true)),
            text("007"),
            text("1e5"),
            text("NaN"),
            None,
            text("a, b"),
            text("99999999999999999999"),
        ];
        assert_eq!(values, expected);
    }

    #[test]
    fn a_row_is_found_by_the_stored_path_before_the_relative_one() {
        let table = read(
            "a.jsonl",
            "{\"path\":\"album/1.jpg\",\"n\":1}\n\n{\"path\":\"./1.jpg\",\"n\":2,\"tags\":[\"a\",\"b\"]}\n",
        )
        .unwrap();
        let n = |path, relative| table.row(path, relative).map(|row| row["n"].clone());
        assert_eq!(n("./album/1.jpg", "1.jpg"), Some(json!(1)));
        assert_eq!(n("other/1.jpg", "1.jpg"), Some(json!(2)));
        assert_eq!(n("other/sub/1.jpg", "sub/1.jpg"), None);
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn a_slip_is_an_error_with_its_line() {
        refused("a.csv", "path,album\n1.jpg,x\n1.jpg,y\n", "line 3: 1.jpg has a row already");
        refused("a.csv", "path,album\n1.jpg,x,z\n", "line 2");
        refused("a.csv", "file,album\n1.jpg,x\n", "line 1: no column is named `path`");
        refused("a.csv", "path,album,album\n", "line 1: column 3");
        refused("a.csv", "path,album\n,x\n", "line 2: the path is empty");
        refused("a.csv", "path,person\n1.jpg,Ana\n", "line 2: `person`");
        refused("a.jsonl", "{\"path\":\"1\"}\n{\"path\":3}\n", "line 2: no member `path`");
        refused("a.jsonl", "{\"path\":\"1\",\"deep\":{\"er\":1}}\n", "line 1: deep must be");
        refused("a.jsonl", "{\"path\":\"1\",\"gone\":null}\n", "line 1: gone must be");
        refused("a.jsonl", "{\"path\":\"1\"\n", "line 1");
        refused("a.xml", "", "expected a name that ends in");
    }

    #[test]
    fn a_byte_order_mark_does_not_hide_the_path_column() {
        assert_eq!(read("a.csv", "\u{feff}path,album\n1.jpg,x\n").unwrap().len(), 1);
    }
}
