//! Face → crop: by its landmarks, or by its box alone.
//!
//! Source: Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991. In the plane
//! and without mirroring its solution is one complex division.

use super::{Bounds, Crop, Face, Landmarks};
use crate::photo::sample::{Similarity, warp};
use crate::{Photo, Result};

/// How a face becomes a crop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alignment {
    /// Least-squares similarity of the five landmarks to the usual 112 x 112 template ([`Landmarks::TEMPLATE`]).
    #[default]
    Landmarks,
    /// The detector's box alone, as in the FaceNet paper (section 4.1: "tight crop"), made square around its middle.
    Tight,
}

/// Side of the tight crop, in longer sides of the box.
const TIGHT_SIDES: f32 = 1.1;

/// Pixels of a side of a crop with a sixteenth of it as margin on both ends.
const SIDE_WITH_MARGIN: usize = Crop::SIDE / 14 * 16;

impl Alignment {
    /// Cuts one face out of its photo; what lies beyond the photo's edges continues its border pixels.
    ///
    /// Never fails: landmarks that determine no similarity (all equal, not finite) fall back to the box, and such a box
    /// to the whole photo.
    pub fn crop(self, photo: &Photo, face: &Face) -> Crop {
        Crop::cut(photo, &self.map(photo, face))
    }

    /// The same with a sixteenth of the side as margin all round, 128 x 128 pixels: what [`Crop::from_aligned`] reads, and training, which turns
    /// and shifts crops, needs.
    ///
    /// # Errors
    /// None that a photo or a face can cause: its pixels are as many as its sides say.
    pub fn crop_with_margin(self, photo: &Photo, face: &Face) -> Result<Photo> {
        let map = self.map(photo, face);
        let margin = (SIDE_WITH_MARGIN - Crop::SIDE) as f32 / 2.0;
        let wide = Similarity { origin: map.apply([-margin; 2]), ..map };
        let side = SIDE_WITH_MARGIN as u32;
        Photo::from_rgb(side, side, warp(photo, &wide, SIDE_WITH_MARGIN))
    }

    /// From the crop's pixels to the photo's.
    fn map(self, photo: &Photo, face: &Face) -> Similarity {
        match self {
            Self::Landmarks => from_landmarks(&face.landmarks).unwrap_or_else(|| from_bounds(photo, &face.bounds)),
            Self::Tight => from_bounds(photo, &face.bounds),
        }
    }
}

/// The similarity from template to photo that is the inverse of the least-squares one from photo to template.
fn from_landmarks(landmarks: &Landmarks) -> Option<Similarity> {
    let (found, template) =
        (landmarks.0.map(|at| at.map(f64::from)), Landmarks::TEMPLATE.0.map(|at| at.map(f64::from)));
    let mean = |points: &[[f64; 2]; 5], axis: usize| points.iter().map(|at| at[axis]).sum::<f64>() / 5.0;
    let (found_mean, template_mean) = ([mean(&found, 0), mean(&found, 1)], [mean(&template, 0), mean(&template, 1)]);

    // `z * a = w` in least squares, with points as complex numbers around their means: a = sum(conj(z) * w) / sum(|z|^2).
    let (mut real, mut imaginary, mut spread) = (0.0, 0.0, 0.0);
    for (z, w) in found.iter().zip(&template) {
        let (zx, zy) = (z[0] - found_mean[0], z[1] - found_mean[1]);
        let (wx, wy) = (w[0] - template_mean[0], w[1] - template_mean[1]);
        real += zx * wx + zy * wy;
        imaginary += zx * wy - zy * wx;
        spread += zx * zx + zy * zy;
    }
    let length = real * real + imaginary * imaginary;
    // The inverse is 1 / a = conj(a) / |a|^2, where `spread` cancels once.
    let (scale, turn) = (real * spread / length, -imaginary * spread / length);
    let origin = [
        found_mean[0] - (scale * template_mean[0] - turn * template_mean[1]),
        found_mean[1] - (turn * template_mean[0] + scale * template_mean[1]),
    ];
    // A hundredth of a photo pixel a step, and a thousand of them, are no faces.
    let sensible = (1e-2..=1e3).contains(&scale.hypot(turn)) && origin.iter().all(|at| at.is_finite());
    sensible.then(|| Similarity { scale: scale as f32, turn: turn as f32, origin: origin.map(|at| at as f32) })
}

/// A square around the middle of the box.
fn from_bounds(photo: &Photo, bounds: &Bounds) -> Similarity {
    let whole = Bounds { x: 0.0, y: 0.0, width: photo.width() as f32, height: photo.height() as f32 };
    // No photo is a million pixels wide; boxes beyond that would overflow what follows.
    let reach = [bounds.width, bounds.height].into_iter().chain(bounds.center().map(f32::abs));
    let bounds = if bounds.is_proper() && reach.fold(0.0, f32::max) <= 1e6 { bounds } else { &whole };
    let side = bounds.width.max(bounds.height) * TIGHT_SIDES;
    let step = side / Crop::SIDE as f32;
    // Pixel 0 of the crop has its centre half a step inside the square, as a photo's pixel 0 has in the photo.
    let origin = bounds.center().map(|middle| middle - side / 2.0 + step / 2.0 - 0.5);
    Similarity { scale: step, turn: 0.0, origin }
}
