//! Which faces an answer may contain: the filter language, its parser and its spelling.
//!
//! A filter is a small tree of ours, so that every store of faces can lower it in its own way.

use crate::{Error, Result};

/// Which faces an answer may contain. Parsed from text such as `album:"2019" AND NOT person:ana`.
///
/// Fields are `person`, `path`, and every metadata key; `field:value`, `field:"quoted value"`,
/// `field:[a TO b]`, `field:>=a` and so on, joined by `AND`, `OR`, `NOT` and parentheses; a bare word is searched in the text of all fields.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// All of these.
    All(Vec<Filter>),
    /// Any of these.
    Any(Vec<Filter>),
    /// Not this.
    Not(Box<Filter>),
    /// The field has exactly this value.
    Equals {
        /// `person`, `path` or a metadata key.
        field: String,
        /// String, number or boolean.
        value: FilterValue,
    },
    /// The field lies between these bounds.
    Range {
        /// A metadata key.
        field: String,
        /// Lower end.
        from: std::ops::Bound<FilterValue>,
        /// Upper end.
        to: std::ops::Bound<FilterValue>,
    },
    /// Some field's text contains this word.
    Text(String),
}

/// A value in a filter.
#[derive(Clone, Debug, PartialEq)]
pub enum FilterValue {
    /// Compared as text.
    Text(String),
    /// Compared as a number.
    Number(f64),
    /// `true` or `false`.
    Bool(bool),
}

impl std::str::FromStr for Filter {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let _ = text;
        todo!()
    }
}
