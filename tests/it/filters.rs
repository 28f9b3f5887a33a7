//! Filters from outside: the language, its answers held to a plain evaluation, and a folder that is tampered with.

use std::collections::BTreeMap;
use std::fs;
use std::ops::{Bound, RangeBounds};
use std::path::Path;

use expect_test::{Expect, expect};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use vultus::Error;
use vultus::catalog::filters::{FilterDocument, FilterIndex, validate_metadata};
use vultus::catalog::{FaceId, Filter, FilterValue, Metadata};

/// One face as the oracle keeps it.
#[derive(Clone, Debug)]
struct Known {
    person: Option<String>,
    path: String,
    metadata: Metadata,
}

impl Known {
    fn document(&self, id: u64) -> FilterDocument<'_> {
        FilterDocument { id: FaceId(id), person: self.person.as_deref(), path: &self.path, metadata: &self.metadata }
    }
}

fn metadata(value: Value) -> Metadata {
    serde_json::from_value(value).unwrap()
}

/// Three photos of a wedding and a holiday.
fn album() -> BTreeMap<u64, Known> {
    let known = |person: Option<&str>, path: &str, said: Value| Known {
        person: person.map(str::to_owned),
        path: path.to_owned(),
        metadata: metadata(said),
    };
    BTreeMap::from([
        (1, known(Some("Ana"), "wedding/first dance.jpg", json!({"album": "2019", "taken": "2019-05-01T10:00:00"}))),
        (2, known(Some("Ben"), "wedding/cake.jpg", json!({"Album": 2019, "taken": "2019-06-12", "flash": true}))),
        (3, known(None, "Strand/ana.jpg", json!({"album": ["summer", "2020"], "size": 7.5, "my key": "x y"}))),
    ])
}

fn filled(folder: &Path, known: &BTreeMap<u64, Known>) -> FilterIndex {
    let mut index = FilterIndex::open(folder).unwrap();
    let documents: Vec<_> = known.iter().map(|(&id, known)| known.document(id)).collect();
    index.upsert(&documents).unwrap();
    index.commit(1).unwrap();
    index
}

fn ids(index: &FilterIndex, filter: &str) -> Vec<u64> {
    index.matching(&filter.parse().unwrap()).unwrap().into_iter().collect()
}

#[test]
fn a_filter_lets_through_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let index = filled(folder.path(), &album());
    for (filter, expected) in [
        (r#"album:"2019" AND NOT person:ana"#, vec![2]),
        ("album:2019", vec![1, 2]),
        ("album:2019.0", vec![1, 2]),
        ("album:2020", vec![3]),
        ("ALBUM:Summer", vec![3]),
        (r#"album:"2019.0""#, vec![]),
        ("NOT person:ana", vec![2, 3]),
        ("-person:*", vec![3]),
        ("person:*", vec![1, 2]),
        ("*", vec![1, 2, 3]),
        ("NOT *", vec![]),
        ("taken:[2019-05-01 TO 2019-06-01}", vec![1]),
        ("taken:>=2019", vec![1, 2]),
        ("taken:2019", vec![1, 2]),
        ("taken:>2019-05-01T10:00:00", vec![2]),
        ("taken:>=2020", vec![]),
        ("size:{7 TO 7.5]", vec![3]),
        ("size:{7 TO 7.5}", vec![]),
        ("size:>8", vec![]),
        ("flash:true", vec![2]),
        (r#"flash:"true""#, vec![2]),
        ("flash:false", vec![]),
        ("ana", vec![1, 3]),
        ("\"First Dance\"", vec![1]),
        ("\"dance first\"", vec![]),
        ("\"ana wedding\"", vec![]),
        ("wedding -cake OR strand", vec![1, 3]),
        ("wedding -(cake OR strand)", vec![1]),
        (r#""my key":"x y""#, vec![3]),
        (r#"path:"WEDDING/cake.jpg""#, vec![2]),
        ("id:[2 TO 3]", vec![2, 3]),
        ("nothing:here", vec![]),
        ("taken:[b TO a]", vec![]),
    ] {
        assert_eq!(ids(&index, filter), expected, "{filter}");
    }
}

#[track_caller]
fn check(text: &str, expected: Expect) {
    expected.assert_eq(&text.parse::<Filter>().map_or_else(|error| error.to_string(), |filter| filter.to_string()));
}

#[test]
fn a_filter_is_read_by_the_usual_precedence() {
    check("a AND b OR NOT c d", expect!["a AND b OR NOT c AND d"]);
    check("(a OR b) -(c OR d)", expect!["(a OR b) AND NOT (c OR d)"]);
    check("((a) AND (b AND c))", expect!["a AND (b AND c)"]);
    check("x:[ 1 TO 2 } y : z", expect!["filter: column 16: a field name may not be empty"]);
    check("x:[1 TO 2-3]", expect![[r#"x:["1" TO 2-3]"#]]);
    check("x:>= 5 x:<5 x:{* TO b]", expect!["x:>=5 AND x:<5 AND x:<=b"]);
    check(r#"x:"a \"b\" \\" "NOT" "AND:""#, expect![[r#"x:"a \"b\" \\" AND "NOT" AND "AND:""#]]);
    check("ANDY ORB NOTE TOM", expect!["ANDY AND ORB AND NOTE AND TOM"]);
    check("url:https://a.b/c?d=1", expect![[r#"url:"https://a.b/c?d=1""#]]);
    check("x:true x:\"true\" x:1e3 x:007", expect![[r#"x:true AND x:"true" AND x:1000 AND x:7"#]]);
    check("* -*", expect!["* AND NOT *"]);
}

#[test]
fn what_cannot_be_read_names_the_column_and_what_was_expected() {
    check("", expect!["filter: column 1: expected a word, a \"phrase\", a field:value or (, found the end"]);
    check("a AND", expect!["filter: column 6: expected a word, a \"phrase\", a field:value or (, found the end"]);
    check("(a OR b", expect!["filter: column 8: expected AND, OR or ), found the end"]);
    check("a) b", expect!["filter: column 2: expected AND, OR or the end, found `)`"]);
    check("é:[1 2]", expect!["filter: column 6: expected TO, found `2]`"]);
    check("é:[1 TO 2", expect!["filter: column 10: expected ] or }, found the end"]);
    check("x:", expect!["filter: column 3: expected a value, found the end"]);
    check("x:AND y", expect!["filter: column 3: expected a value (the word itself stands in quotes), found `AND`"]);
    check("x:(a OR b)", expect!["filter: column 3: expected a value, found `(a`"]);
    check("x:2019*", expect!["filter: column 3: * stands alone; in quotes it is the character itself"]);
    check("x:>*", expect!["filter: column 4: * is not a value to compare with"]);
    check("a \"b", expect!["filter: column 3: this quote is never closed"]);
    check(r#""\n""#, expect![[r#"filter: column 3: expected " or \ after \, found `n"`"#]]);
    check(":x", expect!["filter: column 1: a field name may not be empty"]);
    check("a ---b", expect!["a AND NOT NOT NOT b"]);
    check("a - b", expect!["filter: column 4: expected what to leave out right after -, found `b`"]);
    check("\"-\"", expect![[r#"filter: column 1: expected a word, a "phrase", a field:value or (, found `"-"`"#]]);
    check(
        &"(".repeat(5000),
        expect!["filter: column 34: expected at most 32 levels of parentheses and NOT, found `((((((((((((((((((((((((((((((((((((((((`"],
    );
    check(&"a ".repeat(10_000), expect!["filter: 20000 bytes long, at most 16384 are read"]);
}

#[test]
fn a_filter_without_meaning_is_refused_and_not_answered() {
    let folder = tempfile::tempdir().unwrap();
    let index = filled(folder.path(), &album());
    let text = |text: &str| FilterValue::Text(text.into());
    let range = |from, to| Filter::Range { field: "x".into(), from: Bound::Included(from), to: Bound::Included(to) };
    let deep = (0..10_000).fold(Filter::Text("a".into()), |inner, _| Filter::All(vec![inner]));
    for filter in [
        range(text("a"), FilterValue::Number(1.0)),
        range(FilterValue::Bool(false), FilterValue::Bool(true)),
        Filter::Equals { field: "x".into(), value: FilterValue::Number(f64::NAN) },
        Filter::Equals { field: "x\0y".into(), value: text("a") },
        Filter::Text("---".into()),
        deep,
    ] {
        assert!(matches!(index.matching(&filter), Err(Error::Argument { name: "filter", .. })));
    }
}

#[test]
fn metadata_that_filters_could_not_answer_for_is_refused_by_name() {
    let check = |value: Value, expected: Expect| {
        let said = validate_metadata(&metadata(value)).map_or_else(|error| error.to_string(), |()| "accepted".into());
        expected.assert_eq(&said);
    };
    check(json!({"a.b": "x", "My Key": [1, "x", true], "é": 1.5, "empty": []}), expect!["accepted"]);
    check(
        json!({"a": null}),
        expect![[
            r#"metadata: "a": expected a string, a number, a boolean or a list of these, found null (leave the key out instead)"#
        ]],
    );
    check(
        json!({"a": [[1]]}),
        expect![[
            r#"metadata: "a": expected a string, a number, a boolean or a list of these, found a list inside a list"#
        ]],
    );
    check(
        json!({"a": {"b": 1}}),
        expect![[r#"metadata: "a": expected a string, a number, a boolean or a list of these, found an object"#]],
    );
    check(
        json!({"Person": "x"}),
        expect![[r#"metadata: "Person": this name is taken, every face has such a field; choose another"#]],
    );
    check(json!({"a\nb": 1}), expect![[r#"metadata: "a\nb": a field name may not hold control characters"#]]);
    check(json!({"": 1}), expect![[r#"metadata: "": a field name may not be empty"#]]);
    check(json!({"a": "x".repeat(8193)}), expect![[r#"metadata: "a": 8193 bytes of text, at most 8192 are kept"#]]);
    check(json!({"a": vec![1; 257]}), expect![[r#"metadata: "a": a list of 257 values, at most 256 are kept"#]]);
    let many: BTreeMap<String, u32> = (0..65).map(|i| (format!("k{i}"), i)).collect();
    check(json!(many), expect!["metadata: 65 keys, at most 64 are kept"]);
}

#[test]
fn one_refused_document_adds_none_of_its_batch_and_the_next_batch_works() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = FilterIndex::open(folder.path()).unwrap();
    let mut known = album();
    known.get_mut(&3).unwrap().metadata = metadata(json!({"album": null}));
    let documents: Vec<_> = known.iter().map(|(&id, known)| known.document(id)).collect();
    assert!(matches!(index.upsert(&documents), Err(Error::Argument { name: "metadata", .. })));
    index.upsert(&documents[..1]).unwrap();
    index.commit(1).unwrap();
    assert_eq!(ids(&index, "*"), [1]);
}

#[test]
fn what_is_accepted_at_the_limits_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let text = "İ".repeat(4096);
    let list: Vec<String> = (0..256).map(|i| format!("value {i}")).collect();
    let mut said: Metadata = (0..63).map(|i| (format!("key {i}"), json!(list))).collect();
    said.insert("k".repeat(128), json!(text));
    let known = BTreeMap::from([(u64::MAX, Known { person: Some(text.clone()), path: text.clone(), metadata: said })]);
    let index = filled(folder.path(), &known);
    for field in ["person".to_owned(), "path".to_owned(), "k".repeat(128)] {
        let filter = Filter::Equals { field, value: FilterValue::Text(text.clone()) };
        assert_eq!(index.matching(&filter).unwrap().min(), Some(u64::MAX), "{filter}");
    }
    assert_eq!(ids(&index, "\"key 62\":\"value 255\" \"value 17\""), [u64::MAX]);
}

#[test]
fn what_was_not_committed_is_not_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let known = album();
    let mut index = filled(folder.path(), &known);
    index.remove(&[FaceId(1)]).unwrap();
    index.upsert(&[known[&2].document(9)]).unwrap();
    assert_eq!(ids(&index, "*"), [1, 2, 3], "nothing shows before the commit");
    drop(index);
    let mut index = FilterIndex::open(folder.path()).unwrap();
    assert_eq!((index.sequence(), ids(&index, "*")), (1, vec![1, 2, 3]));
    index.remove(&[FaceId(1), FaceId(77)]).unwrap();
    index.commit(5).unwrap();
    drop(index);
    let index = FilterIndex::open(folder.path()).unwrap();
    assert_eq!((index.sequence(), ids(&index, "*")), (5, vec![2, 3]));
}

#[test]
fn many_small_commits_leave_few_files() {
    let folder = tempfile::tempdir().unwrap();
    let known = &album()[&1];
    let mut index = FilterIndex::open(folder.path()).unwrap();
    for id in 1..=40 {
        index.upsert(&[known.document(id)]).unwrap();
        index.commit(id).unwrap();
    }
    assert_eq!(ids(&index, "person:ana").len(), 40);
    let files = fs::read_dir(folder.path()).unwrap().count();
    assert!(files < 100, "{files} files after 40 commits");
}

#[test]
fn a_folder_of_a_newer_release_is_refused_with_both_versions() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path(), &album());
    let meta = folder.path().join("meta.json");
    let text = fs::read_to_string(&meta).unwrap();
    let json = text[..text.len() - 9].replace("\"1 1\"", "\"2 1\"");
    fs::write(&meta, format!("{json}\n{:08x}", crc32(json.as_bytes()))).unwrap();
    assert!(matches!(FilterIndex::open(folder.path()), Err(Error::Version { found: 2, known: 1, .. })));
}

/// CRC-32 (IEEE), written out: the test must not lean on the code it checks.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}

#[test]
fn a_damaged_folder_is_refused_or_answers_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let known = album();
    let mut index = filled(folder.path(), &known);
    for id in 10..200 {
        index.upsert(&[known[&(id % 3 + 1)].document(id)]).unwrap();
    }
    index.commit(2).unwrap();
    index.remove(&[FaceId(12), FaceId(50)]).unwrap();
    index.commit(3).unwrap();
    drop(index);
    let questions = ["*", "album:2019", "NOT person:ana", "taken:>=2019-06", "\"first dance\"", "id:[10 TO 60]"];
    let answers = |index: &FilterIndex| questions.map(|question| ids(index, question));
    let expected = answers(&FilterIndex::open(folder.path()).unwrap());

    let mut refused = 0;
    let mut damage = |path: &Path, bytes: Option<&[u8]>, what: &str| {
        match bytes {
            Some(bytes) => fs::write(path, bytes).unwrap(),
            None => fs::remove_file(path).unwrap(),
        }
        match FilterIndex::open(folder.path()) {
            // A folder without its `meta.json` is a fresh one: everything is added to it again.
            Ok(index) if index.sequence() == 0 => assert!(path.ends_with("meta.json") && bytes.is_none()),
            Ok(index) => assert_eq!((index.sequence(), answers(&index)), (3, expected.clone()), "{what} {path:?}"),
            Err(Error::Corrupt { .. } | Error::Version { .. }) => refused += 1,
            Err(other) => panic!("{what} {path:?}: {other}"),
        }
    };
    let files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    for path in &files {
        let good = fs::read(path).unwrap();
        for at in (0..good.len()).step_by(good.len() / 60 + 1).chain(good.len().saturating_sub(60)..good.len()) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            damage(path, Some(&bad), &format!("byte {at} flipped in"));
        }
        damage(path, Some(&good[..good.len() / 2]), "half of");
        damage(path, Some(&[]), "nothing of");
        let was_open = fs::read(folder.path().join("meta.json")).unwrap();
        damage(path, None, "without");
        fs::write(folder.path().join("meta.json"), was_open).unwrap();
        fs::write(path, good).unwrap();
    }
    assert!(refused > 500, "only {refused} were noticed");
}

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
    #![proptest_config(ProptestConfig { cases: 20, max_shrink_iters: 200, ..ProptestConfig::default() })]

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
