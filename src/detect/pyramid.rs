//! One photo at many sizes: what the nets look at.
//!
//! Halved copies are made once, and every size is averaged from the smallest copy that still has two pixels for each of its own: a
//! size then costs what it holds, not what the photo holds.

use super::nets::Maps;
use crate::Photo;
use crate::photo::pixels::{Beyond, Pixels, Window};

/// A photo and its halved copies.
pub(super) struct Pyramid<'a> {
    /// Each half as large as the one before.
    levels: Vec<Pixels<'a>>,
    /// Pixels of the photo for one of the first level; above 1 for a large photo.
    reduction: f32,
}

impl<'a> Pyramid<'a> {
    /// A photo longer than `side_px_max` on a side is scaled down to that first.
    pub(super) fn new(photo: &'a Photo, side_px_max: u32) -> Self {
        let whole = Pixels::of(photo);
        let (side, side_max) = (photo.width().max(photo.height()) as f32, side_px_max as f32);
        let first = match side > side_max {
            true => {
                let shrunk = |side: usize| ((side as f32 * side_max / side_of(&whole)).round() as usize).max(1);
                whole.resized(shrunk(whole.width()), shrunk(whole.height()))
            }
            false => whole,
        };
        let mut levels = vec![first];
        while let Some(last) = levels.last().filter(|last| last.width().min(last.height()) >= 24) {
            let halved = last.halved();
            levels.push(halved);
        }
        Self { levels, reduction: (side / side_max).max(1.0) }
    }

    /// Pixels of the photo for one of the pyramid's.
    pub(super) fn reduction(&self) -> f32 {
        self.reduction
    }

    /// Width and height of the largest size.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.levels[0].width(), self.levels[0].height())
    }

    /// The whole photo at `scale`, rounded up to whole pixels: `(1, height, width, 3)`, as the nets want it.
    pub(super) fn at_scale(&self, scale: f32) -> Maps {
        let (width, height) = self.size();
        let scaled = |side: usize| (side as f32 * scale).ceil() as usize;
        let (width_out, height_out) = (scaled(width), scaled(height));
        let window = Window { x: 0.0, y: 0.0, width: width as f32, height: height as f32 };
        let mut values = Vec::with_capacity(width_out * height_out * 3);
        self.average(&window, width_out, height_out, Beyond::Border, &mut values);
        maps(values, [1, height_out, width_out, 3])
    }

    /// Parts of the photo at `side * side` each, black beyond the edges: `(windows, side, side, 3)`.
    pub(super) fn windows(&self, windows: &[Window], side: usize) -> Maps {
        let mut values = Vec::with_capacity(windows.len() * side * side * 3);
        for window in windows {
            self.average(window, side, side, Beyond::Black, &mut values);
        }
        maps(values, [windows.len(), side, side, 3])
    }

    fn average(&self, window: &Window, width: usize, height: usize, beyond: Beyond, values: &mut Vec<f32>) {
        let step = (window.width / width as f32).min(window.height / height as f32);
        let level = (step.max(2.0).log2() as usize - 1).min(self.levels.len() - 1);
        let scale = 1.0 / (1 << level) as f32;
        let [x, y, wide, high] = [window.x, window.y, window.width, window.height].map(|value| value * scale);
        self.levels[level].average(&Window { x, y, width: wide, height: high }, width, height, beyond, values);
    }
}

fn side_of(pixels: &Pixels<'_>) -> f32 {
    pixels.width().max(pixels.height()) as f32
}

fn maps(mut values: Vec<f32>, shape: [usize; 4]) -> Maps {
    values.iter_mut().for_each(|value| *value = (*value - 127.5) / 128.0);
    Maps { values, shape }
}
