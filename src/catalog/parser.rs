//! Text to [`Filter`]: a recursive descent parser of our own.
//!
//! Ours, and not the search engine's, because filters arrive over the network: the length and the depth are limited
//! before anything is built, no input panics, and an error names the column and what was expected there. The
//! language itself is described where [`Filter`] is.

use std::ops::Bound;

use super::filter::{Filter, FilterValue, check_field, ends_word, number};
use crate::{Error, Result};

/// The longest filter that is read, in bytes.
const BYTES_MAX: usize = 16 * 1024;

/// The deepest nesting of parentheses and negations that is read.
const DEPTH_MAX: usize = 32;

/// Words that join filters; in quotes they are words like any other.
const KEYWORDS: [&str; 4] = ["AND", "OR", "NOT", "TO"];

pub(super) fn parse(text: &str) -> Result<Filter> {
    if text.len() > BYTES_MAX {
        return Err(Error::argument("filter", format!("{} bytes long, at most {BYTES_MAX} are read", text.len())));
    }
    let mut parser = Parser { text, at: 0 };
    let filter = parser.any(0)?;
    if parser.peek().is_some() {
        return Err(parser.expected("AND, OR or the end"));
    }
    Ok(filter)
}

struct Parser<'a> {
    text: &'a str,
    /// Byte offset of what is read next.
    at: usize,
}

impl<'a> Parser<'a> {
    /// `all (OR all)*`
    fn any(&mut self, depth: usize) -> Result<Filter> {
        let mut list = vec![self.all(depth)?];
        while self.keyword("OR") {
            list.push(self.all(depth)?);
        }
        Ok(if list.len() == 1 { list.remove(0) } else { Filter::Any(list) })
    }

    /// `not (AND? not)*`
    fn all(&mut self, depth: usize) -> Result<Filter> {
        let mut list = vec![self.not(depth)?];
        while self.keyword("AND") || !(matches!(self.peek(), None | Some(')')) || self.sees_keyword("OR")) {
            list.push(self.not(depth)?);
        }
        Ok(if list.len() == 1 { list.remove(0) } else { Filter::All(list) })
    }

    /// `(NOT | -)* one`
    fn not(&mut self, depth: usize) -> Result<Filter> {
        if depth > DEPTH_MAX {
            return Err(self.expected("at most 32 levels of parentheses and NOT"));
        }
        let dash = self.peek() == Some('-') && self.bump();
        if dash && self.rest().chars().next().is_none_or(char::is_whitespace) {
            return Err(self.expected_at(self.at, "what to leave out right after -"));
        }
        if dash || self.keyword("NOT") {
            return Ok(Filter::Not(Box::new(self.not(depth + 1)?)));
        }
        self.one(depth)
    }

    /// `( any )`, `field:…`, a word or a phrase
    fn one(&mut self, depth: usize) -> Result<Filter> {
        const WANTED: &str = "a word, a \"phrase\", a field:value or (";
        if self.peek() == Some('(') {
            self.bump();
            let inner = self.any(depth + 1)?;
            return if self.peek() == Some(')') && self.bump() {
                Ok(inner)
            } else {
                Err(self.expected("AND, OR or )"))
            };
        }
        if self.peek().is_none() || KEYWORDS.iter().any(|word| self.sees_keyword(word)) {
            return Err(self.expected(WANTED));
        }
        let start = self.at;
        let quoted = self.peek() == Some('"');
        let words = if quoted { self.quoted()? } else { self.bare(|c| c == ':').to_owned() };
        if self.rest().starts_with(':') {
            check_field(&words).map_err(|what| self.error_at(start, what))?;
            self.bump();
            return self.field(words);
        }
        match words.as_str() {
            "*" if !quoted => Ok(Filter::All(Vec::new())),
            _ if !words.chars().any(char::is_alphanumeric) => Err(self.expected_at(start, WANTED)),
            _ if !quoted && words.contains('*') => Err(self.error_at(start, STAR)),
            _ => Ok(Filter::Text(words)),
        }
    }

    /// What follows `field:`
    fn field(&mut self, field: String) -> Result<Filter> {
        let range = |from, to| Filter::Range { field: field.clone(), from, to };
        let first = self.peek();
        match first {
            Some('[' | '{') => {
                let (from, to) = self.range()?;
                Ok(range(from, to))
            }
            Some('<' | '>') => {
                self.bump();
                let end = if self.rest().starts_with('=') && self.bump() { Bound::Included } else { Bound::Excluded };
                let value =
                    self.end()?.ok_or_else(|| self.error_at(self.at - 1, "* is not a value to compare with"))?;
                let value = end(value.0);
                Ok(if first == Some('>') { range(value, Bound::Unbounded) } else { range(Bound::Unbounded, value) })
            }
            Some('"') => {
                let value = FilterValue::Text(self.quoted()?);
                Ok(Filter::Equals { field, value })
            }
            _ => {
                let value = match self.value()? {
                    "*" => return Ok(range(Bound::Unbounded, Bound::Unbounded)),
                    "true" => FilterValue::Bool(true),
                    "false" => FilterValue::Bool(false),
                    word => number(word).map_or_else(|| FilterValue::Text(word.to_owned()), FilterValue::Number),
                };
                Ok(Filter::Equals { field, value })
            }
        }
    }

    /// `[a TO b]`, with a brace on the side whose end is left out
    fn range(&mut self) -> Result<(Bound<FilterValue>, Bound<FilterValue>)> {
        let bound = |inclusive, value| if inclusive { Bound::Included(value) } else { Bound::Excluded(value) };
        let from_inclusive = self.peek() == Some('[');
        self.bump();
        let from = self.end()?;
        if !self.keyword("TO") {
            return Err(self.expected("TO"));
        }
        let to = self.end()?;
        let to_inclusive = match self.peek() {
            Some(']') => true,
            Some('}') => false,
            _ => return Err(self.expected("] or }")),
        };
        self.bump();
        let both = match (from, to) {
            // `[2019 TO 2019-06]`: one end is no number, so both are text.
            (Some((from, from_text)), Some((to, to_text))) if is_number(&from) != is_number(&to) => {
                (Some(FilterValue::Text(from_text)), Some(FilterValue::Text(to_text)))
            }
            (from, to) => (from.map(|end| end.0), to.map(|end| end.0)),
        };
        Ok((
            both.0.map_or(Bound::Unbounded, |value| bound(from_inclusive, value)),
            both.1.map_or(Bound::Unbounded, |value| bound(to_inclusive, value)),
        ))
    }

    /// One end of a range with its spelling, or `None` for `*`.
    fn end(&mut self) -> Result<Option<(FilterValue, String)>> {
        if self.peek() == Some('"') {
            let text = self.quoted()?;
            return Ok(Some((FilterValue::Text(text.clone()), text)));
        }
        let word = self.value()?;
        if word == "*" {
            return Ok(None);
        }
        let value = number(word).map_or_else(|| FilterValue::Text(word.to_owned()), FilterValue::Number);
        Ok(Some((value, word.to_owned())))
    }

    /// A value without quotes.
    fn value(&mut self) -> Result<&'a str> {
        self.peek();
        let start = self.at;
        let word = self.bare(|_| false);
        match word {
            "" => Err(self.expected_at(start, "a value")),
            "*" => Ok(word),
            _ if KEYWORDS.contains(&word) => Err(self.expected_at(start, "a value (the word itself stands in quotes)")),
            _ if word.contains('*') => Err(self.error_at(start, STAR)),
            _ => Ok(word),
        }
    }

    /// Characters up to the end of the word, or to one that `stop` names.
    fn bare(&mut self, stop: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let word = &rest[..rest.find(|c| ends_word(c) || stop(c)).unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    /// A text in quotes, where `\"` and `\\` stand for the second character.
    fn quoted(&mut self) -> Result<String> {
        let start = self.at;
        self.bump();
        let mut text = String::new();
        while let Some(c) = self.rest().chars().next() {
            self.bump();
            match c {
                '"' => return Ok(text),
                '\\' => match self.rest().chars().next() {
                    Some(escaped @ ('"' | '\\')) => {
                        text.push(escaped);
                        self.bump();
                    }
                    _ => return Err(self.expected("\" or \\ after \\")),
                },
                _ => text.push(c),
            }
        }
        Err(self.error_at(start, "this quote is never closed"))
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// The next character that is not white space.
    fn peek(&mut self) -> Option<char> {
        self.at = self.text.len() - self.rest().trim_start().len();
        self.rest().chars().next()
    }

    /// Steps over one character; always true, so that it can end a condition.
    fn bump(&mut self) -> bool {
        self.at += self.rest().chars().next().map_or(0, char::len_utf8);
        true
    }

    /// Whether this keyword comes next, as a word of its own and not as a field.
    fn sees_keyword(&mut self, keyword: &str) -> bool {
        self.peek();
        self.rest().strip_prefix(keyword).is_some_and(|rest| rest.chars().next().is_none_or(ends_word))
    }

    fn keyword(&mut self, keyword: &str) -> bool {
        let seen = self.sees_keyword(keyword);
        self.at += if seen { keyword.len() } else { 0 };
        seen
    }

    fn expected(&mut self, wanted: &str) -> Error {
        self.peek();
        self.expected_at(self.at, wanted)
    }

    fn expected_at(&self, at: usize, wanted: &str) -> Error {
        let found = match self.text[at..].split_whitespace().next() {
            Some(found) => format!("`{}`", found.chars().take(40).collect::<String>()),
            None => "the end".to_owned(),
        };
        self.error_at(at, &format!("expected {wanted}, found {found}"))
    }

    fn error_at(&self, at: usize, what: &str) -> Error {
        let column = self.text[..at].chars().count() + 1;
        Error::argument("filter", format!("column {column}: {what}"))
    }
}

/// Why `2019*` is refused.
const STAR: &str = "* stands alone; in quotes it is the character itself";

fn is_number(value: &FilterValue) -> bool {
    matches!(value, FilterValue::Number(_))
}
