//! Which faces an answer may contain: the filter language, read from text and written back as text.
//!
//! A filter is a small tree of ours, so that every store of faces can lower it in its own way. What a value matches
//! is said here, once; how it is looked up is the store's business.
//!
//! | written                              | lets through                                                    |
//! |--------------------------------------|-----------------------------------------------------------------|
//! | `person:ana`, `"my key":"two words"` | faces whose field has exactly this value                        |
//! | `year:2019`, `flash:true`            | the number or the boolean, also when it was stored as text      |
//! | `year:[2015 TO 2019]`, `{5 TO *}`    | values between two ends: `[ ]` with the end, `{ }` without it   |
//! | `year:>=2015`, `>`, `<`, `<=`        | the same with one end                                           |
//! | `album:*`                            | faces that have the field                                       |
//! | `beach`, `"at the beach"`            | faces with this word, or these words in a row, in any text      |
//! | `NOT a`, `-a`, `a AND b`, `a b`, `a OR b`, `( )`, `*` | binding in this order; `*` is every face       |
//!
//! Case never matters, in fields, values and words alike. A value in quotes is text and equals the whole text;
//! without quotes `2019` is a number and `true` a boolean. Numbers compare as `f64`. Text compares character by
//! character, which sorts ISO 8601 dates by time; next to a number such a date counts as its year, so
//! `taken:>=2019` and `taken:[2019-05-01 TO 2019-06-01}` both do what they say. A list matches when an element does.

use std::fmt;
use std::ops::Bound;
use std::str::FromStr;

use super::parser;
use crate::{Error, Result};

/// The longest field name, in bytes.
pub(super) const FIELD_BYTES_MAX: usize = 128;

/// Which faces an answer may contain. Parsed from text such as `album:"2019" AND NOT person:ana`.
///
/// Fields are `person`, `path`, `id` and every metadata key. `Display` writes text that parses to the same filter.
///
/// ```
/// use vultus::catalog::Filter;
///
/// let filter: Filter = r#"album:"2019" -person:ana"#.parse()?;
/// assert_eq!(filter.to_string(), r#"album:"2019" AND NOT person:ana"#);
/// # Ok::<(), vultus::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// All of these; every face when there are none.
    All(Vec<Filter>),
    /// Any of these; no face when there are none.
    Any(Vec<Filter>),
    /// Not this.
    Not(Box<Filter>),
    /// The field has exactly this value, or is a list with such an element.
    Equals {
        /// `person`, `path`, `id` or a metadata key.
        field: String,
        /// String, number or boolean.
        value: FilterValue,
    },
    /// The field lies between these ends, which are both text or both numbers; with no end, the field is there.
    Range {
        /// `person`, `path`, `id` or a metadata key.
        field: String,
        /// Lower end.
        from: Bound<FilterValue>,
        /// Upper end.
        to: Bound<FilterValue>,
    },
    /// Some text of the face, its path and person included, contains this word or these words in a row.
    Text(String),
}

/// A value in a filter.
#[derive(Clone, Debug, PartialEq)]
pub enum FilterValue {
    /// Compared as text, without regard to case.
    Text(String),
    /// Compared as a number.
    Number(f64),
    /// `true` or `false`.
    Bool(bool),
}

impl FromStr for Filter {
    type Err = Error;

    /// # Errors
    /// [`Error::Argument`] with the column and what was expected there.
    fn from_str(text: &str) -> Result<Self> {
        parser::parse(text)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_filter(f, self, Place::Outermost)
    }
}

impl fmt::Display for FilterValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write_text(f, text),
            Self::Number(number) => number.fmt(f),
            Self::Bool(flag) => flag.fmt(f),
        }
    }
}

/// Refuses a field name that no face can have.
///
/// # Errors
/// What is wrong with it, as the end of a sentence.
pub(super) fn check_field(field: &str) -> Result<(), &'static str> {
    match field {
        "" => Err("a field name may not be empty"),
        _ if field.len() > FIELD_BYTES_MAX => Err("a field name has at most 128 bytes"),
        _ if field.chars().any(char::is_control) => Err("a field name may not hold control characters"),
        _ => Ok(()),
    }
}

/// The number that a text can be read as: digits with a sign, a point or an exponent, and never infinite.
pub(super) fn number(text: &str) -> Option<f64> {
    // `f64` also reads "inf" and "nan", which are words here.
    let looks_like_one = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    looks_like_one.then(|| text.parse().ok()).flatten().filter(|number: &f64| number.is_finite())
}

/// Characters that end a word outside quotes.
pub(super) fn ends_word(c: char) -> bool {
    c.is_whitespace() || "()[]{}\"".contains(c)
}

/// Where a filter is written, which says whether it needs parentheses.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Place {
    Outermost,
    InAny,
    InAllOrNot,
}

fn write_filter(f: &mut fmt::Formatter<'_>, filter: &Filter, place: Place) -> fmt::Result {
    match filter {
        Filter::All(list) if list.is_empty() => f.write_str("*"),
        Filter::Any(list) if list.is_empty() => f.write_str("NOT *"),
        Filter::All(list) | Filter::Any(list) if list.len() == 1 => write_filter(f, &list[0], place),
        Filter::All(list) => write_list(f, list, " AND ", Place::InAllOrNot, place > Place::InAny),
        Filter::Any(list) => write_list(f, list, " OR ", Place::InAny, place > Place::Outermost),
        Filter::Not(filter) => {
            f.write_str("NOT ")?;
            write_filter(f, filter, Place::InAllOrNot)
        }
        Filter::Equals { field, value } => {
            write_text(f, field)?;
            write!(f, ":{value}")
        }
        Filter::Range { field, from, to } => {
            write_text(f, field)?;
            write_range(f, from, to)
        }
        Filter::Text(words) => write_text(f, words),
    }
}

fn write_list(
    f: &mut fmt::Formatter<'_>,
    list: &[Filter],
    between: &str,
    place: Place,
    parentheses: bool,
) -> fmt::Result {
    f.write_str(if parentheses { "(" } else { "" })?;
    for (i, filter) in list.iter().enumerate() {
        f.write_str(if i > 0 { between } else { "" })?;
        write_filter(f, filter, place)?;
    }
    f.write_str(if parentheses { ")" } else { "" })
}

fn write_range(f: &mut fmt::Formatter<'_>, from: &Bound<FilterValue>, to: &Bound<FilterValue>) -> fmt::Result {
    use Bound::{Excluded, Included, Unbounded};
    match (from, to) {
        (Unbounded, Unbounded) => f.write_str(":*"),
        (Included(from), Unbounded) => write!(f, ":>={from}"),
        (Excluded(from), Unbounded) => write!(f, ":>{from}"),
        (Unbounded, Included(to)) => write!(f, ":<={to}"),
        (Unbounded, Excluded(to)) => write!(f, ":<{to}"),
        (Included(from), Included(to)) => write!(f, ":[{from} TO {to}]"),
        (Included(from), Excluded(to)) => write!(f, ":[{from} TO {to}}}"),
        (Excluded(from), Included(to)) => write!(f, ":{{{from} TO {to}]"),
        (Excluded(from), Excluded(to)) => write!(f, ":{{{from} TO {to}}}"),
    }
}

/// Writes text bare where it reads back as the same text, and in quotes elsewhere.
fn write_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let bare = !text.is_empty()
        && !text.starts_with(['-', '<', '>', '='])
        && !text.chars().any(|c| ends_word(c) || ":*\\".contains(c))
        && !["AND", "OR", "NOT", "TO", "true", "false"].contains(&text)
        && number(text).is_none();
    if bare {
        return f.write_str(text);
    }
    f.write_str("\"")?;
    for c in text.chars() {
        f.write_str(if c == '"' || c == '\\' { "\\" } else { "" })?;
        write!(f, "{c}")?;
    }
    f.write_str("\"")
}
