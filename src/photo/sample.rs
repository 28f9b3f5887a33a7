//! Affine sampling without aliasing: a square of pixels from anywhere in a photo, at any angle.
//!
//! A coordinate is that of a pixel's centre: the first pixel is at 0, 0. Beyond its edges a photo goes on with its border pixels, as in
//! the crops that models are trained on.

use super::Photo;
use super::pixels::Pixels;

/// From output pixels to photo pixels: `x' = scale * x - turn * y + x0`, `y' = turn * x + scale * y + y0`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Similarity {
    /// Photo pixels for a step of one output pixel, times the cosine of the angle.
    pub(crate) scale: f32,
    /// The same, times the sine.
    pub(crate) turn: f32,
    /// Where output pixel 0, 0 lies in the photo.
    pub(crate) origin: [f32; 2],
}

impl Similarity {
    pub(crate) fn apply(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        let Self { scale, turn, origin: [x0, y0] } = *self;
        [scale * x - turn * y + x0, turn * x + scale * y + y0]
    }

    /// Photo pixels for a step of one output pixel.
    fn step(&self) -> f32 {
        self.scale.hypot(self.turn)
    }
}

/// Samples `side * side` RGB pixels, rows from the top.
///
/// While an output pixel spans more than two photo pixels, the part of the photo that is needed is halved by 2 x 2 boxes; what is left is
/// averaged over 2 x 2 bilinear samples. So every photo pixel counts, and a large face does not alias.
pub(crate) fn warp(photo: &Photo, map: &Similarity, side: usize) -> Vec<u8> {
    let (mut map, mut pixels) = (*map, Pixels::of(photo));
    if map.step() > 2.0 {
        let [left, top, right, bottom] = part_under(&pixels, &map, side);
        pixels = pixels.part(left, top, right, bottom);
        map.origin = [map.origin[0] - left as f32, map.origin[1] - top as f32];
    }
    while map.step() > 2.0 && pixels.width().max(pixels.height()) > 1 {
        pixels = pixels.halved();
        // The centre of a halved pixel lies between the two that it came from.
        let origin = map.origin.map(|at| (at - 0.5) / 2.0);
        map = Similarity { scale: map.scale / 2.0, turn: map.turn / 2.0, origin };
    }
    sample(&pixels, &map, side)
}

fn sample(pixels: &Pixels<'_>, map: &Similarity, side: usize) -> Vec<u8> {
    let offsets: &[[f32; 2]] = match map.step() > 1.0 {
        true => &[[-0.25, -0.25], [0.25, -0.25], [-0.25, 0.25], [0.25, 0.25]],
        false => &[[0.0, 0.0]],
    };
    let mut out = Vec::with_capacity(side * side * 3);
    for y in 0..side {
        for x in 0..side {
            let mut sum = [0.0; 3];
            for [dx, dy] in offsets {
                let value = bilinear(pixels, map.apply([x as f32 + dx, y as f32 + dy]));
                sum.iter_mut().zip(value).for_each(|(sum, value)| *sum += value);
            }
            out.extend(sum.map(|sum| (sum / offsets.len() as f32 + 0.5) as u8));
        }
    }
    out
}

fn bilinear(pixels: &Pixels<'_>, [x, y]: [f32; 2]) -> [f32; 3] {
    let x = x.clamp(0.0, (pixels.width() - 1) as f32);
    let y = y.clamp(0.0, (pixels.height() - 1) as f32);
    let (left, top) = (x as usize, y as usize);
    let (right, bottom) = ((left + 1).min(pixels.width() - 1), (top + 1).min(pixels.height() - 1));
    let (across, down) = (x - left as f32, y - top as f32);
    let (a, b) = (pixels.at(left, top), pixels.at(right, top));
    let (c, d) = (pixels.at(left, bottom), pixels.at(right, bottom));
    std::array::from_fn(|i| {
        let upper = f32::from(a[i]) + (f32::from(b[i]) - f32::from(a[i])) * across;
        let lower = f32::from(c[i]) + (f32::from(d[i]) - f32::from(c[i])) * across;
        upper + (lower - upper) * down
    })
}

/// Left, top, right and bottom of what a crop needs, two steps of margin included, within the photo; at least one pixel.
fn part_under(pixels: &Pixels<'_>, map: &Similarity, side: usize) -> [usize; 4] {
    let last = side as f32;
    let corners = [[0.0, 0.0], [last, 0.0], [0.0, last], [last, last]].map(|corner| map.apply(corner));
    let margin = 2.0 * map.step();
    let range = |axis: usize, pixels: usize| {
        let ends = corners.map(|corner| corner[axis]);
        let low = ends.iter().copied().fold(f32::INFINITY, f32::min) - margin;
        let high = ends.iter().copied().fold(f32::NEG_INFINITY, f32::max) + margin;
        let start = (low.max(0.0) as usize).min(pixels - 1);
        (start, (high.max(0.0) as usize).saturating_add(1).clamp(start + 1, pixels))
    };
    let ((left, right), (top, bottom)) = (range(0, pixels.width()), range(1, pixels.height()));
    [left, top, right, bottom]
}

#[cfg(test)]
mod tests {
    use super::{Similarity, warp};
    use crate::Photo;

    fn photo(side: u32, value: impl Fn(u32, u32) -> u8) -> Photo {
        let pixels = (0..side * side).flat_map(|i| [value(i % side, i / side); 3]).collect();
        Photo::from_rgb(side, side, pixels).expect("three bytes a pixel")
    }

    #[test]
    fn a_step_of_one_copies() {
        let photo = photo(8, |x, y| (x * 16 + y * 3) as u8);
        let map = Similarity { scale: 1.0, turn: 0.0, origin: [0.0, 0.0] };
        assert_eq!(warp(&photo, &map, 8), photo.pixels());
    }

    #[test]
    fn a_quarter_turn_turns() {
        let photo = photo(4, |x, y| (x * 16 + y * 3) as u8);
        let map = Similarity { scale: 0.0, turn: 1.0, origin: [3.0, 0.0] };
        let turned = warp(&photo, &map, 4);
        for (index, pixel) in turned.as_chunks::<3>().0.iter().enumerate() {
            let (x, y) = (index as u32 % 4, index as u32 / 4);
            assert_eq!(u32::from(pixel[0]), (3 - y) * 16 + x * 3);
        }
    }

    #[test]
    fn fine_stripes_become_grey_and_not_coarse_stripes() {
        for step in [2.0, 2.3, 3.1, 4.0, 7.7] {
            let photo = photo(400, |x, _| if x % 2 == 0 { 0 } else { 255 });
            let map = Similarity { scale: step, turn: 0.0, origin: [20.0, 20.0] };
            let warped = warp(&photo, &map, 40);
            let far = warped.iter().map(|value| value.abs_diff(128)).max();
            assert!(far <= Some(20), "{far:?} from grey at a step of {step}");
        }
    }

    #[test]
    fn a_large_face_lands_where_a_small_one_does() {
        // A ramp is the same at every size, so the halving must not move it.
        let photo = photo(256, |x, _| x as u8);
        for step in [1.0, 1.9, 2.1, 4.2, 8.4] {
            let map = Similarity { scale: step, turn: 0.0, origin: [10.0, 10.0] };
            let warped = warp(&photo, &map, 20);
            for (x, pixel) in warped.as_chunks::<3>().0.iter().take(20).enumerate() {
                let expected = 10.0 + step * x as f32;
                assert!((f32::from(pixel[0]) - expected).abs() <= 1.0, "{} at {x}, expected {expected}", pixel[0]);
            }
        }
    }

    #[test]
    fn far_outside_is_the_border() {
        let photo = photo(8, |x, y| if x == 7 && y == 7 { 200 } else { 10 });
        for step in [0.5, 3.0, 1e6] {
            let map = Similarity { scale: step, turn: 0.0, origin: [1e9, 1e9] };
            let warped = warp(&photo, &map, 4);
            let expected = if step > 2.0 { 10..=200 } else { 200..=200 };
            assert!(warped.iter().all(|value| expected.contains(value)), "{warped:?}");
        }
    }
}
