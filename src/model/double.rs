//! An embedder for tests of everything behind it: crops of one mean colour are one person.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Embed;
use crate::face::Alignment;
use crate::{Calibration, Crop, Embedding, OperatingPoint, Result};

/// Hashes the mean colour (in steps of 16) to a unit vector, and moves it a little by the hash of all pixels: two crops of
/// one colour are less than 0.1 apart, crops of different colours about 2.
#[derive(Clone, Debug)]
pub struct ColorHash {
    digest: String,
    calibration: Calibration,
}

impl ColorHash {
    /// `name` becomes the digest, so that tests can have several models.
    pub fn new(name: &str) -> Self {
        let point = |far, distance| OperatingPoint { far, distance, val: 1.0 };
        let points = vec![point(1e-5, 0.5), point(1e-3, 1.0), point(1e-1, 1.6)];
        let calibration = Calibration { data: "none".into(), same_pairs: 1, different_pairs: 1_000_000, points };
        Self { digest: name.to_owned(), calibration }
    }
}

impl Embed for ColorHash {
    fn embed(&self, crops: &[Crop]) -> Result<Vec<Embedding>> {
        crops.iter().map(embed).collect()
    }

    fn digest(&self) -> &str {
        &self.digest
    }

    fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    fn alignment(&self) -> Alignment {
        Alignment::Tight
    }
}

fn embed(crop: &Crop) -> Result<Embedding> {
    let mut sums = [0u64; 3];
    for pixel in crop.pixels().chunks_exact(3) {
        sums.iter_mut().zip(pixel).for_each(|(sum, byte)| *sum += u64::from(*byte));
    }
    let count = (crop.pixels().len() / 3) as u64;
    let color = sums.map(|sum| (sum / count / 16) as u8);
    let (person, noise) = (unit(&color), unit(crop.pixels()));
    let values: Vec<f32> = person.iter().zip(noise).map(|(p, n)| p + 0.15 * n).collect();
    Embedding::normalized(&values)
}

/// A pseudo-random vector of about unit length.
fn unit(bytes: &[u8]) -> [f32; Embedding::DIMENSIONS] {
    let mut rng = ChaCha8Rng::from_seed(*blake3::hash(bytes).as_bytes());
    let mut values = [0.0; Embedding::DIMENSIONS];
    values.iter_mut().for_each(|value| *value = rng.random_range(-0.153..0.153));
    values
}
