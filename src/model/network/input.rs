//! Crops to what the network reads: averaged down, scaled, on its device.

use candle_core::{DType, Device, Result, Tensor, bail};
use rayon::prelude::*;

use crate::Crop;

/// Crops as the network's input: averaged down to `side`, scaled to -1 to 1; `(batch, side, side, 3)`, `f32`, on `device`.
///
/// The bytes are what travels to another device; there they are averaged by the same sums.
///
/// # Errors
/// When `side` does not divide 112, or the device fails.
pub fn input(crops: &[Crop], side: usize, device: &Device) -> Result<Tensor> {
    if side == 0 || !Crop::SIDE.is_multiple_of(side) {
        bail!("input side {side}: expected a divisor of 112");
    }
    let step = Crop::SIDE / side;
    let scale = 1.0 / (127.5 * (step * step) as f32);
    if device.is_cpu() {
        let mut values = vec![0.0; crops.len() * side * side * 3];
        let rows = values.par_chunks_exact_mut(side * side * 3).zip(crops).with_min_len(CROPS);
        rows.for_each(|(values, crop)| average(crop, side, scale, values));
        return Tensor::from_vec(values, (crops.len(), side, side, 3), device);
    }
    averaged_there(crops, side, scale, device)
}

/// Averages on another device by adding slices: candle's sums there take a block of threads for each output.
fn averaged_there(crops: &[Crop], side: usize, scale: f32, device: &Device) -> Result<Tensor> {
    let step = Crop::SIDE / side;
    let mut bytes = Vec::with_capacity(crops.len() * Crop::SIDE * Crop::SIDE * 3);
    crops.iter().for_each(|crop| bytes.extend_from_slice(crop.pixels()));
    let cells = Tensor::from_vec(bytes, (crops.len() * side, step, side, step, 3), device)?.to_dtype(DType::F32)?;
    let sum = |cells: &Tensor, dim| {
        (1..step).try_fold(cells.get_on_dim(dim, 0)?, |sum, at| sum + cells.get_on_dim(dim, at)?)
    };
    let sums = sum(&sum(&cells, 1)?, 2)?.reshape((crops.len(), side, side, 3))?;
    sums.affine(f64::from(scale), -1.0)
}

/// Crops that one task averages at least: fewer are done sooner than another thread wakes.
const CROPS: usize = 4;

/// Rows are added first, in one long loop; what is left are sums of a few neighbours.
fn average(crop: &Crop, side: usize, scale: f32, values: &mut [f32]) {
    let (step, row) = (Crop::SIDE / side, Crop::SIDE * 3);
    let mut sums = vec![0u16; row];
    for (values, rows) in values.chunks_exact_mut(side * 3).zip(crop.pixels().chunks_exact(step * row)) {
        sums.fill(0);
        for row in rows.chunks_exact(row) {
            sums.iter_mut().zip(row).for_each(|(sum, byte)| *sum += u16::from(*byte));
        }
        for (values, cells) in values.chunks_exact_mut(3).zip(sums.chunks_exact(step * 3)) {
            let mut pixel = [0u32; 3];
            for cell in cells.as_chunks::<3>().0 {
                pixel.iter_mut().zip(cell).for_each(|(sum, value)| *sum += u32::from(*value));
            }
            values.iter_mut().zip(pixel).for_each(|(value, sum)| *value = sum as f32 * scale - 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn crops_are_averaged_to_the_same_numbers_on_every_device() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let mut crop = || Crop::from_rgb((0..Crop::SIDE * Crop::SIDE * 3).map(|_| rng.random()).collect()).unwrap();
        let crops = [crop(), crop(), crop()];
        for side in [112, 56, 28, 16, 14] {
            let scale = 1.0 / (127.5 * ((Crop::SIDE / side) as f32).powi(2));
            let there = averaged_there(&crops, side, scale, &Device::Cpu).unwrap();
            let error = (there - input(&crops, side, &Device::Cpu).unwrap()).unwrap().abs().unwrap();
            assert!(error.max_all().unwrap().to_scalar::<f32>().unwrap() < 1e-6, "side {side}");
        }
    }
}
