//! Photos from bytes: formats, orientation, limits, and files that are damaged or hostile.

use vultus::Photo;
use vultus::photo::Limits;

#[test]
fn a_photo_survives_being_written_and_read() {
    let pixels = (0..64 * 48 * 3).map(|i| (i / 48 % 256) as u8).collect();
    let photo = Photo::from_rgb(64, 48, pixels).unwrap();
    let read = Photo::decode(&photo.to_jpeg(95).unwrap(), &Limits::default()).unwrap();
    assert_eq!((read.width(), read.height()), (64, 48));
    let error = photo.pixels().iter().zip(read.pixels()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>();
    assert!(error < 64 * 48 * 3 * 8, "mean error {}", error / (64 * 48 * 3));
}
