//! Tests of `model`: weights survive the disk or are refused, and folding changes nothing.

use std::path::Path;

use candle_core::Device;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use vultus::model::network::{NetworkConfig, StageConfig};
use vultus::model::weights::{TrainedEmbedder, Weights};
use vultus::model::{Embed, Precision};
use vultus::training::{Recipe, Stage, Trainer};
use vultus::{Calibration, Crop, Embedding, Recognizer};

fn crops() -> Vec<Crop> {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    (0..40).map(|_| Crop::from_rgb((0..112 * 112 * 3).map(|_| rng.random()).collect()).unwrap()).collect()
}

/// A small network whose running statistics have moved away from their start.
fn weights() -> Weights {
    let network =
        NetworkConfig { input_side: 14, stem: 4, neck: Some(5), stages: vec![StageConfig { channels: 6, blocks: 2 }] };
    let recipe = Recipe { network, ..Recipe::from(Stage::default()) };
    let mut trainer = Trainer::new(recipe, Vec::new(), Device::Cpu).unwrap();
    for _ in 0..3 {
        trainer.train_on(&crops()[..6], &[0, 0, 1, 1, 2, 2]).unwrap();
    }
    let different: Vec<f32> = (0..100).map(|i| i as f32 / 50.0).collect();
    let calibration = Calibration::measure("nobody", &[0.1, 0.2], &different).unwrap();
    trainer.weights().unwrap().calibrated(calibration)
}

#[test]
fn weights_come_back_from_disk_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let weights = weights();
    weights.write(&path).unwrap();
    let first = std::fs::read(&path).unwrap();
    // Names in a hash map come in another order each time.
    for _ in 0..5 {
        weights.write(&path).unwrap();
        assert!(std::fs::read(&path).unwrap() == first, "the same weights, other bytes");
    }
    let back = Weights::read(&path).unwrap();
    assert_eq!(back.digest(), weights.digest());
    let (one, two) = (TrainedEmbedder::new(weights).unwrap(), TrainedEmbedder::new(back).unwrap());
    assert_eq!(one.embed(&crops()).unwrap(), two.embed(&crops()).unwrap());
    assert_eq!(one.calibration(), two.calibration());
}

#[test]
fn damaged_weights_are_refused_or_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let weights = weights().quantised(&crops()).unwrap();
    weights.write(&path).unwrap();
    let good = std::fs::read(&path).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    // Anywhere, and in every byte of the ranges for int8, whose text would still parse with another digit.
    let ranges = good.windows(4).position(|word| word == b"int8").unwrap();
    let anywhere: Vec<(usize, u32)> =
        (0..300).map(|_| (rng.random_range(0..good.len()), rng.random_range(0..8))).collect();
    for (at, bit) in anywhere.into_iter().chain((ranges..ranges + 80).map(|at| (at, 0))) {
        let mut bad = good.clone();
        bad[at] ^= 1 << bit;
        if let Ok(read) = Weights::parse(&bad, Path::new("w")) {
            // A flip in the order of the header's keys or its padding changes nothing that is used.
            assert_eq!(read.digest(), weights.digest(), "byte {at} went unnoticed");
            let (read, written) = (TrainedEmbedder::new(read).unwrap(), TrainedEmbedder::new(weights.clone()).unwrap());
            assert_eq!(read.calibration(), written.calibration(), "byte {at} went unnoticed");
            let embed = |embedder: TrainedEmbedder| embedder.embed(&crops()[..2]).unwrap();
            assert_eq!(embed(read), embed(written), "byte {at} went unnoticed");
        }
    }
    for length in (0..good.len()).step_by(97) {
        assert!(Weights::parse(&good[..length], Path::new("w")).is_err(), "{length} bytes");
    }
    let message = Weights::parse(b"text", Path::new("w.txt")).err().unwrap().to_string();
    assert!(message.contains("w.txt") && message.contains("safetensors"), "{message}");
}

#[test]
fn a_network_in_bytes_embeds_nearly_the_same_and_comes_back_from_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let before = weights();
    let after = before.clone().quantised(&crops()).unwrap();
    assert!(after.is_quantised() && !before.is_quantised());
    assert_eq!(after.digest(), before.digest(), "a gallery takes both");
    after.write(&path).unwrap();
    let embed = |weights: &Weights, precision| {
        TrainedEmbedder::on(weights.clone(), &Device::Cpu, precision).unwrap().embed(&crops()).unwrap()
    };
    let floats = embed(&before, None);
    let bytes = embed(&after, None);
    assert_eq!(floats, embed(&after, Some(Precision::F32)), "ranges must not change what floats compute");
    assert_eq!(bytes, embed(&Weights::read(&path).unwrap(), Some(Precision::Int8)));
    for (a, b) in floats.iter().zip(&bytes) {
        // A squared distance: the rounding turns an embedding by a few degrees at most.
        let distance = a.distance(b);
        assert!(distance > 0.0 && distance < 0.02, "{distance}");
    }
    assert!(weights().quantised(&[]).is_err());
}

#[test]
fn a_crop_and_its_mirror_image_embed_the_same_where_weights_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let plain = weights();
    let alone = TrainedEmbedder::new(plain.clone()).unwrap();
    let both = plain.clone().mirrored();
    assert!(both.is_mirrored() && !plain.is_mirrored());
    assert!(both.digest() != plain.digest(), "another embedding by the same name");
    assert_eq!(both.clone().mirrored().digest(), both.digest());
    assert!(both.write(&path).is_err(), "thresholds of other embeddings");
    both.calibrated(alone.calibration().clone()).write(&path).unwrap();
    let together = TrainedEmbedder::new(Weights::read(&path).unwrap()).unwrap();
    let crops = crops();
    let mirrored: Vec<Crop> = crops.iter().map(Crop::mirrored).collect();
    assert!(mirrored.iter().zip(&crops).all(|(mirrored, crop)| mirrored.mirrored() == *crop && mirrored != crop));
    let [one, other] = [&crops, &mirrored].map(|crops| alone.embed(crops).unwrap());
    for (found, (one, other)) in together.embed(&crops).unwrap().iter().zip(one.iter().zip(&other)) {
        let sum: Vec<f32> = one.as_slice().iter().zip(other.as_slice()).map(|(a, b)| a + b).collect();
        assert!(found.distance(&Embedding::normalized(&sum).unwrap()) < 1e-9);
    }
    for (a, b) in together.embed(&crops).unwrap().iter().zip(&together.embed(&mirrored).unwrap()) {
        assert!(a.distance(b) < 1e-9);
    }
    let mut file = std::fs::read(&path).unwrap();
    let at = file.windows(8).position(|word| word == b"mirrored").unwrap();
    file[at] = b'n';
    let message = Weights::parse(&file, Path::new("w")).err().unwrap().to_string();
    assert!(message.contains("digest"), "{message}");
}

#[test]
fn numbers_that_cannot_be_computed_in_are_an_error_with_a_way_out() {
    let message = |weights: Weights, precision| {
        TrainedEmbedder::on(weights, &Device::Cpu, Some(precision)).err().unwrap().to_string()
    };
    assert!(message(weights(), Precision::Int8).contains("`vultus quantise` measures them"));
    assert!(message(weights(), Precision::Bf16).contains("embeds in int8 or f32"));
    let recipe = Recipe { precision: Precision::Int8, ..Recipe::from(Stage::default()) };
    assert!(recipe.check().unwrap_err().to_string().contains("expected f32 or bf16"));
}

#[test]
fn embedding_does_not_depend_on_who_else_is_in_the_batch() {
    let embedder = TrainedEmbedder::new(weights()).unwrap();
    let crops = crops();
    let together = embedder.embed(&crops).unwrap();
    assert_eq!(together.len(), crops.len());
    for (crop, embedding) in crops.iter().zip(&together).step_by(7) {
        let alone = &embedder.embed(std::slice::from_ref(crop)).unwrap()[0];
        assert!(alone.distance(embedding) < 1e-9);
    }
    assert!(embedder.embed(&[]).unwrap().is_empty());
}

#[test]
fn weights_become_an_onnx_model_that_says_what_it_is() {
    let weights = weights();
    let model = weights.to_onnx().unwrap();
    let holds = |text: &str| model.windows(text.len()).any(|window| window == text.as_bytes());
    for text in ["crops", "embedding", "LpNormalization", "landmarks", "threshold_verify", weights.digest()] {
        assert!(holds(text), "{text} is missing");
    }
    assert!(Weights::bundled().unwrap().to_onnx().unwrap().len() > 4 << 20);
}

#[test]
fn the_network_alone_embeds_as_crops_do() {
    let embedder = TrainedEmbedder::new(weights()).unwrap();
    let x = vultus::model::network::input(&crops()[..3], 14, &Device::Cpu)
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_vec1::<f32>()
        .unwrap();
    let rows = embedder.forward(&x).unwrap();
    for (row, embedding) in rows.chunks_exact(128).zip(embedder.embed(&crops()[..3]).unwrap()) {
        assert!(Embedding::normalized(row).unwrap().distance(&embedding) < 1e-9);
    }
    assert!(embedder.forward(&x[1..]).unwrap_err().to_string().contains("expected a multiple of 588"));
}

#[test]
fn the_bundled_weights_can_be_used() {
    let recognizer = Recognizer::bundled().unwrap();
    assert_eq!(recognizer.digest().len(), 64);
    assert_eq!(recognizer.embed(&crops()[..2]).unwrap().len(), 2);
    assert!(recognizer.calibration().threshold(1e-3).unwrap() > 0.0);
}
