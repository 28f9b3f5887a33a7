//! Training and embedding on an NVIDIA GPU beside the CPU; skipped, and said so, where there is none.

use candle_core::Device;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use vultus::Crop;
use vultus::model::network::{NetworkConfig, StageConfig};
use vultus::model::weights::{TrainedEmbedder, Weights};
use vultus::model::{Compute, Embed, Precision};
use vultus::training::{Recipe, Softmax, Stage, Trainer, Triplets};

const LABELS: [usize; 12] = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3];

fn crops(count: usize) -> Vec<Crop> {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let mut crop = || {
        // Squares of one colour: noise alone would be averaged to grey.
        let cells: Vec<[u8; 3]> = (0..49).map(|_| rng.random()).collect();
        let pixels = (0..112 * 112).flat_map(|at| cells[at / 112 / 16 * 7 + at % 112 / 16]);
        Crop::from_rgb(pixels.collect()).unwrap()
    };
    (0..count).map(|_| crop()).collect()
}

#[test]
fn a_step_on_a_gpu_is_the_step_of_the_cpu_but_for_rounding() {
    let device = match Compute::Cuda.device() {
        Ok(device) => device,
        Err(error) => return eprintln!("skipped: no GPU ({error})"),
    };
    let stages = [64, 128].map(|channels| StageConfig { channels, blocks: 2 }).to_vec();
    let network = NetworkConfig { input_side: 28, stem: 32, neck: Some(16), stages };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.checkpoint");
    for (precision, share) in [(Precision::F32, 0.02), (Precision::Bf16, 0.1)] {
        let stage = Stage {
            softmax: Some(Softmax { scale: 16.0, margin: 0.2, ramp: 0, trim: 0.0, weight: 0.1 }),
            triplets: Some(Triplets { margin: Some(2.0), ..Stage::default().triplets.unwrap() }),
            learning_rate: 1e-4,
            ema: Some(0.9),
            clip: Some(1.0),
            ..Stage::default()
        };
        let recipe = Recipe { network: network.clone(), precision, ..Recipe::from(stage) };
        let trainer = |device: &Device| Trainer::new(recipe.clone(), vec![0..2, 2..4], device.clone()).unwrap();
        let (mut cpu, mut gpu) = (trainer(&Device::Cpu), trainer(&device));
        let digest = |trainer: &Trainer| trainer.weights().unwrap().digest().to_owned();
        assert_eq!(digest(&cpu), digest(&gpu), "the first weights");
        let crops = crops(LABELS.len());
        for _ in 0..3 {
            let (expected, found) = (cpu.train_on(&crops, &LABELS).unwrap(), gpu.train_on(&crops, &LABELS).unwrap());
            let close = |a: f64, b: f64, share: f64| (a - b).abs() <= share * a.abs();
            let all = close(expected.loss.into(), found.loss.into(), share)
                && close(expected.spread.into(), found.spread.into(), share)
                // Another negative of nearly the same distance turns the gradient a little.
                && close(expected.gradient_norm, found.gradient_norm, 5.0 * share);
            assert!(all, "{precision:?}: {found:?} instead of {expected:?}");
        }
        // What a GPU has written goes on anywhere.
        gpu.save(&path).unwrap();
        let mut back = trainer(&Device::Cpu);
        back.resume(&path).unwrap();
        assert_eq!((back.step(), digest(&back)), (3, digest(&gpu)));
        let mut again = trainer(&device);
        again.resume(&path).unwrap();
        assert_eq!(digest(&again), digest(&gpu));
        again.train_on(&crops, &LABELS).unwrap();
    }
}

#[test]
fn a_gpu_embeds_as_the_cpu() {
    let device = match Compute::Cuda.device() {
        Ok(device) => device,
        Err(error) => return eprintln!("skipped: no GPU ({error})"),
    };
    // More than a batch, and the last one not full.
    let crops = crops(530);
    let expected =
        TrainedEmbedder::on(Weights::bundled().unwrap(), &Compute::Cpu.device().unwrap(), Some(Precision::F32))
            .unwrap()
            .embed(&crops)
            .unwrap();
    // Squared distances: TF32 rounds the 10th bit in each of fifteen layers, `bf16` the 8th.
    for (precision, within) in [(Precision::F32, 1e-3), (Precision::Bf16, 2e-2)] {
        let gpu = TrainedEmbedder::on(Weights::bundled().unwrap(), &device, Some(precision)).unwrap();
        let found = gpu.embed(&crops).unwrap();
        assert_eq!(found.len(), expected.len());
        let farthest = found.iter().zip(&expected).map(|(a, b)| a.distance(b)).fold(0.0, f32::max);
        assert!(farthest <= within, "{precision:?}: {farthest}");
    }
}
