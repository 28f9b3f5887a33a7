//! Pairs files: which photos are compared, in which fold, and whether they show one person.
//!
//! Two forms are read. A table with the columns `a`, `b`, `same` and perhaps `fold`, separated by commas, names photos by their files; folders and
//! extensions may be left out. And the file of LFW's View 2: the first line holds the number of folds and of pairs of each kind in a fold, and each fold lists first its same
//! pairs, `NAME NUMBER NUMBER`, then its different pairs, `NAME NUMBER NAME NUMBER`, separated by tabs. Photos are named
//! `NAME_0001`.
//!
//! Source: Huang et al., "Labeled Faces in the Wild", UMass Amherst TR 07-49, 2007; the README of its `pairs.txt`.

use std::collections::HashSet;
use std::path::Path;

use crate::{Error, Result};

/// Two photos, and whether they show one person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Their names, such as `Ana_Diaz_0001`.
    pub photos: [String; 2],
    /// Whether they show one person.
    pub same: bool,
    /// Counted from 0.
    pub fold: usize,
}

/// All pairs, by fold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairList {
    /// As many same pairs as different ones in each fold.
    pub pairs: Vec<Pair>,
    /// How many folds.
    pub folds: usize,
}

impl PairList {
    /// Reads a pairs file.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Corrupt`] with the line that is not as it should be.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let table = text.lines().find(|line| !line.trim().is_empty()).is_some_and(|line| line.contains(','));
        let list = if table { Self::parse_table(&text) } else { Self::parse(&text) };
        list.map_err(|what| Error::corrupt(path, what))
    }

    fn parse_table(text: &str) -> Result<Self, String> {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
        let mut pairs = Vec::new();
        for row in reader.deserialize::<Row>() {
            let row = row.map_err(|error| error.to_string())?;
            let same = match row.same.to_ascii_lowercase().as_str() {
                "1" | "true" | "yes" => true,
                "0" | "false" | "no" => false,
                other => return Err(format!("pair {}: same: expected 1 or 0, found `{other}`", pairs.len() + 1)),
            };
            let photos = [row.a, row.b].map(|name| stem(&name).to_owned());
            if photos.iter().any(String::is_empty) {
                return Err(format!("pair {}: expected the names of two photos", pairs.len() + 1));
            }
            let fold = row.fold.unwrap_or(1).checked_sub(1).ok_or("folds are counted from 1, found 0")?;
            pairs.push(Pair { photos, same, fold });
        }
        // A fold of a large number would stand for as many empty ones.
        let folds = pairs.iter().map(|pair| pair.fold + 1).max().unwrap_or(0);
        match folds {
            0 => Err("a table without pairs".into()),
            _ if folds > pairs.len() => Err(format!("fold {folds} of {} pairs", pairs.len())),
            _ => Ok(Self { pairs, folds }),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line)).filter(|(_, l)| !l.trim().is_empty());
        let (_, head) = lines.next().ok_or("line 1: expected the numbers of folds and pairs, found nothing")?;
        let head: Vec<&str> = head.split_whitespace().collect();
        let (folds, each) = match head.as_slice() {
            [folds, each] => (count(folds), count(each)),
            [each] => (Some(1), count(each)),
            _ => (None, None),
        };
        let (Some(folds), Some(each)) = (folds, each) else {
            return Err(format!("line 1: expected the numbers of folds and pairs, found `{}`", head.join(" ")));
        };
        let mut pairs = Vec::new();
        for fold in 0..folds {
            for at in 0..each.saturating_mul(2) {
                let (number, line) = lines.next().ok_or_else(|| {
                    format!("{folds} folds of 2 x {each} pairs are promised, but the file ends after {}", pairs.len())
                })?;
                let same = at < each;
                let photos = photos(line, same).ok_or_else(|| {
                    let expected = if same { "NAME NUMBER NUMBER" } else { "NAME NUMBER NAME NUMBER" };
                    format!("line {number}: expected `{expected}`, found `{line}`")
                })?;
                pairs.push(Pair { photos, same, fold });
            }
        }
        match lines.next() {
            Some((number, line)) => Err(format!("line {number}: more pairs than promised, `{line}`")),
            None => Ok(Self { pairs, folds }),
        }
    }

    /// The photos that occur, each once.
    pub fn photos(&self) -> HashSet<&str> {
        self.pairs.iter().flat_map(|pair| &pair.photos).map(String::as_str).collect()
    }
}

/// A row of a table.
#[derive(serde::Deserialize)]
struct Row {
    a: String,
    b: String,
    same: String,
    fold: Option<usize>,
}

/// `lfw/Ana/Ana_0001.jpg` → `Ana_0001`.
fn stem(name: &str) -> &str {
    let file = name.rsplit(['/', '\\']).next().unwrap_or(name);
    match file.rsplit_once('.') {
        Some((stem, "jpg" | "jpeg" | "JPG" | "JPEG" | "png" | "PNG" | "webp")) => stem,
        _ => file,
    }
}

fn count(field: &str) -> Option<usize> {
    field.parse().ok().filter(|count| *count > 0)
}

fn photos(line: &str, same: bool) -> Option<[String; 2]> {
    // Names never hold a blank, so files that were retyped with blanks read as well.
    let fields: Vec<&str> = line.split_whitespace().collect();
    match (fields.as_slice(), same) {
        ([name, a, b], true) => Some([photo(name, a)?, photo(name, b)?]),
        ([name, a, other, b], false) => Some([photo(name, a)?, photo(other, b)?]),
        _ => None,
    }
}

fn photo(name: &str, number: &str) -> Option<String> {
    Some(format!("{name}_{:04}", number.parse::<u32>().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use super::*;

    const GOOD: &str = "2\t1\nAna\t1\t4\nAna\t1\tBen\t12\nCarl\t2\t3\nCarl\t2\tAna\t1\n";

    #[test]
    fn pairs_come_with_their_fold_and_their_photos_names() {
        let list = PairList::parse(GOOD).unwrap();
        assert_eq!((list.folds, list.pairs.len()), (2, 4));
        let pair = |a: &str, b: &str, same, fold| Pair { photos: [a.to_owned(), b.to_owned()], same, fold };
        assert_eq!(list.pairs[1], pair("Ana_0001", "Ben_0012", false, 0));
        assert_eq!(list.pairs[2], pair("Carl_0002", "Carl_0003", true, 1));
        assert_eq!(list.photos().len(), 5);
    }

    #[test]
    fn a_table_names_photos_by_their_files() {
        let pair = |a: &str, b: &str, same, fold| Pair { photos: [a.to_owned(), b.to_owned()], same, fold };
        let list =
            PairList::parse_table("a,b,same,fold\nx/Ana 1.jpg, Ana.2 ,1,1\nAna.2,\"Ben, 3.png\",no,2\n").unwrap();
        assert_eq!(
            (list.folds, list.pairs),
            (2, vec![pair("Ana 1", "Ana.2", true, 0), pair("Ana.2", "Ben, 3", false, 1)])
        );
        assert_eq!(PairList::parse_table("same,b,a\n0,x,y").unwrap().pairs, [pair("y", "x", false, 0)]);
        for (text, expected) in [
            ("a,b\nx,y", "same"),
            ("a,b,same", "without pairs"),
            ("a,b,same\nx,y,maybe", "pair 1: same: expected 1 or 0, found `maybe`"),
            ("a,b,same\nx,y", "2"),
            ("a,b,same\nx,,1", "pair 1: expected the names"),
            ("a,b,same,fold\nx,y,1,0", "counted from 1"),
            ("a,b,same,fold\nx,y,1,99999999999", "fold 99999999999 of 1"),
        ] {
            let what = PairList::parse_table(text).unwrap_err();
            assert!(what.contains(expected), "{text:?} gave {what}");
        }
    }

    #[test]
    fn a_single_number_at_the_top_means_one_fold() {
        assert_eq!(PairList::parse("1\nAna 1 2\nAna 1 Ben 1").unwrap().folds, 1);
    }

    #[test]
    fn a_broken_file_is_refused_with_the_line() {
        for (text, expected) in [
            ("", "line 1"),
            ("ten\t300", "line 1"),
            ("0 0", "line 1"),
            ("1\t1\nAna\t1\n", "line 2"),
            ("1\t1\nAna\tone\ttwo\n", "line 2"),
            ("1\t1\nAna\t1\t2\nAna\t1\t3\n", "line 3"),
            ("1\t1\nAna\t1\t2\n", "ends after 1"),
            ("1\t1\nAna\t1\t2\nAna\t1\tBen\t3\n\nBen\t1\t2", "line 5"),
            ("99999999999\t99999999999999999999\n", "line 1"),
            ("99999999999\t999999999999999999\n", "ends after 0"),
        ] {
            let what = PairList::parse(text).unwrap_err();
            assert!(what.contains(expected), "{text:?} gave {what}");
        }
    }
}
