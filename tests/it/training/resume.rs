//! A run that is repeated or resumed takes the same steps, whatever its optimiser, and refuses what is not its own.

use vultus::training::{Optimizer, Options, Outcome, Precision, Schedule, Trainer};

use super::{random_crops, tiny};

const OPTIMIZERS: [Optimizer; 4] = [
    Optimizer::Sgd { momentum: 0.9, nesterov: false },
    Optimizer::Sgd { momentum: 0.9, nesterov: true },
    Optimizer::AdamW { beta_1: 0.9, beta_2: 0.999 },
    Optimizer::AdaGrad,
];

const LABELS: [usize; 6] = [0, 1, 0, 1, 2, 2];

/// A margin so wide that noise has semi-hard negatives.
fn mining() -> Options {
    Options { margin: 2.0, learning_rate: 1e-2, ..tiny() }
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
            let options = Options { optimizer, ema, clip: Some(0.5), ..mining() };
            let mut whole = Trainer::new(options.clone()).unwrap();
            steps(&mut whole, 0..3);
            whole.save(&path).unwrap();
            let mut resumed = Trainer::new(options).unwrap();
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
    let run = |options: Options| {
        let mut trainer = Trainer::new(options).unwrap();
        steps(&mut trainer, 0..2);
        digest(&trainer)
    };
    let mut seen = std::collections::BTreeSet::new();
    for optimizer in OPTIMIZERS {
        let options = Options { optimizer, ..mining() };
        let first = run(options.clone());
        assert_eq!(first, run(options.clone()), "{optimizer:?}");
        assert!(seen.insert(first), "{optimizer:?} is another one");
        assert!(seen.insert(run(Options { seed: 2, ..options })), "{optimizer:?}, another seed");
    }
}

#[test]
fn averaged_weights_are_those_that_a_run_gives() {
    let run = |ema| {
        let mut trainer = Trainer::new(Options { ema, ..mining() }).unwrap();
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
        let mut trainer = Trainer::new(Options { optimizer, clip, ..mining() }).unwrap();
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
    let mut trainer = Trainer::new(Options { learning_rate: 1e30, warm_up: 0, ..mining() }).unwrap();
    let error = (0..20).find_map(|seed| trainer.train_on(&random_crops(6, seed), &LABELS).err());
    // Weights that have exploded may also leave nothing to mine; then no step changes them either.
    if let Some(error) = error {
        assert!(error.to_string().contains("learning rate: the gradient of step"), "{error}");
    }
}

#[test]
fn sixteen_bits_train_the_same_network_from_weights_of_32() {
    let first = |precision| {
        let mut trainer = Trainer::new(Options { precision, ..mining() }).unwrap();
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

#[test]
fn a_checkpoint_of_another_recipe_or_a_damaged_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.checkpoint");
    Trainer::new(tiny()).unwrap().save(&path).unwrap();
    let others = [
        Options { margin: 0.3, ..tiny() },
        Options { optimizer: Optimizer::AdaGrad, ..tiny() },
        Options { schedule: Schedule::Constant, ..tiny() },
        Options { ema: Some(0.99), ..tiny() },
        Options { clip: Some(1.0), ..tiny() },
        Options { precision: Precision::Bf16, ..tiny() },
    ];
    for other in others {
        let message = Trainer::new(other).unwrap().resume(&path).unwrap_err().to_string();
        assert!(message.contains("another recipe"), "{message}");
    }
    Trainer::new(tiny()).unwrap().resume(&path).unwrap();
    std::fs::write(&path, b"not a checkpoint").unwrap();
    let message = Trainer::new(tiny()).unwrap().resume(&path).unwrap_err().to_string();
    assert!(message.contains("run.checkpoint") && message.contains("not a checkpoint"), "{message}");
}

#[test]
fn options_that_make_no_sense_are_refused_by_name() {
    let check = |options: Options, name: &str| {
        let message = Trainer::new(options).err().expect(name).to_string();
        assert!(message.starts_with(name), "{message}");
    };
    check(Options { steps: 0, warm_up: 0, ..tiny() }, "steps: 0");
    check(Options { learning_rate: -1.0, ..tiny() }, "learning rate: -1");
    check(Options { learning_rate: f64::NAN, ..tiny() }, "learning rate: NaN");
    check(Options { warm_up: 21, ..tiny() }, "warm-up: 21");
    check(Options { margin: 0.0, ..tiny() }, "margin: 0");
    check(Options { weight_decay: -0.1, ..tiny() }, "weight decay: -0.1");
    check(Options { clip: Some(0.0), ..tiny() }, "clip: 0");
    check(Options { ema: Some(1.0), ..tiny() }, "ema: 1");
    check(Options { schedule: Schedule::Step { every: 0, factor: 0.1 }, ..tiny() }, "schedule: 0");
    check(Options { schedule: Schedule::Step { every: 5, factor: 2.0 }, ..tiny() }, "schedule: 2");
    check(Options { optimizer: Optimizer::Sgd { momentum: 1.5, nesterov: false }, ..tiny() }, "momentum: 1.5");
    check(Options { optimizer: Optimizer::AdamW { beta_1: 0.9, beta_2: f64::INFINITY }, ..tiny() }, "beta 2: inf");
}
