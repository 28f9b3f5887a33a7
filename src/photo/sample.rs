//! Pixels from pixels without aliasing: area averaging to a size, and affine sampling for crops.
//!
//! A coordinate is that of a pixel's centre: the first pixel is at 0, 0. Beyond its edges a photo goes on with its border pixels, as in
//! the crops that models are trained on.

use super::Photo;

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
    let mut map = *map;
    if map.step() <= 2.0 {
        return sample(&Pixels::of(photo), &map, side);
    }
    let mut part = Part::around(photo, &map, side);
    map.origin = [map.origin[0] - part.x as f32, map.origin[1] - part.y as f32];
    while map.step() > 2.0 && part.width.min(part.height) > 1 {
        part.halve();
        // The centre of a halved pixel lies between the two that it came from.
        map =
            Similarity { scale: map.scale / 2.0, turn: map.turn / 2.0, origin: map.origin.map(|at| (at - 0.5) / 2.0) };
    }
    sample(&Pixels { width: part.width, height: part.height, bytes: &part.bytes }, &map, side)
}

struct Pixels<'a> {
    width: usize,
    height: usize,
    bytes: &'a [u8],
}

impl<'a> Pixels<'a> {
    fn of(photo: &'a Photo) -> Self {
        Self { width: photo.width as usize, height: photo.height as usize, bytes: &photo.pixels }
    }

    fn bilinear(&self, [x, y]: [f32; 2]) -> [f32; 3] {
        let x = x.clamp(0.0, (self.width - 1) as f32);
        let y = y.clamp(0.0, (self.height - 1) as f32);
        let (left, top) = (x as usize, y as usize);
        let (right, bottom) = ((left + 1).min(self.width - 1), (top + 1).min(self.height - 1));
        let (across, down) = (x - left as f32, y - top as f32);
        let at = |x: usize, y: usize| &self.bytes[(y * self.width + x) * 3..][..3];
        let (a, b, c, d) = (at(left, top), at(right, top), at(left, bottom), at(right, bottom));
        std::array::from_fn(|i| {
            let upper = f32::from(a[i]) + (f32::from(b[i]) - f32::from(a[i])) * across;
            let lower = f32::from(c[i]) + (f32::from(d[i]) - f32::from(c[i])) * across;
            upper + (lower - upper) * down
        })
    }
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
                let value = pixels.bilinear(map.apply([x as f32 + dx, y as f32 + dy]));
                sum.iter_mut().zip(value).for_each(|(sum, value)| *sum += value);
            }
            out.extend(sum.map(|sum| (sum / offsets.len() as f32 + 0.5) as u8));
        }
    }
    out
}

/// The rectangle of a photo that a crop needs, copied, so that it can be halved.
struct Part {
    x: usize,
    y: usize,
    width: usize,
    height: usize,
    bytes: Vec<u8>,
}

impl Part {
    /// What lies under the crop, and a step more, within the photo; at least one pixel.
    fn around(photo: &Photo, map: &Similarity, side: usize) -> Self {
        let last = side as f32;
        let corners = [[0.0, 0.0], [last, 0.0], [0.0, last], [last, last]].map(|corner| map.apply(corner));
        let margin = 2.0 * map.step();
        let range = |axis: usize, pixels: u32| {
            let ends = corners.map(|corner| corner[axis]);
            let low = ends.iter().copied().fold(f32::INFINITY, f32::min) - margin;
            let high = ends.iter().copied().fold(f32::NEG_INFINITY, f32::max) + margin;
            let start = (low.max(0.0) as usize).min(pixels as usize - 1);
            let end = (high.max(0.0) as usize).saturating_add(1).min(pixels as usize).max(start + 1);
            (start, end)
        };
        let ((x, right), (y, bottom)) = (range(0, photo.width), range(1, photo.height));
        let stride = photo.width as usize * 3;
        let rows = photo.pixels.chunks_exact(stride).take(bottom).skip(y);
        let bytes = rows.flat_map(|row| &row[x * 3..right * 3]).copied().collect();
        Self { x, y, width: right - x, height: bottom - y, bytes }
    }

    /// Averages 2 x 2 boxes; an odd last row or column is left out.
    fn halve(&mut self) {
        let (width, height) = (self.width / 2, self.height / 2);
        let mut halved = Vec::with_capacity(width * height * 3);
        for rows in self.bytes.chunks_exact(self.width * 6).take(height) {
            let (upper, lower) = rows.split_at(self.width * 3);
            for (a, b) in upper.as_chunks::<6>().0.iter().zip(lower.as_chunks::<6>().0) {
                for i in 0..3 {
                    let sum = [a[i], a[i + 3], b[i], b[i + 3]].map(u32::from).iter().sum::<u32>();
                    halved.push(((sum + 2) / 4) as u8);
                }
            }
        }
        (self.width, self.height, self.bytes) = (width, height, halved);
    }
}
