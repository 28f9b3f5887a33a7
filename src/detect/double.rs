//! A detector for tests of everything behind it: the whole photo is the face.

use super::Detect;
use crate::{Bounds, Face, Landmarks, Photo, Result};

/// Finds exactly one face, as large as the photo; a photo of one colour, black, has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct WholePhoto;

impl Detect for WholePhoto {
    fn detect(&self, photo: &Photo) -> Result<Vec<Face>> {
        if photo.pixels().iter().all(|byte| *byte == 0) {
            return Ok(Vec::new());
        }
        let (width, height) = (photo.width() as f32, photo.height() as f32);
        let at = |x: f32, y: f32| [width * x / 112.0, height * y / 112.0];
        Ok(vec![Face {
            bounds: Bounds { x: 0.0, y: 0.0, width, height },
            landmarks: Landmarks([at(38.3, 51.7), at(73.5, 51.5), at(56.0, 71.7), at(41.5, 92.4), at(70.7, 92.2)]),
            confidence: 1.0,
        }])
    }

    fn name(&self) -> &str {
        "whole-photo"
    }
}
