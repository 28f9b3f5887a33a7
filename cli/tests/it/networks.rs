//! The program with real networks: numbers that it computes in, instructions that it uses, and networks that it trains.

use vultus::Recognizer;
use vultus::model::weights::Weights;
use vultus::photo::Limits;
use vultus::training::data::LabelledCrops;

use super::*;

/// A sample photo of one person.
fn sample(name: &str) -> String {
    format!("{}/../samples/people/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// What `verify` says of two photos of one person, with these options and at this CPU level.
fn distance(options: &[&str], level: &str) -> f64 {
    let folder = folder();
    let photos = [sample("p00/00.jpg"), sample("p00/01.jpg")];
    let arguments = [&["verify", &photos[0], &photos[1], "--json", "--within", "4"], options].concat();
    let output = vultus(&folder, &arguments).env("VULTUS_CPU_LEVEL", level).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{level} {options:?}: {}", stderr(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    answer["distance"].as_f64().unwrap()
}

#[test]
fn every_cpu_level_gives_the_same_answer() {
    let mut levels = vec!["portable"];
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            levels.push("avx2");
        }
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
            levels.push("avx512");
        }
    }
    let bytes = distance(&[], "portable");
    let floats = distance(&["--precision", "f32"], "portable");
    assert_ne!(bytes, floats, "int8 is what a CPU embeds in");
    assert!((bytes - floats).abs() < 0.05, "{bytes} and {floats}");
    for level in levels {
        // Landmarks, and with them crops, differ by the rounding of the detector's floats.
        for (options, expected) in [(&[][..], bytes), (&["--precision", "f32"], floats)] {
            let found = distance(options, level);
            assert!((found - expected).abs() < 0.01, "{level} {options:?}: {found} instead of {expected}");
        }
    }
}

#[test]
fn a_cpu_level_that_is_not_there_is_an_error() {
    let output = vultus(&folder(), &["stats", "--test-double"]).env("VULTUS_CPU_LEVEL", "avx9").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let expected = "VULTUS_CPU_LEVEL: \"avx9\": expected one of this CPU's levels:";
    assert!(stderr(&output).contains(expected), "{}", stderr(&output));
}

#[test]
fn photos_of_known_people_become_the_crops_that_training_reads() {
    let folder = folder();
    let shots = [("p00", "00"), ("p00", "01"), ("p01", "00")];
    for (person, shot) in shots {
        write(
            &folder,
            &format!("photos/{person}/{shot}.jpg"),
            fs::read(sample(&format!("{person}/{shot}.jpg"))).unwrap(),
        );
    }
    write(&folder, "photos/p01/wall.png", Photo::from_rgb(90, 80, vec![99; 90 * 80 * 3]).unwrap().to_jpeg(90).unwrap());
    write(&folder, "photos/p01/rubbish.jpg", b"no photo");
    let counts = |keep: &[&str]| {
        let align = [&["align", "--photos", "photos", "--out", "crops.tar", "--json"], keep].concat();
        let output = vultus(&folder, &align).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let counts: Value = serde_json::from_slice(&output.stdout).unwrap();
        ["aligned", "kept", "without_face", "unreadable"].map(|key| counts[key].as_u64().unwrap())
    };
    assert_eq!(counts(&["--keep"]), [3, 1, 0, 1]);
    assert_eq!(counts(&[]), [3, 0, 1, 1]);
    let shard = folder.path().join("crops.tar");
    assert!(!shard.with_extension("partial").exists());
    let crops = LabelledCrops::read(&[shard], 0).unwrap();
    let people: Vec<_> = crops.identities().iter().map(|person| (person.name.clone(), person.crops.len())).collect();
    assert_eq!(people, [("p00".to_owned(), 2), ("p01".to_owned(), 1)]);
    let recognizer = Recognizer::bundled().unwrap();
    for (index, (person, shot)) in shots.into_iter().enumerate() {
        let photo = crops.photo(index).unwrap();
        assert_eq!((photo.width(), photo.height()), (128, 128));
        let whole =
            Photo::decode(&fs::read(sample(&format!("{person}/{shot}.jpg"))).unwrap(), &Limits::default()).unwrap();
        let expected = recognizer.embedding(&whole).unwrap();
        let found = &recognizer.embed(&[crops.crop(index).unwrap()]).unwrap()[0];
        let distance = expected.distance(found);
        assert!(distance < 0.05, "{person}/{shot}: {distance} from what the program embeds");
    }
}

#[test]
fn an_alignment_that_fails_leaves_what_was_there() {
    let folder = folder();
    write(&folder, "crops.tar", b"before");
    write(&folder, "broken.tar", b"no tar file, but long enough to be read as the header of one".repeat(20));
    let output = run(&folder, &["align", "--photos", "broken.tar", "--out", "crops.tar"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("broken.tar: "), "{}", stderr(&output));
    assert_eq!(fs::read(folder.path().join("crops.tar")).unwrap(), b"before");
    assert!(!folder.path().join("crops.partial").exists());
}

/// Six people, each a white square somewhere of their own.
fn squares(folder: &TempDir, name: &str, shade: u8) {
    for (person, shot) in (0..6u32).flat_map(|person| (0..4u8).map(move |shot| (person, shot))) {
        let mut pixels = [shade + 20 * shot, shade, 90].repeat(64 * 64);
        let (left, top) = (8 + person % 3 * 16, 12 + person / 3 * 24);
        for (y, x) in (top..top + 16).flat_map(|y| (left..left + 16).map(move |x| (y, x))) {
            pixels[((y * 64 + x) * 3) as usize..][..3].fill(255);
        }
        write(
            folder,
            &format!("{name}/p{person}/{shot}.jpg"),
            Photo::from_rgb(64, 64, pixels).unwrap().to_jpeg(90).unwrap(),
        );
    }
}

/// Two stages of everything that a recipe can say, on people of one source.
const RECIPE: &str = r#"
seed = 3
source_letters = 1

[network]
input_side = 14
stem = 8
neck = 6
stages = [{ channels = 16, blocks = 1 }]

[[stage]]
name = "people"
steps = 3
input_side = 28
batch = { people = 5, crops = 1, from = "all-sources", balance = 0.5 }
softmax = { scale = 16.0, margin = 0.2, ramp = 2 }
optimizer = { sgd = { momentum = 0.8, nesterov = true } }
learning_rate = 0.01
schedule = { step = { every = 2, factor = 0.5 } }
warm_up = 2
weight_decay = 1e-4
clip = 1.0
ema = 0.9
augmentation = { flip = 0.5, jpeg = 0.5, erase = 0.5 }

[[stage]]
name = "triplets"
steps = 2
batch = { people = 3, crops = 4 }
triplets = { mining = "hard" }
learning_rate = 1e-3
"#;

#[test]
fn a_network_is_trained_put_in_bytes_and_used() {
    let folder = folder();
    squares(&folder, "data", 20);
    squares(&folder, "held-out", 60);
    let done = |arguments: &[&str]| {
        let output = vultus(&folder, arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
    };
    let data = ["--data", "data", "--held-out", "held-out"];
    write(&folder, "tiny.toml", RECIPE);
    let train = [&["train", "tiny.toml", "--out", "w.safetensors"], &data[..]].concat();
    done(&train);
    let digest = |name: &str| Weights::read(&folder.path().join(name)).unwrap().digest().to_owned();
    let first = digest("w.safetensors");
    let beside = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    assert!(beside("w.svg").contains("</svg>"));
    let lines = beside("w.metrics.jsonl");
    let stages: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(stages.iter().filter_map(|line| line["stage"].as_str()).collect::<Vec<_>>(), ["people", "triplets"]);
    // The checkpoint is of the last step, so the same run has nothing left to do.
    done(&train);
    assert_eq!(first, digest("w.safetensors"));

    let precision = ["--precision", "int8"];
    let photos = [sample("p00/00.jpg"), sample("p00/01.jpg")];
    let verify = |weights: &str| {
        let arguments =
            [&["verify", &photos[0], &photos[1], "--within", "4", "--weights", weights], &precision[..]].concat();
        let output = vultus(&folder, &arguments).output().unwrap();
        (output.status.code(), stderr(&output))
    };
    let (code, message) = verify("w.safetensors");
    assert!(code == Some(2) && message.contains("`vultus quantise` measures them"), "{message}");
    done(&[&["quantise", "--weights", "w.safetensors", "--out", "q.safetensors"], &data[..]].concat());
    assert_eq!(verify("q.safetensors").0, Some(0));
    done(&[&["quantise", "--mirror", "--weights", "w.safetensors", "--out", "m.safetensors"], &data[..]].concat());
    assert_eq!(verify("m.safetensors").0, Some(0));
    // Its embeddings are others, so it must not pass for the same network.
    assert_ne!(digest("m.safetensors"), digest("q.safetensors"));
    let refused = |arguments: &[&str]| {
        let output = vultus(&folder, arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        stderr(&output)
    };
    let message = refused(&[&train[..], &precision].concat());
    assert!(message.contains("expected f32 or bf16"), "{message}");
    write(&folder, "tiny.toml", RECIPE.replace("seed = 3", "seed = 4"));
    let message = refused(&train);
    assert!(message.contains("another recipe"), "{message}");
    write(&folder, "tiny.toml", RECIPE.replace("clip", "shorten"));
    let message = refused(&train);
    assert!(message.contains("tiny.toml") && message.contains("shorten"), "{message}");
}
