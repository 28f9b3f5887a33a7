//! Rubbish as input: a clear message each, and never a panic.

use std::fs;

use serde_json::Value;

use crate::{ANA, folder, json, people, photo, run, stderr, vultus, write};

/// A PNG header that claims 30,000 x 30,000 pixels, and nothing after it.
fn huge_png() -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    png.extend([30_000u32.to_be_bytes(), 30_000u32.to_be_bytes()].concat());
    png.extend([8, 2, 0, 0, 0]);
    // The CRC-32 of `IHDR` and the thirteen bytes after it.
    png.extend(crc32(&png[12..]).to_be_bytes());
    png.extend(b"\0\0\0\0IDAT");
    png
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes
        .iter()
        .fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1))))
}

#[test]
fn a_path_that_is_not_there_is_named_with_its_reason_once() {
    for arguments in
        [&["align", "--photos", "nowhere", "--out", "x.tar"][..], &["eval", "folder", "--photos", "nowhere"]]
    {
        let output = run(&folder(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(stderr(&output), "vultus: nowhere: No such file or directory (os error 2)\n", "{arguments:?}");
    }
}

/// Each file, and words that its message must hold.
fn rubbish() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let half = photo(ANA, 40);
    vec![
        ("empty.jpg", Vec::new(), "empty"),
        ("text.jpg", b"Dear diary, today I took no photo.".to_vec(), "JPEG"),
        ("half.jpg", half[..half.len() / 2].to_vec(), "not a readable photo"),
        ("huge.png", huge_png(), "30000 x 30000 px: longer than 16384"),
    ]
}

#[test]
fn each_kind_of_rubbish_is_named_with_its_reason_by_every_command_that_reads_photos() {
    let folder = folder();
    people(&folder);
    json(&folder, 0, &["ingest", "photos"]);
    for (name, bytes, words) in rubbish() {
        write(&folder, name, bytes);
        let questions = [&["identify", name][..], &["verify", name, "photos/Ana/1.jpg"], &["verify", "face:1", name]];
        for question in questions.into_iter().chain([&["ingest", name][..]]) {
            let output = run(&folder, question);
            let message = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{question:?}: {message}");
            assert!(message.contains(name) && message.contains(words), "{question:?}: {message}");
        }
    }
}

#[test]
fn rubbish_among_photos_is_listed_and_the_run_goes_on() {
    let folder = folder();
    people(&folder);
    rubbish().into_iter().for_each(|(name, bytes, _)| write(&folder, &format!("photos/{name}"), bytes));
    let summary = json(&folder, 0, &["ingest", "photos", "--dead-letters", "letters.jsonl"]);
    assert_eq!((summary["added"].as_u64(), summary["unreadable"].as_u64()), (Some(3), Some(4)));
    let letters = fs::read_to_string(folder.path().join("letters.jsonl")).unwrap();
    for (name, _, words) in rubbish() {
        let letter = letters.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{name}: {letters}"));
        let letter: Value = serde_json::from_str(letter).unwrap();
        assert!(letter["reason"].as_str().unwrap().contains(words), "{letter}");
    }
}

/// Twenty sample people side by side, five in a row.
fn crowd() -> Vec<u8> {
    let samples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples/people");
    let (side, columns) = (160usize, 5);
    let mut pixels = vec![0; side * side * 20 * 3];
    for person in 0..20 {
        let file = fs::read(samples.join(format!("p{person:02}/00.jpg"))).unwrap();
        let photo = vultus::Photo::decode(&file, &vultus::photo::Limits::default()).unwrap();
        for (y, row) in photo.pixels().chunks_exact(side * 3).enumerate() {
            let at = ((person / columns * side + y) * columns + person % columns) * side * 3;
            pixels[at..at + side * 3].copy_from_slice(row);
        }
    }
    let (width, height) = ((columns * side) as u32, (20 / columns * side) as u32);
    vultus::Photo::from_rgb(width, height, pixels).unwrap().to_jpeg(92).unwrap()
}

#[test]
fn twenty_faces_in_a_photo_are_all_stored_and_known_again_by_the_real_networks() {
    let folder = folder();
    write(&folder, "crowd.jpg", crowd());
    let real = |arguments: &[&str], code: i32| -> Value {
        let output = vultus(&folder, arguments).arg("--json").output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let summary = real(&["ingest", "crowd.jpg"], 0);
    assert_eq!((summary["added"].as_u64(), summary["faces"].as_u64()), (Some(1), Some(20)));
    // Nobody has a name yet, which is a no; but every face has been seen before.
    let answer = real(&["identify", "crowd.jpg", "-k", "1"], 1);
    let faces = answer["photos"][0]["faces"].as_array().unwrap();
    assert_eq!(faces.len(), 20);
    for face in faces {
        assert!(face["neighbors"][0]["distance"].as_f64().unwrap() < 1e-4, "{face}");
    }
}

#[test]
fn a_photo_of_one_pixel_and_one_without_a_face_are_no_errors() {
    let folder = folder();
    let dot = vultus::Photo::from_rgb(1, 1, vec![9, 9, 9]).unwrap().to_jpeg(90).unwrap();
    write(&folder, "photos/dot.jpg", dot);
    // The test double finds no face in black.
    write(&folder, "photos/black.jpg", photo([0; 3], 1));
    let summary = json(&folder, 0, &["ingest", "photos"]);
    assert_eq!((summary["added"].as_u64(), summary["without_faces"].as_u64()), (Some(2), Some(1)));
    let answer = json(&folder, 1, &["identify", "photos/black.jpg"]);
    assert_eq!(answer["photos"][0]["faces"], serde_json::json!([]));
    let output = run(&folder, &["verify", "photos/black.jpg", "photos/dot.jpg"]);
    assert!(stderr(&output).contains("photos/black.jpg") && stderr(&output).contains("no face"), "{}", stderr(&output));
}

#[test]
fn an_empty_folder_and_a_wrong_path_are_said_clearly() {
    let folder = folder();
    fs::create_dir(folder.path().join("nothing")).unwrap();
    write(&folder, "papers/a.txt", "no photo");
    let cases = [("nothing", "no photos found"), ("papers", "1 file of other kinds"), ("fotos", "fotos: No such file")];
    for (path, words) in cases {
        let output = run(&folder, &["ingest", path]);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(words), "{path}: {}", stderr(&output));
    }
}

#[test]
fn wrong_arguments_are_refused_before_anything_is_started() {
    let folder = folder();
    people(&folder);
    write(&folder, "rows.csv", "path,album\n1.jpg,Sea\n1.jpg,Land\n");
    let cases = [
        (&["ingest", "photos", "--metadata", "rows.csv"][..], "line 3"),
        (&["ingest", "photos", "--metadata", "gone.csv"], "gone.csv"),
        (&["verify", "photos/Ana/1.jpg", "photos/Ben/1.jpg", "--far", "1e-12"], "far"),
        (&["verify", "photos/Ana/1.jpg", "photos/Ben/1.jpg", "--within", "9"], "0 to 4"),
        (&["verify", "photos/Ana/1.jpg", "face:x"], "no face id"),
        (&["forget"], "--person"),
        (&["forget", "--face", "1", "--person", "Ana"], "cannot be used with"),
        (&["cluster", "--cut", "1", "--k-means", "2"], "cannot be used with"),
    ];
    for (arguments, words) in cases {
        let output = run(&folder, arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(words), "{arguments:?}: {}", stderr(&output));
    }
    assert!(!folder.path().join("vultus.gallery").exists());
}

#[test]
fn a_gpu_is_refused_before_anything_is_read_where_the_program_has_no_cuda() {
    if cfg!(feature = "cuda") {
        return;
    }
    let folder = folder();
    let train = ["train", "none.toml", "--data", "none", "--held-out", "none", "--out", "out.safetensors", "--device"];
    for (command, device, words) in [
        (&train[..], "cuda", "device: cuda: this program was built without CUDA"),
        (&["ingest", "none", "--device"][..], "cuda", "device: cuda: this program was built without CUDA"),
        (&train[..], "tpu", "expected auto, cpu or cuda"),
    ] {
        let output = vultus(&folder, &[command, &[device]].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
    assert!(fs::read_dir(folder.path()).unwrap().next().is_none(), "a gallery or a checkpoint was begun");
}

#[test]
fn a_damaged_index_is_found_by_check_and_mended_by_repair_or_by_the_next_question() {
    let folder = folder();
    people(&folder);
    json(&folder, 0, &["ingest", "photos", "--person-from", "folder"]);
    assert_eq!(json(&folder, 0, &["check"])["damaged"], serde_json::json!([]));
    let damage = || {
        let files = fs::read_dir(folder.path().join("vultus.gallery/index")).unwrap();
        let mut files = files.map(|entry| entry.unwrap().path());
        let segment = files.find(|path| path.extension().is_some_and(|extension| extension == "seg")).unwrap();
        let mut bytes = fs::read(&segment).unwrap();
        bytes[600] ^= 8;
        fs::write(segment, bytes).unwrap();
    };
    damage();
    let found = json(&folder, 1, &["check"]);
    let line = found["damaged"][0].as_str().unwrap();
    assert!(line.contains(".seg: the checksum of bytes 64 to "), "{line}");
    let mended = json(&folder, 0, &["check", "--repair"]);
    assert!(mended["rebuilt"][0].as_str().unwrap().ends_with("rebuilt from the catalog"), "{mended}");
    assert_eq!(json(&folder, 0, &["check"])["rebuilt"], serde_json::json!([]));

    let before = json(&folder, 0, &["identify", "photos/Ana/1.jpg"]);
    damage();
    assert_eq!(json(&folder, 0, &["identify", "photos/Ana/1.jpg"]), before);
    assert_eq!(json(&folder, 0, &["check"])["damaged"], serde_json::json!([]));
}
