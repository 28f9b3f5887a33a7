//! Tests of `training`: mining follows the paper, gradients are right, a resumed run takes the same steps.

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use vultus::Crop;
use vultus::model::network::{FaceNet, NetworkConfig, StageConfig};
use vultus::training::augment::Augmentation;
use vultus::training::data::{Identity, LabelledCrops};
use vultus::training::loss::{Mining, Triplet, mine, squared_distances, triplet_loss};
use vultus::training::sampler::{Batches, People, Sampler};
use vultus::training::{Output, Recipe, Stage, Trainer, calibrate, train};

mod pipeline;
mod recipes;
mod resume;

fn tiny() -> Stage {
    let batch = Batches { people: 3, crops: 2, ..Batches::default() };
    Stage { batch, steps: 20, warm_up: 1, ..Stage::default() }
}

/// Of a network that is trained in no time.
fn recipe(stage: Stage) -> Recipe {
    let stages = vec![StageConfig { channels: 6, blocks: 1 }];
    Recipe { network: NetworkConfig { input_side: 14, stem: 4, neck: Some(5), stages }, ..Recipe::from(stage) }
}

/// On the CPU, without a softmax.
fn trainer(stage: Stage) -> Trainer {
    Trainer::new(recipe(stage), Vec::new(), Device::Cpu).unwrap()
}

fn random_crops(count: usize, seed: u64) -> Vec<Crop> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| Crop::from_rgb((0..112 * 112 * 3).map(|_| rng.random()).collect()).unwrap()).collect()
}

/// A folder with one folder a person: a white square at the person's own place, before a background that says nothing.
fn data_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    for person in 0..6u32 {
        let people = folder.path().join(format!("aa{person}"));
        std::fs::create_dir(&people).unwrap();
        for shot in 0..4 {
            let background: [u8; 3] = std::array::from_fn(|_| rng.random_range(0..200));
            let mut pixels = background.repeat(64 * 64);
            let (left, top) = (8 + person % 3 * 16, 12 + person / 3 * 24);
            for (y, x) in (top..top + 16).flat_map(|y| (left..left + 16).map(move |x| (y, x))) {
                pixels[((y * 64 + x) * 3) as usize..][..3].fill(255);
            }
            let photo = vultus::Photo::from_rgb(64, 64, pixels).unwrap();
            std::fs::write(people.join(format!("{shot}.jpg")), photo.to_jpeg(90).unwrap()).unwrap();
        }
    }
    folder
}

/// Changes nothing.
const PLAIN: Augmentation = Augmentation {
    flip: 0.0,
    shift_px: 0.0,
    scale: 0.0,
    turn: 0.0,
    color: 0.0,
    grey: 0.0,
    blur: 0.0,
    jpeg: 0.0,
    erase: 0.0,
};

proptest! {
    #[test]
    fn mining_takes_the_triplets_that_its_definition_says(
        faces in prop::collection::vec((0usize..5, 0usize..2), 2..24),
        // Distances are twentieths below, so that a negative often lies exactly at the margin.
        margin in prop_oneof![0.01f32..1.0, (1u8..20).prop_map(|twentieths| f32::from(twentieths) / 20.0)],
        (remembered, seed) in (0usize..6, any::<u64>()),
    ) {
        let count = faces.len();
        // Those at the end are remembered from batches before, and no anchors.
        let anchors = count - remembered.min(count - 1);
        let (labels, sources): (Vec<_>, Vec<_>) = faces.iter().map(|(label, source)| (10 * source + label, *source)).unzip();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // Few distinct values, so that ties occur.
        let distances: Vec<f32> = (0..anchors * count).map(|_| rng.random_range(0..40u8).into()).map(|twentieths: f32| twentieths / 20.0).collect();
        let d = |a: usize, b: usize| distances[a * count + b];
        // In plain loops: everybody else's faces of the same source that satisfy `wanted`, the nearest of them or all.
        let negatives = |anchor: usize, wanted: &dyn Fn(usize) -> bool| {
            (0..count).filter(|n| labels[*n] != labels[anchor] && sources[*n] == sources[anchor] && wanted(*n)).collect::<Vec<_>>()
        };
        let nearest = |anchor: usize, all: Vec<usize>| {
            let mut best: Option<usize> = None;
            for negative in all {
                if best.is_none_or(|best| d(anchor, negative) < d(anchor, best)) {
                    best = Some(negative);
                }
            }
            best
        };
        let (mut semi_hard, mut hard, mut all, mut every) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for anchor in 0..anchors {
            let positives: Vec<_> = (0..count).filter(|p| *p != anchor && labels[*p] == labels[anchor]).collect();
            let mut farthest: Option<usize> = None;
            for positive in positives {
                let within = |n: usize| d(anchor, positive) < d(anchor, n) && d(anchor, n) < d(anchor, positive) + margin;
                semi_hard.extend(nearest(anchor, negatives(anchor, &within)).map(|n| (anchor, positive, d(anchor, n))));
                let violating = |n: usize| d(anchor, positive) + margin > d(anchor, n);
                all.extend(negatives(anchor, &violating).into_iter().map(|n| (anchor, positive, d(anchor, n))));
                every.extend(negatives(anchor, &|_| true).into_iter().map(|n| (anchor, positive, d(anchor, n))));
                if farthest.is_none_or(|far| d(anchor, positive) > d(anchor, far)) {
                    farthest = Some(positive);
                }
            }
            if let Some(positive) = farthest {
                hard.extend(nearest(anchor, negatives(anchor, &|_| true)).map(|n| (anchor, positive, d(anchor, n))));
            }
        }
        for (mining, margin, expected) in [
            (Mining::SemiHard, Some(margin), semi_hard),
            (Mining::Hard, Some(margin), hard.clone()),
            (Mining::Hard, None, hard),
            (Mining::All, Some(margin), all),
            (Mining::All, None, every),
        ] {
            let mined = mine(mining, &distances, &labels, &sources, margin);
            let found: Vec<_> = mined.iter().map(|t| (t.anchor, t.positive, d(t.anchor, t.negative))).collect();
            prop_assert_eq!(found, expected, "{:?}, margin {:?}", mining, margin);
            let apart = |t: &Triplet| labels[t.negative] != labels[t.anchor] && sources[t.negative] == sources[t.anchor];
            prop_assert!(mined.iter().all(apart));
        }
    }
}

#[test]
fn the_loss_of_one_batch_is_what_a_hand_computes() {
    // Unit vectors at 0, 60 and 90 degrees: squared distances 1 and 2 from the first.
    let (half, root) = (0.5f32, 0.75f32.sqrt());
    let embeddings = Tensor::new(&[[1.0, 0.0], [half, root], [0.0, 1.0]], &Device::Cpu).unwrap();
    let distances = squared_distances(&embeddings, &embeddings).unwrap();
    let triplets = [Triplet { anchor: 0, positive: 1, negative: 2 }, Triplet { anchor: 0, positive: 2, negative: 1 }];
    // max(0, 1 - 2 + 0.2) = 0 and max(0, 2 - 1 + 0.2) = 1.2; their mean is 0.6.
    let loss = triplet_loss(&distances, &triplets, Some(0.2)).unwrap().to_scalar::<f32>().unwrap();
    assert!((loss - 0.6).abs() < 1e-6, "{loss}");
    assert_eq!(triplet_loss(&distances, &[], Some(0.2)).unwrap().to_scalar::<f32>().unwrap(), 0.0);
}

#[test]
fn gradients_of_the_whole_network_agree_with_finite_differences() {
    let map = VarMap::new();
    let config = recipe(tiny()).network;
    let net = FaceNet::new(&config, &VarBuilder::from_varmap(&map, DType::F64, &Device::Cpu)).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut random = |shape: &[usize], scale: f64| {
        let values: Vec<f64> = (0..shape.iter().product()).map(|_| scale * rng.random_range(-1.0..1.0)).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    };
    let mut vars: Vec<(String, Var)> = map.data().lock().unwrap().iter().map(|(n, v)| (n.clone(), v.clone())).collect();
    vars.retain(|(name, _)| !name.contains("running_"));
    vars.sort_by(|a, b| a.0.cmp(&b.0));
    for (_, var) in vars.iter().filter(|(_, var)| var.rank() > 1) {
        var.set(&random(var.dims(), 0.3)).unwrap();
    }
    let x = random(&[6, 14, 14, 3], 1.0);
    // Some of what the head reads is left out.
    let dropped = random(&net.head_input(6), 1.0).ge(0.0).unwrap().to_dtype(DType::F64).unwrap();
    let triplets: Vec<Triplet> =
        (0..4).map(|a| Triplet { anchor: a, positive: (a + 1) % 6, negative: (a + 3) % 6 }).collect();
    // A margin of 3 keeps every triplet active, so that the loss has no kink nearby.
    let loss = || {
        let pass = net.train(&x, Some(&dropped)).unwrap();
        let distances = squared_distances(pass.embeddings(), pass.embeddings()).unwrap();
        (triplet_loss(&distances, &triplets, Some(3.0)).unwrap(), pass)
    };
    let (first, pass) = loss();
    let grads = pass.backward(&first).unwrap();
    for (name, var) in &vars {
        let grad = grads.get(var).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let values = var.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for at in (0..values.len()).step_by(1 + values.len() / 6) {
            let moved = |by: f64| {
                let mut values = values.clone();
                values[at] += by;
                var.set(&Tensor::from_vec(values, var.shape(), &Device::Cpu).unwrap()).unwrap();
                loss().0.to_scalar::<f64>().unwrap()
            };
            let expected = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            moved(0.0);
            let error = (grad[at] - expected).abs() / expected.abs().max(1e-2);
            assert!(error < 1e-4, "{name}, value {at}: {} instead of {expected}", grad[at]);
        }
    }
}

#[test]
fn one_seed_gives_one_run_and_training_brings_people_apart() {
    let folder = data_folder();
    let data = LabelledCrops::read(&[folder.path().to_owned()], 2).unwrap();
    let shifted = Augmentation { shift_px: 1.0, ..PLAIN };
    let batch = Batches { people: 6, crops: 4, ..Batches::default() };
    let stage = Stage { batch, steps: 60, warm_up: 3, learning_rate: 1e-2, augmentation: shifted, ..tiny() };
    let recipe = recipe(stage.clone());
    let run = |name: &str, data_threads: usize| {
        let checkpoint = folder.path().join(name);
        let output = Output {
            checkpoint,
            checkpoint_every: 7,
            evaluate_every: 1000,
            held_out: String::new(),
            data_threads,
            device: Device::Cpu,
        };
        train(&recipe, &output, &data, None, &false.into(), &mut Silent).unwrap()
    };
    let (first, second) = (run("first.checkpoint", 1), run("second.checkpoint", 3));
    let weights = first.weights().unwrap();
    assert_eq!(weights.digest(), second.weights().unwrap().digest());
    let after = calibrate(&weights, &data, "here").unwrap();
    let before = calibrate(&trainer(stage).weights().unwrap(), &data, "here").unwrap();
    let val = |calibration: &vultus::Calibration| calibration.points[0].val;
    assert!(val(&before) < 0.6, "places are not told apart by chance: {}", val(&before));
    assert!(val(&after) > 0.9, "places are told apart: {}", val(&after));
}

struct Silent;

impl vultus::training::Observer for Silent {
    fn step(&mut self, report: &vultus::training::Report) {
        assert!(report.loss.is_finite() && report.spread > 0.0);
    }

    fn evaluated(&mut self, _: u64, _: &vultus::model::weights::Weights, _: &vultus::Calibration) {}
}

#[test]
fn a_batch_holds_people_of_one_source_and_copes_with_few_crops() {
    let person = |name: &str, source: &str, crops: std::ops::Range<usize>| Identity {
        name: name.into(),
        source: source.into(),
        crops: crops.collect(),
    };
    let people = [
        person("a1", "a", 0..2),
        person("a2", "a", 2..5),
        person("a3", "a", 5..6),
        person("b1", "b", 6..16),
        person("b2", "b", 16..18),
    ];
    let sampler = Sampler::new(&people, Batches { people: 3, crops: 4, ..Batches::default() }).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for _ in 0..200 {
        let batch = sampler.draw(&mut rng);
        let sources: std::collections::BTreeSet<_> = batch.iter().map(|d| &people[d.identity].source).collect();
        assert_eq!(sources.len(), 1);
        let crops: std::collections::BTreeSet<_> = batch.iter().map(|d| d.crop).collect();
        assert_eq!(crops.len(), batch.len(), "no crop twice");
        for identity in batch.iter().map(|d| d.identity) {
            let count = batch.iter().filter(|d| d.identity == identity).count();
            assert_eq!(count, people[identity].crops.len().min(4));
            assert!(count >= 2, "a person with one crop has no positive");
        }
    }
    assert!(Sampler::new(&people[..1], Batches { people: 3, crops: 4, ..Batches::default() }).is_err());
}

#[test]
fn people_are_drawn_in_proportion_to_a_power_of_their_crops() {
    let person = |name: &str, crops: std::ops::Range<usize>| Identity {
        name: name.into(),
        source: name[..1].into(),
        crops: crops.collect(),
    };
    let people = [person("a1", 0..1), person("a2", 1..17), person("b1", 17..21), person("b2", 21..25)];
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    for (balance, expected) in [(0.0, [0.25; 4]), (0.5, [1.0, 4.0, 2.0, 2.0].map(|w| w / 9.0))] {
        let batches = Batches { people: 2, crops: 1, from: People::AllSources, balance };
        let sampler = Sampler::new(&people, batches).unwrap();
        let mut firsts = [0.0; 4];
        for _ in 0..4000 {
            let batch = sampler.draw(&mut rng);
            assert!(batch.len() == 2 && batch[0].identity != batch[1].identity, "{batch:?}");
            // The order of a batch says nothing, so both count, and who is drawn first is not known: pairs are compared below.
            batch.iter().for_each(|draw| firsts[draw.identity] += 1.0 / 4000.0);
        }
        // The chance to be one of two that are drawn one after the other.
        for (at, found) in firsts.into_iter().enumerate() {
            let second = (0..4)
                .filter(|first| *first != at)
                .map(|first| expected[first] * expected[at] / (1.0 - expected[first]));
            let chance = expected[at] + second.sum::<f64>();
            // Five standard deviations of 4,000 draws.
            assert!((found - chance).abs() < 0.04, "balance {balance}, person {at}: {found} instead of {chance}");
        }
    }
}

#[test]
fn augmentation_of_nothing_is_the_plain_crop_and_draws_depend_on_the_generator_only() {
    let folder = data_folder();
    let data = LabelledCrops::read(&[folder.path().to_owned()], 2).unwrap();
    let photo = data.photo(5).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let plain = data.crop(5).unwrap();
    let apart = |crop: &Crop| crop.pixels().iter().zip(plain.pixels()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(apart(&PLAIN.apply(&photo, &mut rng).unwrap()) <= 1, "rounding only");
    let strong = Augmentation { blur: 1.0, jpeg: 1.0, erase: 1.0, ..Augmentation::default() };
    let one = strong.apply(&photo, &mut ChaCha8Rng::seed_from_u64(9)).unwrap();
    let two = strong.apply(&photo, &mut ChaCha8Rng::seed_from_u64(9)).unwrap();
    assert!(one == two);
    assert!(apart(&one) > 1);
}
