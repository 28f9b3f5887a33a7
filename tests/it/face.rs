//! Faces from outside: alignment, orientation and quality, on a real portrait.

use proptest::prelude::*;
use vultus::detect::{Detect, Mtcnn};
use vultus::face::{Alignment, Quality, QualityLimits};
use vultus::photo::Limits;
use vultus::{Bounds, Crop, Face, Landmarks, Photo};

fn portrait() -> Photo {
    Photo::decode(include_bytes!("../data/astronaut.jpg"), &Limits::default()).unwrap()
}

fn only_face(photo: &Photo) -> Face {
    let [face] = Mtcnn::bundled().unwrap().detect(photo).unwrap()[..] else { panic!("expected one face") };
    face
}

fn mean_difference(a: &Crop, b: &Crop) -> f64 {
    let sum: u64 = a.pixels().iter().zip(b.pixels()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    sum as f64 / a.pixels().len() as f64
}

/// The photo turned by a quarter, clockwise.
fn turned(photo: &Photo) -> Photo {
    let (width, height) = (photo.height(), photo.width());
    let source = |i: u32| ((photo.height() - 1 - i % width) * photo.width() + i / width) as usize * 3;
    let pixels = (0..width * height).flat_map(|i| photo.pixels()[source(i)..][..3].to_vec()).collect();
    Photo::from_rgb(width, height, pixels).unwrap()
}

#[test]
fn the_landmarks_of_a_portrait_are_where_they_belong() {
    let face = only_face(&portrait());
    let [left_eye, right_eye, nose, left_mouth, right_mouth] = face.landmarks.0;
    assert!(left_eye[0] < nose[0] && nose[0] < right_eye[0] && left_mouth[0] < right_mouth[0]);
    assert!(left_eye[1] < nose[1] && nose[1] < left_mouth[1]);
    let quality = Quality::measure(&face, &Alignment::Landmarks.crop(&portrait(), &face));
    assert!(quality.yaw.abs() < 15.0 && quality.roll.abs() < 8.0, "{quality:?}");
    assert_eq!(QualityLimits::default().check(&quality), None, "{quality:?}");
}

#[test]
fn an_aligned_face_is_found_where_the_template_has_it() {
    let photo = portrait();
    let crop = Alignment::Landmarks.crop(&photo, &only_face(&photo));
    let found = only_face(&crop.to_photo().unwrap()).landmarks;
    for (found, expected) in found.0.as_flattened().iter().zip(Landmarks::TEMPLATE.0.as_flattened()) {
        // Faces are not the template: this one smiles, and the detector sees it without its surroundings.
        assert!((found - expected).abs() < 8.0, "{found:?}, expected {expected:?}");
    }
}

#[test]
fn a_crop_with_margin_holds_the_crop_in_its_middle() {
    let photo = portrait();
    let face = only_face(&photo);
    for alignment in [Alignment::Landmarks, Alignment::Tight] {
        let wide = alignment.crop_with_margin(&photo, &face).unwrap();
        assert_eq!((wide.width(), wide.height()), (128, 128));
        let difference = mean_difference(&Crop::from_aligned(&wide), &alignment.crop(&photo, &face));
        assert!(difference < 0.1, "{alignment:?}: {difference}");
        let (corner, crop) = (&wide.pixels()[..3], alignment.crop(&photo, &face));
        assert_ne!(corner, &crop.pixels()[..3], "{alignment:?}: the margin shows more of the photo");
    }
}

/// The same picture, stored turned with a note that says so, must give the same crop.
#[test]
fn a_sideways_photo_gives_the_same_crop() {
    let upright = portrait();
    // Three quarters clockwise when stored, and orientation 6: "turn a quarter clockwise to see it".
    let stored = turned(&turned(&turned(&upright))).to_jpeg(100).unwrap();
    let exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let mut sideways = vec![0xFF, 0xD8, 0xFF, 0xE1, 0, exif.len() as u8 + 2];
    sideways.extend_from_slice(exif);
    sideways.extend_from_slice(&stored[2..]);
    let sideways = Photo::decode(&sideways, &Limits::default()).unwrap();
    assert_eq!((sideways.width(), sideways.height()), (upright.width(), upright.height()));
    let crops = [&upright, &sideways].map(|photo| Alignment::Landmarks.crop(photo, &only_face(photo)));
    let difference = mean_difference(&crops[0], &crops[1]);
    assert!(difference < 4.0, "mean difference {difference}");
}

#[test]
fn alignment_undoes_a_turn_of_the_head() {
    let photo = portrait();
    let face = only_face(&photo);
    let sideways = turned(&photo);
    let turn = |[x, y]: [f32; 2]| [photo.height() as f32 - 1.0 - y, x];
    let turned_face = Face { landmarks: Landmarks(face.landmarks.0.map(turn)), ..face };
    let (a, b) = (Alignment::Landmarks.crop(&photo, &face), Alignment::Landmarks.crop(&sideways, &turned_face));
    assert!(mean_difference(&a, &b) < 0.2, "mean difference {}", mean_difference(&a, &b));
    assert!((turned_face.landmarks.roll() - face.landmarks.roll() - 90.0).abs() < 0.01);
}

#[test]
fn a_tight_crop_is_the_square_around_the_box() {
    let pixels = (0..200 * 200).flat_map(|i| [(i % 200) as u8, (i / 200) as u8, 0]).collect();
    let photo = Photo::from_rgb(200, 200, pixels).unwrap();
    let bounds = Bounds { x: 60.0, y: 40.0, width: 80.0, height: 100.0 };
    let face = Face { bounds, landmarks: Landmarks::TEMPLATE, confidence: 1.0 };
    let crop = Alignment::Tight.crop(&photo, &face);
    // 110 px around 100, 90: from 45 to 155 and from 35 to 145.
    let (first, last) = (&crop.pixels()[..3], &crop.pixels()[crop.pixels().len() - 3..]);
    for (found, expected) in first.iter().chain(last).zip([45u8, 35, 0, 154, 144, 0]) {
        assert!(found.abs_diff(expected) <= 1, "{first:?} and {last:?}");
    }
}

#[test]
fn landmarks_that_say_nothing_fall_back_to_the_box() {
    let photo = portrait();
    let face = only_face(&photo);
    let tight = Alignment::Tight.crop(&photo, &face);
    for points in [[[5.0, 5.0]; 5], [[f32::NAN; 2]; 5], [[f32::INFINITY, 0.0]; 5], [[f32::MAX; 2]; 5], [[0.0; 2]; 5]] {
        let face = Face { landmarks: Landmarks(points), ..face };
        assert_eq!(Alignment::Landmarks.crop(&photo, &face), tight, "{points:?}");
    }
    let nothing = Bounds { x: f32::NAN, y: 0.0, width: -1.0, height: f32::INFINITY };
    let face = Face { bounds: nothing, landmarks: Landmarks([[f32::NAN; 2]; 5]), confidence: f32::NAN };
    let quality = Quality::measure(&face, &Alignment::Landmarks.crop(&photo, &face));
    assert_eq!(QualityLimits::NONE.check(&quality), None);
    assert!([quality.face_px, quality.sharpness, quality.yaw, quality.roll].iter().all(|value| value.is_finite()));
}

#[test]
fn a_refusal_gives_the_figure_and_the_limit() {
    let photo = portrait();
    let face = only_face(&photo);
    let good = Quality::measure(&face, &Alignment::Landmarks.crop(&photo, &face));
    let limits = QualityLimits { face_px_min: 24.0, sharpness_min: 4.0, yaw_max: 60.0, confidence_min: 0.8 };
    let check = |quality: Quality, expected: &str| {
        assert_eq!(limits.check(&quality).map(|refusal| refusal.to_string()).as_deref(), Some(expected));
    };
    check(Quality { face_px: 18.2, ..good }, "too small: 18 px, at least 24 needed");
    check(Quality { sharpness: 1.25, ..good }, "too blurred: sharpness 1.2, at least 4.0 needed");
    check(Quality { yaw: -71.0, ..good }, "too turned: 71 degrees, at most 60 allowed");
    check(Quality { confidence: 0.712, ..good }, "low confidence: 0.71, at least 0.80 needed");
    assert_eq!(limits.check(&good), None);
}

#[test]
fn a_blurred_crop_is_less_sharp() {
    let photo = portrait();
    let face = only_face(&photo);
    let sharp = Alignment::Landmarks.crop(&photo, &face);
    let blurred: Vec<u8> = (0..112 * 112 * 3)
        .map(|i: usize| {
            let around = (0..9).flat_map(|dy| (0..9).map(move |dx| (dx, dy)));
            let at = |(dx, dy): (usize, usize)| {
                let (x, y) = ((i / 3 % 112 + dx).clamp(4, 115) - 4, (i / 336 + dy).clamp(4, 115) - 4);
                u32::from(sharp.pixels()[(y * 112 + x) * 3 + i % 3])
            };
            (around.map(at).sum::<u32>() / 81) as u8
        })
        .collect();
    let sharpness = |crop: &Crop| Quality::measure(&face, crop).sharpness;
    let (sharp, blurred) = (sharpness(&sharp), sharpness(&Crop::from_rgb(blurred).unwrap()));
    assert!(blurred * 10.0 < sharp, "{blurred} and {sharp}");
    assert_eq!(sharpness(&Crop::from_rgb(vec![9; 112 * 112 * 3]).unwrap()), 0.0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever a detector says, a crop comes out.
    #[test]
    fn no_face_makes_alignment_panic(
        values in prop::array::uniform14(prop_oneof![-300.0f32..300.0, any::<f32>()]),
        width in 1u32..40,
        height in 1u32..40,
    ) {
        let photo = Photo::from_rgb(width, height, vec![77; (width * height * 3) as usize]).unwrap();
        let landmarks = Landmarks(std::array::from_fn(|i| [values[2 * i], values[2 * i + 1]]));
        let bounds = Bounds { x: values[10], y: values[11], width: values[12], height: values[13] };
        let face = Face { bounds, landmarks, confidence: values[0] };
        for alignment in [Alignment::Landmarks, Alignment::Tight] {
            let crop = alignment.crop(&photo, &face);
            prop_assert!(crop.pixels().iter().all(|value| *value == 77));
            prop_assert_eq!(QualityLimits::NONE.check(&Quality::measure(&face, &crop)), None);
        }
    }

    /// Landmarks that are the template, moved, turned and scaled, are brought back exactly.
    #[test]
    fn a_similar_template_is_brought_back(angle in -3.1f32..3.1, scale in 0.3f32..2.5, x in 100.0f32..200.0, y in 100.0f32..200.0) {
        let map = |[u, v]: [f32; 2]| {
            let (u, v) = (u - 56.0, v - 72.0);
            [x + scale * (u * angle.cos() - v * angle.sin()), y + scale * (u * angle.sin() + v * angle.cos())]
        };
        // A ramp over the photo says where each pixel of the crop came from.
        let pixels = (0..300 * 300).flat_map(|i| [(i % 300 * 255 / 299) as u8, (i / 300 * 255 / 299) as u8, 0]).collect();
        let photo = Photo::from_rgb(300, 300, pixels).unwrap();
        let bounds = Bounds { x: 0.0, y: 0.0, width: 10.0, height: 10.0 };
        let face = Face { bounds, landmarks: Landmarks(Landmarks::TEMPLATE.0.map(map)), confidence: 1.0 };
        let crop = Alignment::Landmarks.crop(&photo, &face);
        for point in [[40, 50], [56, 72], [70, 90]] {
            let found = &crop.pixels()[(point[1] * 112 + point[0]) * 3..][..2];
            let expected = map([point[0] as f32, point[1] as f32]).map(|at| at.clamp(0.0, 299.0) * 255.0 / 299.0);
            prop_assert!(found.iter().zip(expected).all(|(a, b)| (f32::from(*a) - b).abs() < 2.5), "{:?}, expected {:?}", found, expected);
        }
    }
}
