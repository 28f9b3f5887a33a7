//! The architecture as tables that run: who may use whom, and what a file looks like.
//!
//! Reads the sources as text, so it sees every feature and platform at once. A failure names the file and the rule;
//! when the rule is wrong, change the table and ARCHITECTURE.md together.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The layers of `src/`, lowest first: a module may use only those on lines above its own.
const LAYERS: &[&[&str]] = &[
    &["error"],
    &["photo", "embedding", "calibration"],
    &["face", "clustering"],
    &["catalog", "model"],
    &["detect", "training"],
    &["recognizer"],
    &["gallery", "evaluation"],
    &["ingest"],
];

/// What each package may name in its manifest of our own packages and of those with one home.
const PACKAGES: &[(&str, &[&str])] = &[
    ("index", &[]),
    ("src", &["vultus-index", "candle-core", "candle-nn", "prost", "redb", "tantivy"]),
    ("api", &["vultus", "axum", "tokio"]),
    ("cli", &["vultus", "vultus-api", "vultus-index", "clap", "hdf5-reader", "indicatif", "tokio"]),
];

/// Words of code and the only places that may hold them.
const HOMES: &[(&str, &[&str])] = &[
    (
        "unsafe",
        &[
            "index/src/kernel/",
            "index/src/storage/map.rs",
            "src/model/kernel/",
            "src/model/conv/cuda.rs",
            "src/model/norm/cuda.rs",
        ],
    ),
    ("candle_core", &["src/model/", "src/detect/", "src/training/", "src/error.rs"]),
    ("candle_nn", &["src/model/", "src/detect/", "src/training/"]),
    ("prost", &["src/model/onnx/"]),
    ("redb", &["src/catalog/"]),
    ("tantivy", &["src/catalog/filters/"]),
    ("axum", &["api/src/"]),
    ("clap", &["cli/src/"]),
    ("hdf5_reader", &["cli/src/commands/bench/vectors/"]),
    ("indicatif", &["cli/src/"]),
    (
        "vultus_index",
        &[
            "src/gallery/",
            "src/error.rs",
            "index/src/",
            "index/tests/",
            "index/benches/",
            "cli/src/commands/bench/",
            "examples/",
        ],
    ),
];

/// The most lines of a Rust file.
const LINES_MAX: usize = 500;

/// The most Rust files directly in a folder, and the folders that hold one file per thing of a kind.
const FILES_MAX: usize = 9;
const FILES_MORE: &[(&str, usize)] = &[("cli/src/commands", 17), ("tests/it", 16), ("index/tests/it", 16)];

/// One Rust file of the repository.
struct Source {
    /// From the root of the repository, with `/`.
    path: String,
    text: String,
    /// The text without comment lines, which may name anything.
    code: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for folder in ["src", "index", "api", "cli", "tests", "benches", "examples"] {
        walk(&root().join(folder), &mut found);
    }
    assert!(found.len() > 50, "only {} files found: is this the repository?", found.len());
    found
}

fn walk(folder: &Path, found: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() && path.file_name() != Some("target".as_ref()) {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
            let parts = path.strip_prefix(root()).unwrap().iter().map(|part| part.to_str().unwrap());
            found.push(Source { path: parts.collect::<Vec<_>>().join("/"), text, code });
        }
    }
}

#[track_caller]
fn assert_none(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn no_module_reaches_up() {
    let exported = exported_names();
    let mut broken = Vec::new();
    for source in sources() {
        let Some(module) = module_of(&source.path) else { continue };
        let Some(own) = layer(module) else {
            broken.push(format!("{}: module {module} is not in LAYERS", source.path));
            continue;
        };
        for name in names_used(&source) {
            let used = exported.get(&name).map_or(name.as_str(), String::as_str);
            if used != module && layer(used).is_some_and(|used| used >= own) {
                broken.push(format!("{}: uses {used}, which is not below {module}", source.path));
            }
        }
    }
    assert_none(&broken);
}

#[test]
fn every_layer_exists() {
    for module in LAYERS.iter().copied().flatten() {
        let (folder, file) = (root().join("src").join(module), root().join("src").join(format!("{module}.rs")));
        assert!(folder.is_dir() || file.is_file(), "LAYERS names {module}, which is gone");
    }
}

#[test]
fn paths_are_found_however_they_are_written() {
    let source = |path: &str, code: &str| Source { path: path.into(), text: String::new(), code: code.into() };
    let check = |path, code, expected: &[&str]| assert_eq!(names_used(&source(path, code)), expected, "{code}");
    check("src/a.rs", "use crate::{Error,\n  face::{Bounds, Crop as C}, gallery};", &["Error", "face", "gallery"]);
    check("src/a/b.rs", "let x = crate::photo::decode(y)?; pub(crate) fn f() {}", &["photo"]);
    check("src/a/b.rs", "use super::c; use super::super::gallery::X;", &["gallery"]);
    check("src/a/mod.rs", "use super::gallery;", &["gallery"]);
    check("src/a.rs", "use super::{gallery, face::Crop};", &["gallery", "face"]);
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// `face` for `src/face/crop.rs`; none for `src/lib.rs`, which names everything, and outside `src/`.
fn module_of(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("src/").filter(|rest| *rest != "lib.rs")?;
    Some(rest.split('/').next()?.trim_end_matches(".rs"))
}

/// Which module each name comes from that `lib.rs` exports at the root.
fn exported_names() -> BTreeMap<String, String> {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let mut names = BTreeMap::new();
    for statement in lib.split("pub use ").skip(1) {
        let path = statement.split(';').next().unwrap();
        let (module, rest) = path.split_once("::").expect("`pub use module::name;`");
        for name in first_names(rest) {
            names.insert(name, module.to_owned());
        }
    }
    names
}

/// The names directly below the root of the crate that a file uses, from `crate::` and from `super::` up to there.
fn names_used(source: &Source) -> Vec<String> {
    let depth = source.path.matches('/').count() - usize::from(source.path.ends_with("/mod.rs"));
    let mut names = Vec::new();
    for (start, _) in source.code.match_indices("crate::") {
        names.extend(first_names(&source.code[start + "crate::".len()..]));
    }
    for (start, _) in source.code.match_indices("super::") {
        let ups = source.code[..start].rsplit("super::").take_while(|between| between.is_empty()).count();
        if ups + 1 >= depth {
            let below = first_names(&source.code[start + "super::".len()..]);
            names.extend(below.into_iter().filter(|name| layer(name).is_some()));
        }
    }
    names
}

/// `a` for `a::b`; `a` and `c` for `{a::b, c}`.
fn first_names(path: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![word(path)] };
    let mut depth = 0;
    let group = group.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0 || depth < 0
    });
    // What follows the group's own closing brace is empty or not a name of the group.
    let mut names = Vec::new();
    for part in group {
        let name = word(part.trim_start());
        if name.is_empty() {
            break;
        }
        names.push(name);
    }
    names
}

#[test]
fn packages_point_one_way() {
    let guarded: Vec<&str> = PACKAGES.iter().flat_map(|(_, allowed)| *allowed).copied().collect();
    let mut broken = Vec::new();
    for (package, allowed) in PACKAGES {
        let manifest = if *package == "src" { "Cargo.toml".to_owned() } else { format!("{package}/Cargo.toml") };
        let text = fs::read_to_string(root().join(&manifest)).unwrap();
        let dependencies = text.split("\n[dependencies]\n").nth(1).expect("a [dependencies] section");
        let dependencies = dependencies.split("\n[").next().unwrap().lines();
        for name in dependencies.filter_map(|line| line.split(['.', ' ', '=']).next()) {
            if guarded.contains(&name) && !allowed.contains(&name) {
                broken.push(format!("{manifest}: {name} has another home"));
            }
        }
    }
    assert_none(&broken);
}

#[test]
fn the_index_has_never_heard_of_a_face() {
    let words = ["face", "faces", "photo", "photos", "crop", "person", "people", "embedding", "vultus"];
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| source.path.starts_with("index/src/")) {
        for word in words.iter().filter(|word| holds_word(&source.code, word)) {
            broken.push(format!("{}: says {word:?}", source.path));
        }
    }
    assert_none(&broken);
}

#[test]
fn heavy_and_dangerous_things_stay_at_home() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| source.path != "tests/it/tidy.rs") {
        let own_tests = source.path.starts_with("tests/") || source.path.starts_with("benches/");
        for (word, homes) in HOMES {
            let at_home = homes.iter().any(|home| source.path.starts_with(home));
            let guarded = *word == "unsafe" || !own_tests;
            if guarded && !at_home && holds_word(&source.code, word) {
                broken.push(format!("{}: {word} lives in {}", source.path, homes.join(", ")));
            }
        }
    }
    assert_none(&broken);
}

fn holds_word(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .any(|(start, _)| !text[..start].ends_with(part) && !text[start + word.len()..].starts_with(part))
}

#[test]
fn every_file_says_why_it_exists_and_is_short() {
    let mut broken = Vec::new();
    for source in sources() {
        if !source.text.starts_with("//! ") {
            broken.push(format!("{}: does not open with `//!`", source.path));
        }
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            broken.push(format!("{}: {lines} lines, at most {LINES_MAX}", source.path));
        }
    }
    assert_none(&broken);
}

#[test]
fn no_folder_is_crowded() {
    let mut folders: BTreeMap<String, usize> = BTreeMap::new();
    for source in sources() {
        let (folder, _) = source.path.rsplit_once('/').expect("every source is in a folder");
        *folders.entry(folder.to_owned()).or_default() += 1;
    }
    let most = |folder: &str| FILES_MORE.iter().find(|(name, _)| *name == folder).map_or(FILES_MAX, |(_, most)| *most);
    let crowded = folders.iter().filter(|(folder, files)| **files > most(folder));
    assert_none(
        &crowded
            .map(|(folder, files)| format!("{folder}: {files} files, at most {}", most(folder)))
            .collect::<Vec<_>>(),
    );
}

#[test]
fn the_changelog_opens_with_this_version() {
    let text = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    let first = text.lines().find_map(|line| line.strip_prefix("## ")).expect("a `## version` heading");
    assert_eq!(first.split(' ').next(), Some(env!("CARGO_PKG_VERSION")), "CHANGELOG.md and Cargo.toml disagree");
}

#[test]
fn the_papers_link_to_files_that_exist() {
    let mut broken = Vec::new();
    for paper in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        let Ok(text) = fs::read_to_string(root().join(paper)) else { continue };
        for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            if !link.is_empty() && !link.contains("://") && !root().join(link).exists() {
                broken.push(format!("{paper}: links to {link}, which does not exist"));
            }
        }
    }
    assert_none(&broken);
}

#[test]
fn every_dependency_says_what_it_saves_us() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let reasons = fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let section = manifest.split("\n[workspace.dependencies]\n").nth(1).expect("a [workspace.dependencies] section");
    let section = section.split("\n[").next().unwrap();
    let names = section.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
    let silent = names.filter(|name| !name.starts_with("vultus") && !reasons.contains(&format!("`{name}`")));
    assert_none(&silent.map(|name| format!("CONTRIBUTING.md: no line for {name}")).collect::<Vec<_>>());
}
