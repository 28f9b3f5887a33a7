//! What finding faces costs: CPU-milliseconds of one thread for a 640 x 480 photo, smallest face 40 px.
//!
//! `cargo bench --bench detect`. The photo is a sample group photo, scaled to 640 pixels and padded to 480 rows; decoding is not part of the figure.

use std::time::{Duration, Instant};

use vultus::Photo;
use vultus::detect::{Detect, Mtcnn};
use vultus::photo::Limits;

const ROUNDS: u32 = 30;

fn main() -> anyhow::Result<()> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/samples/groups/group00.jpg");
    let photo = vga(&Photo::decode(&std::fs::read(file)?, &Limits::default())?)?;
    let detector = Mtcnn::bundled()?;
    let faces = detector.detect(&photo)?.len();
    let (begin, used) = (Instant::now(), cpu_time());
    for _ in 0..ROUNDS {
        detector.detect(&photo)?;
    }
    let each = |spent: Duration| spent.as_secs_f64() * 1e3 / f64::from(ROUNDS);
    println!("{faces} faces in {} x {}, mean of {ROUNDS} rounds, one thread", photo.width(), photo.height());
    println!("wall: {:.1} ms", each(begin.elapsed()));
    if let (Some(before), Some(after)) = (used, cpu_time()) {
        println!("CPU: {:.1} ms", each(after - before));
    }
    Ok(())
}

/// The photo at 640 pixels of width, by the nearest pixel, above grey rows up to 480.
fn vga(photo: &Photo) -> vultus::Result<Photo> {
    let (width, height) = (photo.width() as usize, photo.height() as usize);
    let mut pixels = vec![128; 640 * 480 * 3];
    for y in 0..(height * 640 / width).min(480) {
        for x in 0..640 {
            let from = (y * width / 640 * width + x * width / 640) * 3;
            pixels[(y * 640 + x) * 3..][..3].copy_from_slice(&photo.pixels()[from..from + 3]);
        }
    }
    Photo::from_rgb(640, 480, pixels)
}

/// Time that this thread has spent on a CPU, where the kernel tells.
fn cpu_time() -> Option<Duration> {
    let line = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    line.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}
