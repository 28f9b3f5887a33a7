//! The pairs file of LFW's View 2: which photos are compared, in which fold, and whether they show one person.
//!
//! The first line holds the number of folds and of pairs of each kind in a fold, and each fold lists first its same
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
        Self::parse(&text).map_err(|what| Error::corrupt(path, what))
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
