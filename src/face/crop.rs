//! One face, cut out of its photo.

use std::fmt;

use crate::photo::sample::{Similarity, warp};
use crate::{Error, Photo, Result};

/// One face, aligned: 112 x 112 RGB.
#[derive(Clone, PartialEq, Eq)]
pub struct Crop(Vec<u8>);

impl Crop {
    /// Pixels on a side.
    pub const SIDE: usize = 112;

    /// Takes `112 * 112 * 3` bytes, rows from the top.
    ///
    /// # Errors
    /// [`Error::Argument`] for any other length.
    pub fn from_rgb(pixels: Vec<u8>) -> Result<Self> {
        if pixels.len() != Self::SIDE * Self::SIDE * 3 {
            let what = format!("a crop is 112 x 112 RGB, 37632 bytes; found {}", pixels.len());
            return Err(Error::argument("crop", what));
        }
        Ok(Self(pixels))
    }

    /// Takes a square photo of a face that lies on the usual five-point template already.
    ///
    /// 112 x 112 is the template itself; any other side is read as the template with a sixteenth of the side as margin all round (128 x 128, or
    /// 64 x 64 where there were few pixels).
    pub fn from_aligned(photo: &Photo) -> Self {
        Self::cut(photo, &template(photo))
    }

    /// - `map`: from the crop's pixels to the photo's.
    pub(super) fn cut(photo: &Photo, map: &Similarity) -> Self {
        Self(warp(photo, map, Self::SIDE))
    }

    /// Left and right exchanged.
    #[must_use]
    pub fn mirrored(&self) -> Self {
        let mut pixels = self.0.clone();
        mirror(&mut pixels);
        Self(pixels)
    }

    /// The bytes, `(112, 112, 3)`.
    pub fn pixels(&self) -> &[u8] {
        &self.0
    }

    /// The crop as a photo of its own, to be shown or written.
    ///
    /// # Errors
    /// None that a crop can cause: its pixels are as many as its sides say.
    pub fn to_photo(&self) -> Result<Photo> {
        let side = Self::SIDE as u32;
        Photo::from_rgb(side, side, self.0.clone())
    }
}

/// Exchanges left and right of a crop's pixels.
pub(crate) fn mirror(pixels: &mut [u8]) {
    for row in pixels.chunks_exact_mut(Crop::SIDE * 3) {
        row.as_chunks_mut::<3>().0.reverse();
    }
}

/// Where the pixels of the 112 x 112 template lie in a photo that is aligned.
pub(crate) fn template(photo: &Photo) -> Similarity {
    let side = photo.width().min(photo.height()) as f32;
    let margin = if side as usize == Crop::SIDE { 0.0 } else { side / 16.0 };
    let scale = (side - 2.0 * margin) / Crop::SIDE as f32;
    let origin = margin + 0.5 * scale - 0.5;
    Similarity { scale, turn: 0.0, origin: [origin, origin] }
}

impl fmt::Debug for Crop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crop({0} x {0})", Self::SIDE)
    }
}
