//! Five points of a face, and what they say about the pose of the head.

/// Left eye, right eye, nose, left and right mouth corner (as seen in the photo), each `[x, y]` in pixels.
///
/// A coordinate is that of a pixel's centre: the first pixel is at `[0, 0]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Landmarks(pub [[f32; 2]; 5]);

/// How far the tip of the nose stands out from the plane of eyes and mouth, in distances between the eyes.
const NOSE_DEPTH: f32 = 0.55;

impl Landmarks {
    /// The template of the crop: where the five points of a face come to lie in 112 x 112 pixels.
    ///
    /// Source: the five-point template of the usual face crops, as in the training data (InsightFace's `arcface_dst`).
    pub const TEMPLATE: Self =
        Self([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]);

    /// Degrees from upright in the plane of the photo; positive when the right eye is the lower one. 0 if the points say nothing.
    pub fn roll(&self) -> f32 {
        let [dx, dy] = self.between_eyes();
        known(dy.atan2(dx).to_degrees())
    }

    /// Degrees from frontal; positive when the nose points to the right of the photo. 0 if the points say nothing.
    ///
    /// The nose stands out from the face, so turning the head by `yaw` moves it sideways by `depth * sin(yaw)` while the eyes draw together by `cos(yaw)`.
    /// An estimate: heads differ in depth.
    pub fn yaw(&self) -> f32 {
        let [left_eye, right_eye, nose, left_mouth, right_mouth] = self.0;
        let [dx, dy] = self.between_eyes();
        let eyes = dx.hypot(dy);
        let middle = |axis: usize| (left_eye[axis] + right_eye[axis] + left_mouth[axis] + right_mouth[axis]) / 4.0;
        let aside = ((nose[0] - middle(0)) * dx + (nose[1] - middle(1)) * dy) / eyes;
        known(aside.atan2(NOSE_DEPTH * eyes).to_degrees())
    }

    fn between_eyes(&self) -> [f32; 2] {
        let [left, right, ..] = self.0;
        [right[0] - left[0], right[1] - left[1]]
    }
}

fn known(degrees: f32) -> f32 {
    if degrees.is_finite() { degrees } else { 0.0 }
}
