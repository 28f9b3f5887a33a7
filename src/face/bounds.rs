//! The rectangle around a face.

use std::fmt;

/// An upright rectangle in pixels of the upright photo; may reach beyond its edges. `Display` gives `x,y widthxheight`, rounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Left edge.
    pub x: f32,
    /// Top edge.
    pub y: f32,
    /// Width, positive.
    pub width: f32,
    /// Height, positive.
    pub height: f32,
}

impl Bounds {
    /// The middle, `[x, y]`.
    pub fn center(&self) -> [f32; 2] {
        [self.x + self.width / 2.0, self.y + self.height / 2.0]
    }

    /// The area in square pixels.
    pub fn area(&self) -> f32 {
        self.width * self.height
    }

    /// Four finite numbers, and both sides positive.
    pub(super) fn is_proper(&self) -> bool {
        [self.x, self.y, self.width, self.height].iter().all(|value| value.is_finite())
            && self.width > 0.0
            && self.height > 0.0
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Adding zero turns -0 into 0.
        let [x, y, width, height] = [self.x, self.y, self.width, self.height].map(|value| value.round() + 0.0);
        write!(f, "{x},{y} {width}x{height}")
    }
}
