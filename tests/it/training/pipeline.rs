//! The way of a crop into a step: the network's input, and what a run does with a crop that can't be read.

use candle_core::Device;
use proptest::prelude::*;
use vultus::Crop;
use vultus::model::network::input;
use vultus::training::data::LabelledCrops;
use vultus::training::sampler::Batches;
use vultus::training::{Output, Stage, train};

use super::{Silent, data_folder, random_crops, recipe, tiny};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn the_input_is_the_mean_of_each_cell_from_minus_one_to_one(
        side in prop::sample::select(vec![1usize, 2, 4, 7, 8, 14, 16, 28, 56, 112]),
        count in 0usize..7,
        seed in any::<u64>(),
    ) {
        let crops = random_crops(count, seed);
        let x = input(&crops, side, &Device::Cpu).unwrap();
        prop_assert_eq!(x.dims(), &[count, side, side, 3]);
        let step = Crop::SIDE / side;
        let x = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (at, found) in x.iter().enumerate() {
            let (crop, y, x, channel) = (at / (side * side * 3), at / (side * 3) % side, at / 3 % side, at % 3);
            let pixel = |i: usize, j: usize| crops[crop].pixels()[((y * step + i) * 112 + x * step + j) * 3 + channel];
            let cells = (0..step * step).map(|cell| f64::from(pixel(cell / step, cell % step)));
            let expected = cells.sum::<f64>() / (step * step) as f64 / 127.5 - 1.0;
            prop_assert!((f64::from(*found) - expected).abs() < 1e-6, "{} instead of {}", found, expected);
        }
    }
}

#[test]
fn an_input_side_that_does_not_divide_is_refused() {
    for side in [0, 3, 113] {
        let message = input(&random_crops(1, 1), side, &Device::Cpu).unwrap_err().to_string();
        assert!(message.contains(&format!("input side {side}")), "{message}");
    }
}

#[test]
fn a_crop_that_cannot_be_read_ends_the_run_with_its_name() {
    let folder = data_folder();
    std::fs::write(folder.path().join("aa3/9.jpg"), b"no picture").unwrap();
    let data = LabelledCrops::read(&[folder.path().to_owned()], 2).unwrap();
    let batch = Batches { people: 6, crops: 4, ..Batches::default() };
    let recipe = recipe(Stage { batch, ..tiny() });
    for data_threads in [1, 2, 5] {
        let checkpoint = folder.path().join(format!("{data_threads}.checkpoint"));
        let output = Output {
            checkpoint,
            checkpoint_every: 100,
            evaluate_every: 100,
            held_out: String::new(),
            data_threads,
            device: Device::Cpu,
        };
        let message = train(&recipe, &output, &data, None, &false.into(), &mut Silent).err().unwrap().to_string();
        assert!(message.contains("aa3/9.jpg"), "{message}");
    }
}
