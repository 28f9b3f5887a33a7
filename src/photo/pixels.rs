//! RGB pixels, a photo's own or made from it, and averaging them to other sizes.
//!
//! An average weighs each pixel by the area it covers. That is what OpenCV calls `INTER_AREA`, and what the detector's
//! weights were used with.

use std::borrow::Cow;

use super::Photo;

/// Rows of RGB from the top; at least one pixel.
#[derive(Debug)]
pub(crate) struct Pixels<'a> {
    width: usize,
    height: usize,
    bytes: Cow<'a, [u8]>,
}

/// A rectangle in pixels, edges and not centres: the first pixel goes from 0 to 1. May reach beyond the pixels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) x: f32,
    pub(crate) y: f32,
    pub(crate) width: f32,
    pub(crate) height: f32,
}

/// What lies beyond the edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beyond {
    /// Nothing: only what is within counts.
    Border,
    /// Black.
    Black,
}

impl<'a> Pixels<'a> {
    pub(crate) fn of(photo: &'a Photo) -> Self {
        let (width, height) = (photo.width as usize, photo.height as usize);
        Self { width, height, bytes: Cow::Borrowed(&photo.pixels) }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes.into_owned()
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    pub(crate) fn height(&self) -> usize {
        self.height
    }

    pub(crate) fn at(&self, x: usize, y: usize) -> &[u8] {
        &self.bytes[(y * self.width + x) * 3..][..3]
    }

    /// A copy of columns `left..right` and rows `top..bottom`.
    pub(super) fn part(&self, left: usize, top: usize, right: usize, bottom: usize) -> Pixels<'static> {
        let rows = self.bytes.chunks_exact(self.width * 3).take(bottom).skip(top);
        let bytes = rows.flat_map(|row| &row[left * 3..right * 3]).copied().collect();
        Pixels { width: right - left, height: bottom - top, bytes: Cow::Owned(bytes) }
    }

    /// Averages of 2 x 2 boxes; an odd last row or column counts twice.
    pub(crate) fn halved(&self) -> Pixels<'static> {
        let (width, height) = (self.width.div_ceil(2), self.height.div_ceil(2));
        let mut bytes = Vec::with_capacity(width * height * 3);
        for rows in self.bytes.chunks(self.width * 6) {
            let (upper, lower) = rows.split_at(self.width * 3);
            let lower = if lower.is_empty() { upper } else { lower };
            for (a, b) in upper.chunks(6).zip(lower.chunks(6)) {
                // Three bytes on, or the same again at the end of an odd row.
                let next = a.len() - 3;
                for i in 0..3 {
                    let sum = [a[i], a[i + next], b[i], b[i + next]].map(u16::from).iter().sum::<u16>();
                    bytes.push(((sum + 2) / 4) as u8);
                }
            }
        }
        Pixels { width, height, bytes: Cow::Owned(bytes) }
    }

    /// All of it, averaged to another size of at least one pixel.
    pub(crate) fn resized(&self, width: usize, height: usize) -> Pixels<'static> {
        let whole = Window { x: 0.0, y: 0.0, width: self.width as f32, height: self.height as f32 };
        let mut values = Vec::with_capacity(width * height * 3);
        self.average(&whole, width, height, Beyond::Border, &mut values);
        let bytes = values.iter().map(|value| (value + 0.5) as u8).collect();
        Pixels { width, height, bytes: Cow::Owned(bytes) }
    }

    /// Pushes `height * width * 3` averages, 0 to 255, of the parts that a grid divides the window into.
    pub(crate) fn average(&self, window: &Window, width: usize, height: usize, beyond: Beyond, values: &mut Vec<f32>) {
        let columns = shares(window.x, window.width, width, self.width, beyond);
        let rows = shares(window.y, window.height, height, self.height, beyond);
        let left = columns.iter().map(|share| share.start).min().unwrap_or(0);
        let right = columns.iter().map(|share| share.start + share.weights.len()).max().unwrap_or(0);
        let mut sums = vec![0.0f32; (right - left) * 3];
        for row in &rows {
            sums.fill(0.0);
            for (y, weight) in (row.start..).zip(&row.weights) {
                let bytes = &self.bytes[(y * self.width + left) * 3..(y * self.width + right) * 3];
                sums.iter_mut().zip(bytes).for_each(|(sum, byte)| *sum += weight * f32::from(*byte));
            }
            for column in &columns {
                let mut pixel = [0.0; 3];
                let sums = sums[(column.start - left) * 3..].as_chunks::<3>().0;
                for (sum, weight) in sums.iter().zip(&column.weights) {
                    pixel.iter_mut().zip(sum).for_each(|(value, sum)| *value += weight * sum);
                }
                values.extend(pixel);
            }
        }
    }
}

/// How much the pixels of one row or column count for one output.
struct Share {
    start: usize,
    weights: Vec<f32>,
}

/// Divides `from..from + length` into `count` parts and says what each covers of `side` pixels.
fn shares(from: f32, length: f32, count: usize, side: usize, beyond: Beyond) -> Vec<Share> {
    let step = length / count as f32;
    let part = |index: usize| {
        let (low, high) = (from + index as f32 * step, from + (index + 1) as f32 * step);
        let (inner_low, inner_high) = (low.clamp(0.0, side as f32), high.clamp(0.0, side as f32));
        let start = (inner_low as usize).min(side - 1);
        let end = (inner_high.ceil() as usize).clamp(start + 1, side);
        let total = match beyond {
            Beyond::Border => inner_high - inner_low,
            Beyond::Black => step,
        };
        let covered = |pixel: usize| (inner_high.min((pixel + 1) as f32) - inner_low.max(pixel as f32)).max(0.0);
        let weights = match total > 0.0 {
            true => (start..end).map(|pixel| covered(pixel) / total).collect(),
            false => vec![1.0; 1],
        };
        Share { start, weights }
    };
    (0..count).map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::{Beyond, Pixels, Window};
    use crate::Photo;

    fn photo(width: u32, height: u32, values: &[u8]) -> Photo {
        Photo::from_rgb(width, height, values.iter().flat_map(|value| [*value; 3]).collect())
            .expect("three bytes a pixel")
    }

    #[track_caller]
    fn check(row: &[u8], x: f32, width: f32, count: usize, beyond: Beyond, expected: &[f32]) {
        let photo = photo(row.len() as u32, 1, row);
        let mut values = Vec::new();
        Pixels::of(&photo).average(&Window { x, y: 0.0, width, height: 1.0 }, count, 1, beyond, &mut values);
        let reds: Vec<f32> = values.iter().step_by(3).copied().collect();
        assert!(
            reds.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-3) && reds.len() == expected.len(),
            "{reds:?}"
        );
    }

    #[test]
    fn an_average_weighs_by_area() {
        check(&[0, 90, 30], 0.0, 3.0, 2, Beyond::Border, &[30.0, 50.0]);
        check(&[0, 90, 30], 0.0, 3.0, 1, Beyond::Border, &[40.0]);
    }

    #[test]
    fn growing_repeats_pixels_and_blends_where_they_meet() {
        check(&[0, 90], 0.0, 2.0, 3, Beyond::Border, &[0.0, 45.0, 90.0]);
    }

    #[test]
    fn beyond_the_edges_is_black_or_nothing() {
        check(&[60, 90], -1.0, 4.0, 2, Beyond::Black, &[30.0, 45.0]);
        check(&[60, 90], -1.0, 4.0, 2, Beyond::Border, &[60.0, 90.0]);
        check(&[60, 90], 5.0, 4.0, 2, Beyond::Black, &[0.0, 0.0]);
    }

    #[test]
    fn halving_keeps_odd_ends() {
        let photo = photo(3, 3, &[0, 4, 8, 8, 12, 16, 100, 104, 50]);
        let halved = Pixels::of(&photo).halved();
        assert_eq!((halved.width(), halved.height()), (2, 2));
        let reds: Vec<u8> = halved.bytes.iter().step_by(3).copied().collect();
        assert_eq!(reds, [6, 12, 102, 50]);
    }
}
