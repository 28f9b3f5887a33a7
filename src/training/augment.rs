//! The same face, seen a little differently: what a crop may go through before it is trained on.

use std::ops::Range;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::face::{mirror, template};
use crate::photo::Limits;
use crate::photo::sample::{Similarity, warp};
use crate::{Crop, Error, Photo, Result};

/// How far a crop may be changed. Every draw comes from the generator that is passed in.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
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
    /// Chance of a crop that was compressed to a JPEG of some quality.
    pub jpeg: f32,
    /// Chance of a rectangle without a face: "random erasing", Zhong et al. 2020 (arXiv:1708.04896).
    pub erase: f32,
}

impl Default for Augmentation {
    fn default() -> Self {
        Self {
            flip: 0.5,
            shift_px: 4.0,
            scale: 0.06,
            turn: 5.0,
            color: 0.25,
            grey: 0.05,
            blur: 0.2,
            jpeg: 0.1,
            erase: 0.1,
        }
    }
}

/// Pixels on a side that a blurred crop is made from.
const BLURRED_SIDES: Range<usize> = 28..72;

/// Qualities of compressed crops.
const QUALITIES: Range<u8> = 10..80;

/// Sides of erased rectangles, in pixels.
const ERASED_SIDES: Range<usize> = 16..56;

impl Augmentation {
    pub(super) fn check(&self) -> Result<()> {
        let chances = [("flip", self.flip), ("grey", self.grey), ("blur", self.blur)];
        let files = [("jpeg", self.jpeg), ("erase", self.erase)];
        let amounts = [("shift_px", self.shift_px, 56.0), ("scale", self.scale, 0.9), ("turn", self.turn, 180.0)];
        let chances = chances.into_iter().chain(files).map(|(name, chance)| (name, chance, 1.0));
        for (name, value, most) in chances.chain(amounts).chain([("color", self.color, 1.0)]) {
            if !(0.0..=most).contains(&value) {
                return Err(Error::argument(name, format!("{value}: expected 0 to {most}")));
            }
        }
        Ok(())
    }

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
        if rng.random::<f32>() < self.jpeg {
            let side = Crop::SIDE as u32;
            let file = Photo::from_rgb(side, side, pixels)?.to_jpeg(rng.random_range(QUALITIES))?;
            pixels = Photo::decode(&file, &Limits::default())?.pixels().to_vec();
        }
        if rng.random::<f32>() < self.flip {
            mirror(&mut pixels);
        }
        if rng.random::<f32>() < self.erase {
            erase(&mut pixels, rng);
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

/// Puts one colour in a rectangle.
fn erase(pixels: &mut [u8], rng: &mut ChaCha8Rng) {
    let [width, height] = [rng.random_range(ERASED_SIDES), rng.random_range(ERASED_SIDES)];
    let [left, top] = [rng.random_range(0..=Crop::SIDE - width), rng.random_range(0..=Crop::SIDE - height)];
    let color: [u8; 3] = rng.random();
    for row in pixels.chunks_exact_mut(Crop::SIDE * 3).skip(top).take(height) {
        row[left * 3..(left + width) * 3].as_chunks_mut().0.fill(color);
    }
}
