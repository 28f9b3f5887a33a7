//! The same face, seen a little differently: what a crop may go through before it is trained on.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::data::template;
use crate::photo::sample::{Similarity, warp};
use crate::{Crop, Photo, Result};

/// How far a crop may be changed. Every draw comes from the generator that is passed in.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Augmentation {
    /// Chance of a mirror image.
    pub flip: f32,
    /// Largest shift, in pixels of the 112 x 112 crop.
    pub shift_px: f32,
    /// Largest change of scale, as a fraction.
    pub scale: f32,
    /// Largest rotation, in degrees.
    pub turn: f32,
    /// Largest change of brightness, contrast and saturation, as a fraction.
    pub color: f32,
    /// Chance of a grey crop.
    pub grey: f32,
    /// Chance of a crop from fewer pixels.
    pub blur: f32,
}

impl Default for Augmentation {
    fn default() -> Self {
        Self { flip: 0.5, shift_px: 4.0, scale: 0.06, turn: 5.0, color: 0.25, grey: 0.05, blur: 0.2 }
    }
}

/// Pixels on a side that a blurred crop is made from.
const BLURRED_SIDES: std::ops::Range<usize> = 28..72;

impl Augmentation {
    /// One changed crop.
    ///
    /// # Errors
    /// Never in practice: only if a crop of 112 x 112 could not be made.
    pub fn apply(&self, photo: &Photo, rng: &mut ChaCha8Rng) -> Result<Crop> {
        let map = self.place(&template(photo), rng);
        let mut pixels = match rng.random::<f32>() < self.blur {
            true => {
                let side = rng.random_range(BLURRED_SIDES);
                let small = warp(photo, &zoom(&map, Crop::SIDE as f32 / side as f32), side);
                let small = Photo::from_rgb(side as u32, side as u32, small)?;
                let whole = Similarity { scale: 1.0, turn: 0.0, origin: [0.0, 0.0] };
                warp(&small, &zoom(&whole, side as f32 / Crop::SIDE as f32), Crop::SIDE)
            }
            false => warp(photo, &map, Crop::SIDE),
        };
        self.recolor(&mut pixels, rng);
        if rng.random::<f32>() < self.flip {
            mirror(&mut pixels);
        }
        Crop::from_rgb(pixels)
    }

    /// `base`, moved, scaled and turned about the middle of the crop.
    fn place(&self, base: &Similarity, rng: &mut ChaCha8Rng) -> Similarity {
        let mut within = |limit: f32| limit * rng.random_range(-1.0..=1.0f32);
        let (scale, angle) = (1.0 + within(self.scale), within(self.turn).to_radians());
        let shift = [within(self.shift_px), within(self.shift_px)];
        let (cos, sin) = (scale * angle.cos(), scale * angle.sin());
        let (a, b) = (base.scale * cos - base.turn * sin, base.scale * sin + base.turn * cos);
        let middle = (Crop::SIDE - 1) as f32 / 2.0;
        let [x, y] = base.apply([middle + shift[0], middle + shift[1]]);
        Similarity { scale: a, turn: b, origin: [x - (a - b) * middle, y - (a + b) * middle] }
    }

    fn recolor(&self, pixels: &mut [u8], rng: &mut ChaCha8Rng) {
        let mut factor = || 1.0 + self.color * rng.random_range(-1.0..=1.0f32);
        let (brightness, contrast, saturation) = (factor(), factor(), factor());
        let saturation = if rng.random::<f32>() < self.grey { 0.0 } else { saturation };
        for pixel in pixels.chunks_exact_mut(3) {
            let grey = 0.299 * f32::from(pixel[0]) + 0.587 * f32::from(pixel[1]) + 0.114 * f32::from(pixel[2]);
            for byte in pixel {
                let value = grey + (f32::from(*byte) - grey) * saturation;
                // `as` clamps to 0 to 255.
                *byte = (((value * brightness) - 128.0) * contrast + 128.0).round() as u8;
            }
        }
    }
}

/// The same area sampled with steps `factor` times as long.
fn zoom(map: &Similarity, factor: f32) -> Similarity {
    let corner = map.apply([(factor - 1.0) / 2.0, (factor - 1.0) / 2.0]);
    Similarity { scale: map.scale * factor, turn: map.turn * factor, origin: corner }
}

fn mirror(pixels: &mut [u8]) {
    for row in pixels.chunks_exact_mut(Crop::SIDE * 3) {
        for x in 0..Crop::SIDE / 2 {
            for channel in 0..3 {
                row.swap(x * 3 + channel, (Crop::SIDE - 1 - x) * 3 + channel);
            }
        }
    }
}
