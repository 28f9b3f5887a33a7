//! Any filter on any faces, held to a plain evaluation of what the language says.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;
use vultus::catalog::filters::FilterIndex;
use vultus::catalog::{FaceId, Filter, FilterValue};

use super::Known;

const FIELDS: [&str; 8] = ["album", "Album", "a.b", "two words", "taken", "person", "path", "id"];
const TEXTS: [&str; 16] = [
    "Ana",
    "ana",
    "ana lima",
    "Ana-Lima",
    "2019",
    "2019.0",
    "007",
    "7",
    "true",
    "False",
    "2019-05-01",
    "2019-06",
    "",
    "ÉTÉ à la mer",
    "\"\\ * (",
    "-5e3",
];

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => select(&TEXTS[..]).prop_map(Value::from),
        1 => "\\PC{0,6}".prop_map(Value::from),
        1 => select(vec![0, 7, 2019, -5000, i64::MAX]).prop_map(Value::from),
        1 => select(vec![0.0, -0.0, 7.5, 1e300, -5000.0]).prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
    ]
}

fn known() -> impl Strategy<Value = Known> {
    let value = prop_oneof![3 => scalar(), 1 => prop::collection::vec(scalar(), 0..3).prop_map(Value::from)];
    let said = prop::collection::btree_map(select(&FIELDS[..5]), value, 0..4);
    (prop::option::of(select(&TEXTS[..])), select(&TEXTS[..]), said).prop_map(|(person, path, said)| Known {
        person: person.map(str::to_owned),
        path: path.to_owned(),
        metadata: said.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
    })
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![4 => select(&TEXTS[..]).prop_map(str::to_owned), 1 => "\\PC{0,6}"]
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![4 => select(vec![0.0, -0.0, 7.0, 7.5, 2019.0, -5000.0, 1e300]), 1 => -1e9..1e9]
}

fn bounds<T: std::fmt::Debug + Clone + 'static>(
    one: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = (Bound<T>, Bound<T>)> {
    let bound = one
        .prop_flat_map(|value| select(vec![Bound::Included(value.clone()), Bound::Excluded(value), Bound::Unbounded]));
    prop::array::uniform2(bound.boxed()).prop_map(|[from, to]| (from, to))
}

/// Filters as the parser makes them: lists have two members or none.
fn filter() -> impl Strategy<Value = Filter> {
    let field = || prop_oneof![8 => select(&FIELDS[..]).prop_map(str::to_owned), 1 => "[^\\pC]{1,4}"];
    let value = prop_oneof![
        3 => text().prop_map(FilterValue::Text),
        2 => number().prop_map(FilterValue::Number),
        1 => any::<bool>().prop_map(FilterValue::Bool),
    ];
    let ends = prop_oneof![
        bounds(text().prop_map(FilterValue::Text).boxed()),
        bounds(number().prop_map(FilterValue::Number).boxed())
    ];
    let words = text().prop_filter("words", |text| text.chars().any(char::is_alphanumeric));
    let leaf = prop_oneof![
        4 => (field(), value).prop_map(|(field, value)| Filter::Equals { field, value }),
        4 => (field(), ends).prop_map(|(field, (from, to))| Filter::Range { field, from, to }),
        2 => words.prop_map(Filter::Text),
        1 => Just(Filter::All(Vec::new())),
    ];
    leaf.prop_recursive(4, 12, 3, |inner| {
        let list = prop::collection::vec(inner.clone(), 2..4);
        prop_oneof![
            list.clone().prop_map(Filter::All),
            list.prop_map(Filter::Any),
            inner.prop_map(|filter| Filter::Not(Box::new(filter))),
        ]
    })
}

/// The oracle: what the language says, evaluated on one face.
fn lets_through(filter: &Filter, id: u64, known: &Known) -> bool {
    let values = |field: &str| -> Vec<String> {
        let own = [("person", known.person.clone()), ("path", Some(known.path.clone())), ("id", Some(id.to_string()))];
        let own = own.into_iter().filter(|(name, _)| lower(name) == lower(field)).filter_map(|(_, value)| value);
        let said =
            known.metadata.iter().filter(|(key, _)| lower(key) == lower(field)).flat_map(|(_, value)| spelled(value));
        own.chain(said).collect()
    };
    match filter {
        Filter::All(list) => list.iter().all(|filter| lets_through(filter, id, known)),
        Filter::Any(list) => list.iter().any(|filter| lets_through(filter, id, known)),
        Filter::Not(filter) => !lets_through(filter, id, known),
        Filter::Equals { field, value } => values(field).iter().any(|found| match value {
            FilterValue::Text(text) => lower(text) == lower(found),
            FilterValue::Number(number) => numeric(found) == Some(*number),
            FilterValue::Bool(flag) => lower(found) == flag.to_string(),
        }),
        Filter::Range { field, from: Bound::Unbounded, to: Bound::Unbounded } => !values(field).is_empty(),
        Filter::Range { field, from, to } => values(field).iter().any(|found| {
            let number = |value: &FilterValue| if let FilterValue::Number(n) = value { Some(*n) } else { None };
            let text = |value: &FilterValue| if let FilterValue::Text(t) = value { lower(t) } else { String::new() };
            match (from, to) {
                (Bound::Included(end) | Bound::Excluded(end), _) | (_, Bound::Included(end) | Bound::Excluded(end))
                    if number(end).is_some() =>
                {
                    let ends =
                        (from.as_ref().map(|end| number(end).unwrap()), to.as_ref().map(|end| number(end).unwrap()));
                    numeric(found).is_some_and(|found| ends.contains(&found))
                }
                _ => (from.as_ref().map(text), to.as_ref().map(text)).contains(&lower(found)),
            }
        }),
        Filter::Text(wanted) => {
            let said = known.metadata.values().flat_map(spelled);
            let wanted = split(wanted);
            let mut texts = known.person.iter().chain([&known.path]).cloned().chain(said);
            texts.any(|text| split(&text).windows(wanted.len()).any(|words| words == wanted))
        }
    }
}

fn lower(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

fn split(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(lower).collect()
}

fn spelled(value: &Value) -> Vec<String> {
    match value {
        Value::Array(list) => list.iter().flat_map(spelled).collect(),
        Value::String(text) => vec![text.clone()],
        Value::Number(number) => {
            vec![number.as_i64().map_or_else(|| number.as_f64().unwrap().to_string(), |n| n.to_string())]
        }
        other => vec![other.to_string()],
    }
}

fn numeric(text: &str) -> Option<f64> {
    let date = ["2019-05-01", "2019-06"].contains(&text).then_some(2019.0);
    date.or_else(|| if text.contains(['i', 'I', 'n', 'N']) { None } else { text.parse().ok() })
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_a_panic(
        soup in prop_oneof![
            "\\PC{0,40}",
            prop::collection::vec(select(vec!["(", ")", "[", "]", "{", "}", "\"", "\\", ":", "*", "-", ">", "<=", " ", "AND ",
                "OR ", "NOT ", " TO ", "a", "é", "1.5", "x:", "true"]), 0..40).prop_map(|tokens| tokens.concat()),
        ]
    ) {
        if let Ok(filter) = soup.parse::<Filter>() {
            prop_assert_eq!(&filter.to_string().parse::<Filter>().unwrap(), &filter, "{}", filter);
        }
    }

    #[test]
    fn a_filter_written_as_text_reads_back_as_itself(filter in filter()) {
        prop_assert_eq!(&filter.to_string().parse::<Filter>().unwrap(), &filter, "{}", filter);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn answers_agree_with_a_plain_evaluation_through_changes_and_reopening(
        batches in prop::collection::vec(
            (prop::collection::btree_map(0_u64..40, known(), 0..25), prop::collection::vec(0_u64..40, 0..6)), 1..4),
        filters in prop::collection::vec(filter(), 60),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut index = FilterIndex::open(folder.path()).unwrap();
        let mut model = BTreeMap::new();
        for (sequence, (added, removed)) in (1..).zip(batches) {
            let documents: Vec<_> = added.iter().map(|(&id, known)| known.document(id)).collect();
            index.upsert(&documents).unwrap();
            index.remove(&removed.iter().copied().map(FaceId).collect::<Vec<_>>()).unwrap();
            index.commit(sequence).unwrap();
            model.extend(added);
            model.retain(|id, _| !removed.contains(id));
            if sequence == 2 {
                drop(index);
                index = FilterIndex::open(folder.path()).unwrap();
            }
            for filter in &filters {
                let expected: Vec<u64> =
                    model.iter().filter(|(id, known)| lets_through(filter, **id, known)).map(|(id, _)| *id).collect();
                let found: Vec<u64> = index.matching(filter).unwrap().into_iter().collect();
                prop_assert_eq!(&found, &expected, "{}", filter);
            }
            prop_assert_eq!(index.len(), model.len() as u64);
        }
    }
}

#[test]
fn a_bound_that_looks_like_an_operator_is_written_in_quotes() {
    // `album:>=` once read as a comparison without a value.
    let from = Bound::Excluded(FilterValue::Text("=".into()));
    let filter = Filter::Range { field: "album".into(), from, to: Bound::Unbounded };
    assert_eq!(filter.to_string(), "album:>\"=\"");
    assert_eq!(filter.to_string().parse::<Filter>().unwrap(), filter);
}
