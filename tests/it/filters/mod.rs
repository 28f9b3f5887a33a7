//! Filters from outside: the language, what it lets through, and a folder that is tampered with.

mod model;

use std::collections::BTreeMap;
use std::fs;
use std::ops::Bound;
use std::path::Path;

use expect_test::{Expect, expect};
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
        expect![
            "filter: column 34: expected at most 32 levels of parentheses and NOT, found `((((((((((((((((((((((((((((((((((((((((`"
        ],
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
    for id in 1..=20 {
        index.upsert(&[known.document(id)]).unwrap();
        index.commit(id).unwrap();
    }
    assert_eq!(ids(&index, "person:ana").len(), 20);
    let files = fs::read_dir(folder.path()).unwrap().count();
    assert!(files < 80, "{files} files after 20 commits");
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
