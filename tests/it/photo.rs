//! Photos from bytes: formats, orientation, limits, and files that are damaged or hostile.

use std::path::{Path, PathBuf};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use vultus::photo::Limits;
use vultus::{Error, Photo};

fn formats() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/formats")
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(formats().join(name)).unwrap()
}

fn decode(bytes: &[u8]) -> vultus::Result<Photo> {
    Photo::decode(bytes, &Limits::default())
}

/// `scripts/photo_fixtures.py` draws the picture: 48 x 32 upright, a colour in each quarter.
#[track_caller]
fn check_quarters(name: &str, expected: [[u8; 3]; 4]) {
    let photo = decode(&fixture(name)).unwrap();
    assert_eq!((photo.width(), photo.height()), (48, 32), "{name}");
    for ([x, y], expected) in [[12, 8], [36, 8], [12, 24], [36, 24]].into_iter().zip(expected) {
        let found = &photo.pixels()[(y * 48 + x) * 3..][..3];
        let close = found.iter().zip(expected).all(|(found, expected)| found.abs_diff(expected) <= 8);
        assert!(close, "{name}: {found:?} at {x}, {y}, expected {expected:?}");
    }
}

const COLORS: [[u8; 3]; 4] = [[220, 40, 40], [40, 180, 60], [40, 60, 200], [180, 180, 180]];

#[test]
fn every_way_to_store_a_photo_gives_the_same_rgb() {
    for name in [
        "baseline.jpg",
        "progressive.jpg",
        "cmyk.jpg",
        "rgb.png",
        "palette.png",
        "sixteen-bit.png",
        "lossy.webp",
        "lossless.webp",
    ] {
        check_quarters(name, COLORS);
    }
}

#[test]
fn an_animation_gives_its_first_frame() {
    check_quarters("animated.png", COLORS);
    check_quarters("animated.webp", COLORS);
}

#[test]
fn exif_orientation_is_undone() {
    for orientation in 2..=8 {
        check_quarters(&format!("orientation-{orientation}.jpg"), COLORS);
    }
    check_quarters("orientation-6.png", COLORS);
    check_quarters("orientation-6.webp", COLORS);
}

#[test]
fn grey_becomes_rgb() {
    let luma = COLORS.map(|[r, g, b]| [(0.299 * f32::from(r) + 0.587 * f32::from(g) + 0.114 * f32::from(b)) as u8; 3]);
    check_quarters("grey.jpg", luma);
    check_quarters("grey.png", luma);
}

#[test]
fn what_is_transparent_lies_over_white() {
    let (white, pink) = ([255, 255, 255], [255, 127, 127]);
    check_quarters("transparent.png", [white, pink, white, pink]);
    check_quarters("transparent.webp", [white, pink, white, pink]);
}

#[test]
fn a_photo_survives_being_written_and_read() {
    let photo = decode(&fixture("rgb.png")).unwrap();
    let read = decode(&photo.to_jpeg(95).unwrap()).unwrap();
    assert_eq!((read.width(), read.height()), (48, 32));
    let error = photo.pixels().iter().zip(read.pixels()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>();
    assert!(error < 48 * 32 * 3 * 4, "mean error {}", error / (48 * 32 * 3));
    assert!(matches!(photo.to_jpeg(0), Err(Error::Argument { .. })));
    assert!(matches!(photo.to_jpeg(101), Err(Error::Argument { .. })));
}

#[test]
fn pixels_that_do_not_fit_their_size_are_refused() {
    for (width, height, bytes) in [(0, 0, 0), (1, 0, 3), (2, 2, 11), (u32::MAX, u32::MAX, 3)] {
        assert!(matches!(Photo::from_rgb(width, height, vec![0; bytes]), Err(Error::Argument { .. })));
    }
}

#[track_caller]
fn check_refused(bytes: &[u8], limits: &Limits, expected: &str) {
    let error = Photo::decode(bytes, limits).unwrap_err().to_string();
    assert!(error.contains(expected), "{error:?} does not say {expected:?}");
}

#[test]
fn what_is_no_photo_is_named() {
    let limits = Limits::default();
    check_refused(b"", &limits, "the file is empty");
    check_refused(b"Dear Ana,\nthe photos are ", &limits, "expected JPEG, PNG or WebP; found text");
    check_refused(b"GIF89a\x01\x00", &limits, "found GIF");
    check_refused(b"\0\0\0\x18ftypheic\0\0\0\0", &limits, "found a heic container");
    check_refused(&[0, 1, 2], &limits, "found 3 bytes that start with [00, 01, 02]");
    check_refused(&[0xFF, 0xD8, 0xFF], &limits, "JPEG");
}

/// A PNG that is a header and nothing else.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut ihdr = b"IHDR".to_vec();
    ihdr.extend([width, height].map(u32::to_be_bytes).as_flattened());
    ihdr.extend([8, 2, 0, 0, 0]);
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    png.extend(&ihdr);
    png.extend(crc32fast::hash(&ihdr).to_be_bytes());
    png.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    png
}

/// A whole JPEG whose frame header is made to say another size.
fn jpeg_of_size(width: u16, height: u16) -> Vec<u8> {
    let mut jpeg = fixture("baseline.jpg");
    let frame = jpeg.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    jpeg[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    jpeg[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    jpeg
}

#[test]
fn a_huge_photo_is_refused_by_its_header() {
    let limits = Limits::default();
    let start = std::time::Instant::now();
    check_refused(&png_header(30_000, 30_000), &limits, "30000 x 30000 px: longer than 16384 px on a side");
    check_refused(&png_header(u32::MAX >> 1, 1), &limits, "");
    check_refused(&png_header(16_000, 16_000), &limits, "at most 512 MiB allowed");
    check_refused(&jpeg_of_size(65_535, 65_535), &limits, "65535 x 65535 px: longer than 16384 px on a side");
    check_refused(&jpeg_of_size(16_000, 16_000), &limits, "at most 512 MiB allowed");
    assert!(start.elapsed().as_secs() < 2, "pixels were allocated");
    check_refused(&fixture("rgb.png"), &Limits { side_px_max: 47, ..limits }, "longer than 47 px");
    check_refused(&fixture("lossy.webp"), &Limits { decode_bytes_max: 1000, ..limits }, "at most 0 MiB");
    assert!(Photo::decode(&fixture("rgb.png"), &Limits { side_px_max: 48, ..limits }).is_ok());
}

fn all_fixtures() -> Vec<(String, Vec<u8>)> {
    let mut names: Vec<String> =
        std::fs::read_dir(formats()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names.into_iter().map(|name| (name.clone(), fixture(&name))).collect()
}

#[test]
fn every_truncation_is_an_error_or_loses_no_pixel() {
    for (name, bytes) in all_fixtures() {
        let whole = decode(&bytes).unwrap();
        for length in 0..bytes.len() {
            match decode(&bytes[..length]) {
                Err(Error::Photo { .. }) => {}
                Err(other) => panic!("{name} cut to {length}: {other}"),
                // What a PNG has after its pixels may be missing: the orientation, a second frame, the end.
                Ok(photo) => {
                    assert!(name.ends_with(".png"), "{name} cut to {length} of {} passes", bytes.len());
                    assert_eq!(photo.pixels().len(), whole.pixels().len());
                    assert!(name == "orientation-6.png" || photo == whole, "{name} cut to {length} lost pixels");
                }
            }
        }
    }
}

#[test]
fn damaged_bytes_never_panic() {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    for (name, bytes) in all_fixtures() {
        for _ in 0..150 {
            let mut bad = bytes.clone();
            for _ in 0..random.random_range(1..6) {
                let at = random.random_range(0..bad.len());
                bad[at] = random.random();
            }
            if let Err(error) = decode(&bad) {
                assert!(matches!(error, Error::Photo { .. }), "{name}: {error}");
            }
        }
    }
}
