//! A [`Filter`] answered: leaves by tantivy, what joins them by set algebra on the ids.
//!
//! Tantivy's own boolean queries are not used: in release 0.27 a phrase inside a conjunction can be asked to go on
//! after it has run out, which trips an assertion (the model in `tests/it/filters/` found it). Bitmaps cost a little
//! more for wide filters, and are right by inspection.

use std::ops::Bound;
use std::path::Path;

use roaring::RoaringTreemap;
use tantivy::query::{AllQuery, InvertedIndexRangeQuery, PhraseQuery, Query, TermQuery};
use tantivy::schema::IndexRecordOption;
use tantivy::{Searcher, Term};

use super::values::{term, terms};
use super::{Fields, collect, from_tantivy, words};
use crate::catalog::filter::check_field;
use crate::catalog::{Filter, FilterValue};
use crate::{Error, Result};

/// The deepest filter that is answered. Text is limited to less by the parser; this is for filters built otherwise.
const DEPTH_MAX: usize = 128;

/// One committed state of the index.
pub(super) struct Answers<'a> {
    pub(super) folder: &'a Path,
    pub(super) fields: &'a Fields,
    pub(super) searcher: Searcher,
}

impl Answers<'_> {
    /// # Errors
    /// [`Error::Argument`] for a filter that has no meaning: see the variants of [`Filter`].
    pub(super) fn ids(&self, filter: &Filter, depth: usize) -> Result<RoaringTreemap> {
        if depth > DEPTH_MAX {
            return Err(refused("nested too deeply"));
        }
        match filter {
            Filter::All(list) => self.all(list, depth),
            // A negation alone is everything without what it negates.
            Filter::Not(_) => self.all(std::slice::from_ref(filter), depth),
            Filter::Any(list) => {
                list.iter().try_fold(RoaringTreemap::new(), |any, filter| Ok(any | self.ids(filter, depth + 1)?))
            }
            Filter::Equals { field, value } => {
                check(field, &[value])?;
                let term = Term::from_field_bytes(self.fields.values, &term(field, value));
                self.search(&TermQuery::new(term, IndexRecordOption::Basic))
            }
            Filter::Range { field, from, to } => self.range(field, from, to),
            Filter::Text(text) => self.text(text),
        }
    }

    fn all(&self, list: &[Filter], depth: usize) -> Result<RoaringTreemap> {
        let mut all: Option<RoaringTreemap> = None;
        for filter in list.iter().filter(|filter| !matches!(filter, Filter::Not(_))) {
            let ids = self.ids(filter, depth + 1)?;
            all = Some(match all {
                Some(all) => all & ids,
                None => ids,
            });
        }
        let mut all = all.map_or_else(|| self.search(&AllQuery), Ok)?;
        for filter in list {
            if let Filter::Not(inner) = filter {
                all -= self.ids(inner, depth + 1)?;
            }
        }
        Ok(all)
    }

    fn search(&self, query: &dyn Query) -> Result<RoaringTreemap> {
        let ids = self.searcher.search(query, &collect::Ids(super::ID));
        ids.map_err(|error| from_tantivy(self.folder, error))
    }

    fn range(&self, field: &str, from: &Bound<FilterValue>, to: &Bound<FilterValue>) -> Result<RoaringTreemap> {
        let ends: Vec<&FilterValue> = [from, to].into_iter().filter_map(value).collect();
        check(field, &ends)?;
        let kinds = |end: &&FilterValue| std::mem::discriminant(*end);
        if ends.first().map(kinds) != ends.last().map(kinds)
            || ends.iter().any(|end| matches!(end, FilterValue::Bool(_)))
        {
            return Err(refused(&format!("{field}: the ends of a range are both text or both numbers")));
        }
        let (from, to) = terms(field, from, to);
        if value(&from) > value(&to) {
            return Ok(RoaringTreemap::new());
        }
        let term = |bytes: Vec<u8>| Term::from_field_bytes(self.fields.values, &bytes);
        self.search(&InvertedIndexRangeQuery::new(from.map(term), to.map(term)))
    }

    fn text(&self, text: &str) -> Result<RoaringTreemap> {
        let mut terms = Vec::new();
        words().token_stream(text).process(&mut |token| {
            terms.push(Term::from_field_text(self.fields.text, &token.text));
        });
        match terms.len() {
            0 => Err(refused(&format!("{text:?} holds no letter or digit to search for"))),
            1 => self.search(&TermQuery::new(terms.remove(0), IndexRecordOption::Basic)),
            _ => self.search(&PhraseQuery::new(terms)),
        }
    }
}

fn value<T>(bound: &Bound<T>) -> Option<&T> {
    match bound {
        Bound::Included(value) | Bound::Excluded(value) => Some(value),
        Bound::Unbounded => None,
    }
}

fn check(field: &str, values: &[&FilterValue]) -> Result<()> {
    check_field(field).map_err(refused)?;
    if values.iter().any(|value| matches!(value, FilterValue::Number(number) if number.is_nan())) {
        return Err(refused(&format!("{field}: NaN compares with nothing")));
    }
    Ok(())
}

fn refused(what: &str) -> Error {
    Error::argument("filter", what)
}
