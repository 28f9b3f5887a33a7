//! A run that is repeated or resumed takes the same steps, whatever its optimiser, and refuses what is not its own.

use candle_core::Device;
use vultus::Calibration;
use vultus::training::augment::Augmentation;
use vultus::training::data::LabelledCrops;
use vultus::training::sampler::Batches;
use vultus::training::{
    Begin, Optimizer, Outcome, Output, Precision, Recipe, Schedule, Softmax, Stage, Trainer, Triplets, sources, train,
};

use super::{PLAIN, Silent, data_folder, random_crops, recipe, tiny, trainer};

const OPTIMIZERS: [Optimizer; 4] = [
    Optimizer::Sgd { momentum: 0.9, nesterov: false },
    Optimizer::Sgd { momentum: 0.9, nesterov: true },
    Optimizer::AdamW { beta_1: 0.9, beta_2: 0.999 },
    Optimizer::AdaGrad,
];

const LABELS: [usize; 6] = [0, 1, 0, 1, 2, 2];

/// A margin so wide that noise has semi-hard negatives.
fn mining() -> Stage {
    Stage { triplets: within(2.0), learning_rate: 1e-2, ..tiny() }
}

fn within(margin: f32) -> Option<Triplets> {
    Some(Triplets { margin: Some(margin), ..tiny().triplets.unwrap() })
}

fn steps(trainer: &mut Trainer, seeds: std::ops::Range<u64>) -> Vec<Outcome> {
    let step = |seed| {
        let outcome = trainer.train_on(&random_crops(6, seed), &LABELS).unwrap();
        assert!(outcome.mined > 0.0, "a step without triplets changes nothing");
        assert!(outcome.gradient_norm > 0.0);
        outcome
    };
    seeds.map(step).collect()
}

fn digest(trainer: &Trainer) -> String {
    trainer.weights().unwrap().digest().to_owned()
}

#[test]
fn a_resumed_run_takes_the_steps_that_it_would_have_taken() {
    let folder = tempfile::tempdir().unwrap();
    for (index, optimizer) in OPTIMIZERS.into_iter().enumerate() {
        for ema in [None, Some(0.9)] {
            let path = folder.path().join(format!("{index}.checkpoint"));
            let stage = Stage { optimizer, ema, clip: Some(0.5), ..mining() };
            let mut whole = trainer(stage.clone());
            steps(&mut whole, 0..3);
            whole.save(&path).unwrap();
            let mut resumed = trainer(stage);
            resumed.resume(&path).unwrap();
            assert_eq!(resumed.step(), 3);
            assert_eq!(digest(&whole), digest(&resumed), "{optimizer:?}, average {ema:?}");
            assert_eq!(steps(&mut whole, 3..6), steps(&mut resumed, 3..6), "{optimizer:?}, average {ema:?}");
            assert_eq!(digest(&whole), digest(&resumed), "{optimizer:?}, average {ema:?}");
            // Every bit of the state, and not only of what the weights are rounded to.
            let again = folder.path().join("again.checkpoint");
            whole.save(&path).unwrap();
            resumed.save(&again).unwrap();
            assert!(std::fs::read(&path).unwrap() == std::fs::read(&again).unwrap(), "{optimizer:?}, average {ema:?}");
        }
    }
}

#[test]
fn one_seed_gives_one_run_and_another_optimizer_another() {
    let run = |recipe: Recipe| {
        let mut trainer = Trainer::new(recipe, Vec::new(), Device::Cpu).unwrap();
        steps(&mut trainer, 0..2);
        digest(&trainer)
    };
    let mut seen = std::collections::BTreeSet::new();
    for optimizer in OPTIMIZERS {
        let once = recipe(Stage { optimizer, ..mining() });
        let first = run(once.clone());
        assert_eq!(first, run(once.clone()), "{optimizer:?}");
        assert!(seen.insert(first), "{optimizer:?} is another one");
        assert!(seen.insert(run(Recipe { seed: 2, ..once })), "{optimizer:?}, another seed");
    }
}

#[test]
fn averaged_weights_are_those_that_a_run_gives() {
    let run = |ema| {
        let mut trainer = trainer(Stage { ema, ..mining() });
        let outcomes = steps(&mut trainer, 0..3);
        (outcomes, digest(&trainer))
    };
    let ((plain, last), (averaged, average)) = (run(None), run(Some(0.999)));
    assert_eq!(plain, averaged, "averaging watches, and changes no step");
    assert_ne!(last, average);
    // An average that remembers nothing is the last step.
    assert_eq!(run(Some(0.0)).1, last);
}

#[test]
fn clipping_shortens_long_gradients_only_and_reports_them_unclipped() {
    let run = |clip| {
        let optimizer = Optimizer::Sgd { momentum: 0.0, nesterov: false };
        let mut trainer = trainer(Stage { optimizer, clip, ..mining() });
        (steps(&mut trainer, 0..1)[0].gradient_norm, digest(&trainer))
    };
    let (norm, free) = run(None);
    assert_eq!(run(Some(norm * 1.01)), (norm, free.clone()));
    let (reported, clipped) = run(Some(norm / 2.0));
    assert_eq!(reported, norm);
    assert_ne!(clipped, free);
}

#[test]
fn a_gradient_that_is_not_finite_ends_the_run_before_it_touches_a_weight() {
    let mut trainer = trainer(Stage { learning_rate: 1e30, warm_up: 0, ..mining() });
    let error = (0..20).find_map(|seed| trainer.train_on(&random_crops(6, seed), &LABELS).err());
    // Weights that have exploded may also leave nothing to mine; then no step changes them either.
    if let Some(error) = error {
        assert!(error.to_string().contains("learning rate: the gradient of step"), "{error}");
    }
}

#[test]
fn sixteen_bits_train_the_same_network_from_weights_of_32() {
    let first = |precision| {
        let once = Recipe { precision, ..recipe(mining()) };
        let mut trainer = Trainer::new(once, Vec::new(), Device::Cpu).unwrap();
        trainer.train_on(&random_crops(6, 1), &LABELS)
    };
    let full = first(Precision::F32).unwrap();
    match first(Precision::Bf16) {
        Ok(half) => {
            assert!((full.spread - half.spread).abs() < 0.05 * full.spread, "{full:?} and {half:?}");
            assert_ne!(full.spread, half.spread, "16 bits round");
        }
        // Until the operations of this device know the type, they say so.
        Err(error) => assert!(error.to_string().contains("BF16"), "{error}"),
    }
}

/// A softmax over two sources, and triplets beside it.
fn both() -> Stage {
    let softmax = Some(Softmax { scale: 8.0, margin: 0.2, ramp: 4, trim: 0.2, weight: 0.5 });
    Stage { name: "both".into(), softmax, steps: 3, ema: Some(0.5), ..mining() }
}

fn two_sources(recipe: Recipe) -> Trainer {
    Trainer::new(recipe, vec![0..2, 2..3], Device::Cpu).unwrap()
}

#[test]
fn a_run_that_stops_anywhere_goes_through_the_same_stages() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.checkpoint");
    let remembering = Some(Triplets { memory: 9, ..both().triplets.unwrap() });
    let small = Stage { name: "small".into(), input_side: Some(28), triplets: remembering, ..both() };
    let recipe = Recipe { stages: vec![small, mining(), both()], ..recipe(tiny()) };
    let mut stages = Vec::new();
    for stop in 0..30 {
        let mut whole = two_sources(recipe.clone());
        for seed in 0..stop {
            whole.train_on(&random_crops(6, seed), &LABELS).unwrap();
        }
        stages.push(whole.stage().0.name.clone());
        whole.save(&path).unwrap();
        let mut resumed = two_sources(recipe.clone());
        resumed.resume(&path).unwrap();
        assert_eq!((resumed.step(), digest(&resumed)), (stop, digest(&whole)));
        let next =
            |trainer: &mut Trainer| (trainer.train_on(&random_crops(6, stop), &LABELS).unwrap(), digest(trainer));
        assert_eq!(next(&mut resumed), next(&mut whole), "after {stop} steps");
    }
    stages.dedup();
    assert_eq!(stages, ["small", "triplets", "both"]);
    // 20 steps of triplets, and 3 before.
    assert_eq!(recipe.stage_of(23), (1, 3));
    assert_eq!(recipe.stage_of(24), (2, 23));
}

#[test]
fn a_run_may_begin_with_the_weights_of_another() {
    let folder = data_folder();
    let data = LabelledCrops::read(&[folder.path().to_owned()], 2).unwrap();
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("begin.safetensors");
    let stage = Stage { softmax: both().softmax, augmentation: PLAIN, ..tiny() };
    let mut first = Trainer::new(recipe(stage.clone()), sources(data.identities()), Device::Cpu).unwrap();
    first.train_on(&random_crops(6, 3), &LABELS).unwrap();
    let weights = first.weights().unwrap();
    let calibration = Calibration::measure("nobody", &[0.1], &[1.0; 100]).unwrap();
    weights.clone().calibrated(calibration).write(&path).unwrap();

    let begin = |digest: &str| Some(Begin { weights: path.clone(), digest: digest.to_owned() });
    let run = |recipe: Recipe| {
        let output = Output {
            checkpoint: files.path().join("run.checkpoint"),
            checkpoint_every: 7,
            evaluate_every: 1000,
            held_out: String::new(),
            data_threads: 1,
            device: Device::Cpu,
        };
        train(&recipe, &output, &data, None, &true.into(), &mut Silent)
    };
    // Stopped before its first step, it is what it began with.
    let begun = run(Recipe { begin: begin(weights.digest()), ..recipe(stage.clone()) }).unwrap();
    assert_eq!((begun.step(), digest(&begun)), (0, weights.digest().to_owned()));
    // A checkpoint goes on with the same beginning, wherever the file lies by now.
    let moved = Some(Begin { weights: "elsewhere".into(), digest: weights.digest().to_owned() });
    run(Recipe { begin: moved, ..recipe(stage.clone()) }).unwrap();
    assert!(run(recipe(stage.clone())).err().unwrap().to_string().contains("another recipe"));

    std::fs::remove_file(files.path().join("run.checkpoint")).unwrap();
    let message = run(Recipe { begin: begin("00"), ..recipe(stage.clone()) }).err().unwrap().to_string();
    assert!(message.contains("begin.safetensors has the digest") && message.contains("expected 00"), "{message}");
    let mut other = Recipe { begin: begin(weights.digest()), ..recipe(stage) };
    other.network.stem = 5;
    let message = run(other).err().unwrap().to_string();
    assert!(message.contains("begin: weights of"), "{message}");
}

#[test]
fn a_softmax_tells_people_apart_and_does_without_the_other_sources() {
    let stage = Stage { triplets: None, learning_rate: 3e-2, steps: 60, schedule: Schedule::Constant, ..both() };
    let mut trainer = two_sources(recipe(stage.clone()));
    let mut step = || trainer.train_on(&random_crops(6, 1), &LABELS).unwrap();
    let first = step();
    let last = (0..59).map(|_| step()).last().unwrap();
    assert!(last.loss < 0.5 * first.loss && last.accuracy == 1.0, "{first:?}, {last:?}");
    assert_eq!((first.mined, first.accuracy > 0.0), (0.0, true), "the only person of a source is the nearest there");
    let nobody = Trainer::new(recipe(stage), Vec::new(), Device::Cpu).err().unwrap().to_string();
    assert!(nobody.contains("softmax: needs to know the people"), "{nobody}");
}

#[test]
fn a_checkpoint_of_another_recipe_or_a_damaged_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.checkpoint");
    let resume = |recipe: Recipe| Trainer::new(recipe, Vec::new(), Device::Cpu).unwrap().resume(&path);
    trainer(tiny()).save(&path).unwrap();
    let others = [
        recipe(Stage { triplets: within(0.3), ..tiny() }),
        recipe(Stage { optimizer: Optimizer::AdaGrad, ..tiny() }),
        recipe(Stage { schedule: Schedule::Constant, ..tiny() }),
        recipe(Stage { ema: Some(0.99), ..tiny() }),
        recipe(Stage { clip: Some(1.0), ..tiny() }),
        recipe(Stage { steps: 21, ..tiny() }),
        Recipe { precision: Precision::Bf16, ..recipe(tiny()) },
        Recipe { seed: 2, ..recipe(tiny()) },
    ];
    for other in others {
        let message = resume(other).unwrap_err().to_string();
        assert!(message.contains("another recipe"), "{message}");
    }
    resume(recipe(tiny())).unwrap();
    // What is still to come may change: a later stage, and the end of a stage whose rates don't depend on it.
    resume(Recipe { stages: vec![tiny(), both()], ..recipe(tiny()) }).unwrap();
    let constant = Stage { schedule: Schedule::Constant, ..tiny() };
    trainer(constant.clone()).save(&path).unwrap();
    resume(recipe(Stage { steps: 30, ..constant })).unwrap();
    std::fs::write(&path, b"not a checkpoint").unwrap();
    let message = resume(recipe(tiny())).unwrap_err().to_string();
    assert!(message.contains("run.checkpoint") && message.contains("not a checkpoint"), "{message}");
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    let check = |stage: Stage, name: &str| {
        let message = recipe(stage).check().expect_err(name).to_string();
        assert!(message.starts_with(&format!("stage: `triplets`: {name}")), "{message}");
    };
    let batch = tiny().batch;
    check(Stage { steps: 0, warm_up: 0, ..tiny() }, "steps: 0");
    check(Stage { learning_rate: -1.0, ..tiny() }, "learning rate: -1");
    check(Stage { learning_rate: f64::NAN, ..tiny() }, "learning rate: NaN");
    check(Stage { warm_up: 21, ..tiny() }, "warm-up: 21");
    check(Stage { triplets: within(0.0), ..tiny() }, "margin: 0");
    check(Stage { triplets: Some(Triplets { memory: 1 << 30, ..tiny().triplets.unwrap() }), ..tiny() }, "memory: 1");
    check(Stage { triplets: None, ..tiny() }, "loss: none");
    check(Stage { triplets: Some(Triplets { margin: None, ..tiny().triplets.unwrap() }), ..tiny() }, "margin: none");
    check(
        Stage { softmax: Some(Softmax { scale: 0.0, margin: 0.1, ramp: 0, trim: 0.0, weight: 1.0 }), ..tiny() },
        "scale: 0",
    );
    check(
        Stage { softmax: Some(Softmax { scale: 1.0, margin: 1.1, ramp: 0, trim: 0.0, weight: 1.0 }), ..tiny() },
        "margin: 1.1",
    );
    check(
        Stage { softmax: Some(Softmax { scale: 1.0, margin: 0.1, ramp: 0, trim: 0.0, weight: 0.0 }), ..tiny() },
        "weight: 0",
    );
    check(Stage { softmax: Some(Softmax { trim: 1.0, ..both().softmax.unwrap() }), ..tiny() }, "trim: 1");
    check(Stage { batch: Batches { people: 1, ..batch }, ..tiny() }, "batch: 1 people");
    check(Stage { batch: Batches { crops: 1, ..batch }, ..tiny() }, "batch: triplets need");
    check(Stage { batch: Batches { balance: 1.5, ..batch }, ..tiny() }, "balance: 1.5");
    check(Stage { augmentation: Augmentation { jpeg: 2.0, ..PLAIN }, ..tiny() }, "jpeg: 2");
    check(Stage { augmentation: Augmentation { turn: f32::NAN, ..PLAIN }, ..tiny() }, "turn: NaN");
    check(Stage { weight_decay: -0.1, ..tiny() }, "weight decay: -0.1");
    check(Stage { clip: Some(0.0), ..tiny() }, "clip: 0");
    check(Stage { ema: Some(1.0), ..tiny() }, "ema: 1");
    check(Stage { schedule: Schedule::Step { every: 0, factor: 0.1 }, ..tiny() }, "schedule: 0");
    check(Stage { schedule: Schedule::Step { every: 5, factor: 2.0 }, ..tiny() }, "schedule: 2");
    check(Stage { optimizer: Optimizer::Sgd { momentum: 1.5, nesterov: false }, ..tiny() }, "momentum: 1.5");
    check(Stage { optimizer: Optimizer::AdamW { beta_1: 0.9, beta_2: f64::INFINITY }, ..tiny() }, "beta 2: inf");
    let message = |recipe: Recipe| recipe.check().unwrap_err().to_string();
    assert!(message(Recipe { stages: Vec::new(), ..recipe(tiny()) }).contains("at least one [[stage]]"));
    let coarse = Stage { input_side: Some(7), ..tiny() };
    assert!(message(recipe(coarse)).contains("input side 7"));
    let coarse = Stage { input_side: Some(28), ..tiny() };
    assert!(message(recipe(coarse)).contains("expected the network's own, 14"));
}

#[test]
fn a_recipe_file_that_is_wrong_is_refused_with_its_name_and_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.toml");
    let good = toml::to_string(&recipe(both())).unwrap();
    let read = |text: &str| {
        std::fs::write(&path, text).unwrap();
        Recipe::read(&path)
    };
    assert_eq!(read(&good).unwrap(), recipe(both()));
    let message = |text: String| read(&text).unwrap_err().to_string();
    let unknown = message(good.replace("steps = 3", "steps = 3\nstep = 4"));
    assert!(
        unknown.contains("small.toml") && unknown.contains("line ") && unknown.contains("unknown field"),
        "{unknown}"
    );
    let none = message(good.replace("steps = 3", "steps = 0"));
    assert!(none.contains("small.toml") && none.contains("steps: 0"), "{none}");
    assert!(Recipe::read(&folder.path().join("none.toml")).unwrap_err().to_string().contains("none.toml"));
}
