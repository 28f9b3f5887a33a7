//! Boxes that may be faces: moved by what a net says, made square, and thinned where they overlap.
//!
//! The original counts pixels from 1 and includes both ends, so a side is `x2 - x1 + 1`; its weights were trained with that, and it is kept.

/// One box, edges in pixels counted from 1, both included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) x1: f32,
    pub(super) y1: f32,
    pub(super) x2: f32,
    pub(super) y2: f32,
    /// Probability of a face, 0 to 1.
    pub(super) score: f32,
}

/// What the intersection of two boxes is measured against.
#[derive(Clone, Copy, Debug)]
pub(super) enum Overlap {
    /// The area of both together.
    Union,
    /// The smaller area, so that a box within another is one too many.
    Smaller,
}

impl Candidate {
    pub(super) fn width(&self) -> f32 {
        self.x2 - self.x1 + 1.0
    }

    pub(super) fn height(&self) -> f32 {
        self.y2 - self.y1 + 1.0
    }

    /// Moves each edge by its offset, in units of the sides.
    pub(super) fn moved(self, offsets: &[f32], width: f32, height: f32) -> Self {
        Self {
            x1: self.x1 + offsets[0] * width,
            y1: self.y1 + offsets[1] * height,
            x2: self.x2 + offsets[2] * width,
            y2: self.y2 + offsets[3] * height,
            score: self.score,
        }
    }

    /// The square with the longer side, around the same middle.
    pub(super) fn squared(self) -> Self {
        let (width, height) = (self.x2 - self.x1, self.y2 - self.y1);
        let side = width.max(height);
        let (x1, y1) = (self.x1 + (width - side) / 2.0, self.y1 + (height - side) / 2.0);
        Self { x1, y1, x2: x1 + side, y2: y1 + side, score: self.score }
    }

    /// On whole pixels.
    pub(super) fn truncated(self) -> Self {
        let Self { x1, y1, x2, y2, score } = self;
        Self { x1: x1.trunc(), y1: y1.trunc(), x2: x2.trunc(), y2: y2.trunc(), score }
    }

    fn overlap(&self, other: &Self, overlap: Overlap) -> f32 {
        let width = (self.x2.min(other.x2) - self.x1.max(other.x1) + 1.0).max(0.0);
        let height = (self.y2.min(other.y2) - self.y1.max(other.y1) + 1.0).max(0.0);
        let (shared, own, others) = (width * height, self.width() * self.height(), other.width() * other.height());
        match overlap {
            Overlap::Union => shared / (own + others - shared),
            Overlap::Smaller => shared / own.min(others),
        }
    }
}

/// Keeps the best of those that overlap by more than `threshold`, best first, `count_max` at most.
pub(super) fn suppress<T>(
    mut found: Vec<T>,
    candidate: impl Fn(&T) -> &Candidate,
    threshold: f32,
    overlap: Overlap,
    count_max: usize,
) -> Vec<T> {
    found.sort_by(|a, b| candidate(b).score.total_cmp(&candidate(a).score));
    let mut kept: Vec<T> = Vec::new();
    for next in found {
        if kept.len() == count_max {
            break;
        }
        let covered = |better: &T| candidate(&next).overlap(candidate(better), overlap) > threshold;
        if !kept.iter().any(covered) {
            kept.push(next);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::{Candidate, Overlap, suppress};

    fn candidate(x1: f32, side: f32, score: f32) -> Candidate {
        Candidate { x1, y1: 1.0, x2: x1 + side - 1.0, y2: side, score }
    }

    fn scores(found: Vec<Candidate>, threshold: f32, overlap: Overlap) -> Vec<f32> {
        suppress(found, |c| c, threshold, overlap, 9).iter().map(|c| c.score).collect()
    }

    #[test]
    fn the_best_of_two_that_overlap_stays() {
        let found = vec![candidate(1.0, 10.0, 0.7), candidate(2.0, 10.0, 0.9), candidate(50.0, 10.0, 0.8)];
        assert_eq!(scores(found, 0.5, Overlap::Union), [0.9, 0.8]);
    }

    #[test]
    fn a_box_within_another_is_one_too_many_only_by_the_smaller_area() {
        let found = vec![candidate(1.0, 10.0, 0.7), candidate(1.0, 40.0, 0.9)];
        assert_eq!(scores(found.clone(), 0.7, Overlap::Union), [0.9, 0.7]);
        assert_eq!(scores(found, 0.7, Overlap::Smaller), [0.9]);
    }

    #[test]
    fn a_square_keeps_the_middle() {
        let squared = Candidate { x1: 10.0, y1: 20.0, x2: 30.0, y2: 60.0, score: 0.5 }.squared();
        assert_eq!(squared, Candidate { x1: 0.0, y1: 20.0, x2: 40.0, y2: 60.0, score: 0.5 });
    }
}
