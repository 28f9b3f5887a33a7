//! `vultus bench`: its figures, its curves, the files that it reads and those that it refuses.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{folder, stderr, stdout, vultus, write};

/// Runs `vultus bench`, expects success, and gives back what it printed.
#[track_caller]
fn bench(folder: &TempDir, arguments: &[&str]) -> String {
    let output = attempt(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    stdout(&output)
}

fn attempt(folder: &TempDir, arguments: &[&str]) -> Output {
    let output = vultus(folder, &[&["bench"], arguments].concat()).output().unwrap();
    assert!(!stderr(&output).contains("panicked"), "{arguments:?}: {}", stderr(&output));
    output
}

#[track_caller]
fn points(report: &Value) -> Vec<(u64, f64)> {
    let point = |point: &Value| (point["ef"].as_u64().unwrap(), point["recall"].as_f64().unwrap());
    report["points"].as_array().unwrap().iter().map(point).collect()
}

/// The tiny data set of `data/make.py`: 60 vectors of 8 dimensions and 5 queries.
fn tiny(folder: &TempDir) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data/tiny.hdf5");
    fs::copy(path, folder.path().join("tiny.hdf5")).unwrap();
    "tiny.hdf5".into()
}

/// Rows of an array that `bench vectors` wrote, whose header has 128 bytes.
fn npy_rows(folder: &TempDir, name: &str, dimensions: usize) -> Vec<Vec<f32>> {
    let bytes = fs::read(folder.path().join(name)).unwrap();
    let numbers = bytes[128..].as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    numbers.collect::<Vec<_>>().chunks_exact(dimensions).map(<[f32]>::to_vec).collect()
}

fn fvecs(rows: &[Vec<f32>]) -> Vec<u8> {
    let row = |row: &Vec<f32>| {
        let numbers: Vec<u8> = row.iter().flat_map(|x| x.to_le_bytes()).collect();
        [&(row.len() as u32).to_le_bytes()[..], &numbers].concat()
    };
    rows.iter().flat_map(row).collect()
}

#[test]
fn recall_grows_with_the_beam_and_comes_near_one() {
    // Just enough vectors for the index to make a graph.
    let folder = folder();
    let text = bench(
        &folder,
        &["ann", "--generate", "faces", "--count", "20500", "--queries", "100", "--rounds", "1", "--ef", "160,10,40,3"]
            .into_iter()
            .chain([
                "--json",
                "--out",
                "faces.json",
                "--plot",
                "faces.svg",
                "--folder",
                "index",
                "--allow",
                "0.5,0.001",
            ])
            .collect::<Vec<_>>(),
    );
    let report: Value = serde_json::from_str(&text).unwrap();
    let points = points(&report);
    assert_eq!(points.iter().map(|point| point.0).collect::<Vec<_>>(), [10, 40, 160], "sorted, and none below k");
    assert!(points.is_sorted_by(|a, b| a.1 < b.1), "{points:?}");
    assert!(points[0].1 < 0.9 && points[2].1 > 0.95, "{points:?}");
    for point in report["points"].as_array().unwrap() {
        let latencies = ["p50", "p95", "p99", "max"].map(|name| point["latency_us"][name].as_f64().unwrap());
        assert!(latencies[0] > 0.0 && latencies.is_sorted() && point["queries_per_second"].as_f64().unwrap() > 0.0);
    }
    assert_eq!((&report["vectors"], &report["dimensions"], &report["k"]), (&json!(20500), &json!(128), &json!(10)));
    let filters = report["filters"].as_array().unwrap();
    assert_eq!((&filters[0]["allowed"], &filters[1]["allowed"]), (&json!(10250), &json!(20)));
    assert_eq!(filters[1]["recall"], json!(1.0), "so few are all compared");
    assert!(filters[0]["recall"].as_f64().unwrap() > 0.95 && filters[0]["microseconds"].as_f64().unwrap() > 0.0);
    let bytes: u64 =
        fs::read_dir(folder.path().join("index")).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(report["index_bytes"], bytes);
    assert!(report["bytes_per_vector"].as_f64().unwrap() > 512.0 && report["build_seconds"].as_f64().unwrap() > 0.0);
    assert!(report["first_answer_seconds"].as_f64().unwrap() > 0.0);
    if cfg!(target_os = "linux") {
        assert!(report["resident_bytes"].as_u64() > report["resident_before_bytes"].as_u64());
        assert!(report["build_cpu_seconds"].as_f64().unwrap() > 0.0);
    }
    let written: Value = serde_json::from_slice(&fs::read(folder.path().join("faces.json")).unwrap()).unwrap();
    assert_eq!(written, report);
    let plot = fs::read_to_string(folder.path().join("faces.svg")).unwrap();
    assert!(plot.starts_with("<svg") && plot.contains("recall") && plot.contains("p99") && !plot.contains("NaN"));

    let output = attempt(&folder, &["ann", "--generate", "faces", "--count", "10", "--allow", "0.5,1.5"]);
    assert!(stderr(&output).contains("--allow: expected shares above 0, up to 1"), "{}", stderr(&output));
    let output = attempt(&folder, &["ann", "--generate", "faces", "--count", "10", "--folder", "index"]);
    assert!(stderr(&output).contains("index: expected a new folder, or an empty one"), "{}", stderr(&output));
}

#[test]
fn the_same_vectors_give_the_same_answers_from_every_kind_of_file() {
    let folder = folder();
    let tiny = tiny(&folder);
    bench(&folder, &["vectors", "--data", &tiny, "--out", "out"]);
    let (vectors, queries) = (npy_rows(&folder, "out/vectors.npy", 8), npy_rows(&folder, "out/queries.npy", 8));
    assert_eq!((vectors.len(), queries.len()), (60, 5));
    assert!(vectors.iter().chain(&queries).all(|row| (row.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5));
    // Nothing depends on lengths.
    let longer: Vec<Vec<f32>> = vectors.iter().map(|row| row.iter().map(|x| 3.0 * x).collect()).collect();
    write(&folder, "vectors.fvecs", fvecs(&longer));
    write(&folder, "queries.fvecs", fvecs(&queries));
    for (data, queries_from) in [("vectors.fvecs", "queries.fvecs"), ("out/vectors.npy", &tiny), (&tiny, "5")] {
        bench(&folder, &["vectors", "--data", data, "--queries", queries_from, "--out", "again"]);
        for (name, expected) in [("again/vectors.npy", &vectors), ("again/queries.npy", &queries)] {
            let found = npy_rows(&folder, name, 8);
            let differences = found.iter().flatten().zip(expected.iter().flatten()).map(|(a, b)| (a - b).abs());
            assert!(found.len() == expected.len() && differences.fold(0.0, f32::max) < 1e-6, "{data}: {name}");
        }
        let report = bench(&folder, &["ann", "--data", data, "--queries", queries_from, "--ef", "10", "--json"]);
        assert_eq!(points(&serde_json::from_str(&report).unwrap()), [(10, 1.0)], "{data}");
    }
    let report = bench(&folder, &["ann", "--data", &tiny, "-k", "4", "--ef", "4", "--json"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["given_neighbors_found"], points(&report)), (&json!(1.0), vec![(4, 1.0)]));
    // Neighbours among all vectors say nothing about the first of them.
    let report = bench(&folder, &["ann", "--data", &tiny, "-k", "4", "--ef", "4", "--json", "--count", "50"]);
    assert!(serde_json::from_str::<Value>(&report).unwrap().get("given_neighbors_found").is_none());
    assert!(bench(&folder, &["ann", "--data", &tiny, "-k", "4"]).contains("recall@4"));
}

#[test]
fn queries_are_held_out_where_there_are_no_others() {
    let folder = folder();
    let rows: Vec<Vec<f32>> = (0..40).map(|at| vec![1.0, at as f32]).collect();
    write(&folder, "rows.fvecs", fvecs(&rows));
    bench(&folder, &["vectors", "--data", "rows.fvecs", "--queries", "10", "--out", "out"]);
    let (vectors, queries) = (npy_rows(&folder, "out/vectors.npy", 2), npy_rows(&folder, "out/queries.npy", 2));
    assert_eq!((vectors.len(), queries.len()), (30, 10));
    assert!(queries.iter().all(|query| !vectors.contains(query)));
    // The first twenty, beside the queries.
    bench(&folder, &["vectors", "--data", "rows.fvecs", "--queries", "10", "--count", "20", "--out", "out"]);
    assert_eq!(npy_rows(&folder, "out/vectors.npy", 2).len(), 20);
}

#[test]
fn a_file_that_can_not_be_measured_is_named_with_what_was_expected() {
    let folder = folder();
    let good = fvecs(&vec![vec![1.0, 2.0]; 4]);
    let row = |row: Vec<f32>| [good.clone(), fvecs(&[row])].concat();
    let npy = |descr: &str, order: &str| {
        let text = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': (2, 2), }}\n");
        [b"\x93NUMPY\x01\x00", &(text.len() as u16).to_le_bytes()[..], text.as_bytes(), &[0; 16]].concat()
    };
    write(&folder, "good.fvecs", &good);
    write(&folder, "wide.fvecs", fvecs(&[vec![1.0, 2.0, 3.0]]));
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("cut.fvecs", good[..good.len() - 3].to_vec(), "cut.fvecs: ends inside row 3: 5 bytes of 8"),
        ("differ.fvecs", row(vec![1.0, 2.0, 3.0]), "differ.fvecs: row 4 has 3 dimensions, expected 2 as in row 0"),
        ("zero.fvecs", row(vec![0.0, 0.0]), "zero.fvecs: row 4 is all zeros"),
        ("nan.fvecs", row(vec![f32::NAN, 0.0]), "nan.fvecs: row 4 holds a number that is not finite"),
        ("empty.fvecs", Vec::new(), "empty.fvecs: holds no vectors"),
        ("few.fvecs", good.clone(), "few.fvecs: 4 vectors, too few to hold out 4 of them"),
        ("columns.npy", npy("<f4", "True"), "columns.npy: stored column by column (Fortran order)"),
        ("ints.npy", npy("<i4", "False"), "ints.npy: an array of <i4, expected <f4 or <f8"),
        ("cut.npy", npy("<f8", "False"), "cut.npy: ends inside row 1 of 2: 0 bytes of 16"),
        ("text.hdf5", b"train, test".to_vec(), "text.hdf5: "),
        (
            "vectors.csv",
            b"1,2".to_vec(),
            "vectors.csv: expected a name that ends in .fvecs, .bvecs, .npy, .hdf5 or .h5",
        ),
    ];
    for (name, bytes, words) in cases {
        write(&folder, name, bytes);
        let output = attempt(&folder, &["ann", "--data", name, "--queries", "4"]);
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(stderr(&output).contains(words), "{name}: {}", stderr(&output));
    }
    let arguments: [(&[&str], &str); 6] = [
        (&["ann", "--data", "gone.npy"], "gone.npy: No such file"),
        (&["ann", "--data", "good.fvecs", "--queries", "wide.fvecs"], "--queries: 3 dimensions, the vectors have 2"),
        (&["ann", "--data", "good.fvecs", "--queries", "0"], "--queries: expected at least one"),
        (&["ann", "--data", "good.fvecs", "--generate", "sift"], "cannot be used with"),
        (&["ann", "--generate", "sift", "--queries", "good.fvecs"], "--queries: with --generate"),
        (&["ann"], "required"),
    ];
    for (arguments, words) in arguments {
        let output = attempt(&folder, arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(words), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn a_harness_that_asks_line_by_line_is_answered_and_told_what_is_wrong() {
    let folder = folder();
    let mut child = vultus(&folder, &["bench", "lines"]).stdin(Stdio::piped()).spawn().unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    let mut ask = |question: Value, numbers: &[f32]| {
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        writeln!(input, "{}", json!({"ask": question, "bytes": bytes.len()})).unwrap();
        input.write_all(&bytes).unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        let mut rows = vec![0; answer["bytes"].as_u64().unwrap() as usize];
        output.read_exact(&mut rows).unwrap();
        (answer, rows.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect::<Vec<_>>())
    };
    let place = json!({"folder": "index", "dimensions": 2});
    let (search, truth) = (json!({"search": {"k": 3, "ef": 10}}), json!({"truth": {"k": 2}}));
    for (question, numbers, words) in [
        (&search, &[1.0, 0.0][..], "no index is open"),
        (&json!({"open": place}), &[1.0, 0.0], "index: no index there"),
        (&json!({"build": place}), &[1.0, 0.0, 1.0], "12 bytes, expected rows of 2 numbers of 4"),
        (&json!({"build": {"folder": "other", "dimensions": 2}}), &[3.0, 4.0], "row 0: vector is not of unit length"),
    ] {
        let (answer, _) = ask(question.clone(), numbers);
        assert!(answer["error"].as_str().is_some_and(|error| error.contains(words)), "{question}: {answer}");
    }
    let (built, _) = ask(json!({"build": place}), &[1.0, 0.0, 0.0, 1.0]);
    assert!(built["ok"]["index_bytes"].as_u64().unwrap() > 0, "{built}");
    // Opened again, it is not in its own way.
    for _ in 0..2 {
        let (opened, _) = ask(json!({"open": place}), &[1.0, 0.0]);
        assert!(opened["ok"]["first_answer_seconds"].as_f64().is_some(), "{opened}");
    }
    // Two queries; there is no third neighbor.
    let (_, rows) = ask(search, &[0.8, 0.6, 0.6, 0.8]);
    assert_eq!(rows, [0, 1, u32::MAX, 1, 0, u32::MAX]);
    let (_, rows) = ask(truth, &[0.6, 0.8]);
    assert_eq!(rows, [1, 0]);
    let (answer, _) = ask(json!({"search": {"k": 0, "ef": 10}}), &[1.0, 0.0]);
    assert_eq!(answer["error"], "k is 0, expected 1 to 10000");
    writeln!(input, "what?").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(stderr(&output).contains("the question can't be read"), "{}", stderr(&output));
}

#[test]
fn serving_is_measured_alone_and_while_vectors_are_added() {
    let folder = folder();
    let sizes = [
        "serving",
        "--generate",
        "faces",
        "--count",
        "2000",
        "--queries",
        "20",
        "--seconds",
        "1",
        "--rounds",
        "3",
        "--json",
    ];
    let rates = ["--load", "0.05", "--inserts", "300", "--batch", "20", "--seal-every", "5"];
    let report: Value = serde_json::from_str(&bench(&folder, &[&sizes[..], &rates[..]].concat())).unwrap();
    let number = |name: &str| report[name].as_f64().unwrap();
    assert_eq!(number("vectors_before"), 1000.0);
    // Three seconds, on a machine that does other things.
    assert!((1300.0..=2000.0).contains(&number("vectors_after")), "{report}");
    assert!(report["merge_failure"].is_null(), "{report}");
    assert_eq!(report["queries_per_second"].as_array().unwrap().len(), 3);
    assert!(number("seals") >= 3.0, "{report}");
    let [alone, writing, sealing] = ["alone", "writing", "sealing"].map(|name| {
        let figure = |figure: &str| report[name][figure].as_f64().unwrap();
        assert!(0.0 < figure("p50_us") && figure("p50_us") <= figure("p99_us"), "{report}");
        assert!(figure("p99_us") <= figure("p99_us_of_nine_in_ten") && figure("p99_ratio") > 0.0, "{report}");
        figure("seconds")
    });
    // Some are sealed in every second; merges are for larger ones.
    assert_eq!([alone, writing, sealing, report["merging"]["seconds"].as_f64().unwrap()], [3.0, 3.0, 3.0, 0.0]);
    let output = attempt(&folder, &["serving", "--generate", "faces", "--count", "9", "--load", "0"]);
    assert!(stderr(&output).contains("--load: expected a share above 0, up to 1"), "{}", stderr(&output));
}
