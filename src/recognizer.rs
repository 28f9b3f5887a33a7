//! Photo → faces with embeddings: the half of vultus that holds weights and touches no disk.

use std::path::Path;
use std::sync::Arc;

use crate::detect::{Detect, Mtcnn};
use crate::face::{Quality, QualityLimits, Refusal};
use crate::model::weights::{TrainedEmbedder, Weights};
use crate::model::{Compute, Embed, Precision};
use crate::{Calibration, Crop, Embedding, Error, Face, Photo, Result};

/// A face of a photo, with its embedding or the reason why it has none.
#[derive(Clone)]
pub struct RecognizedFace {
    /// Where it is in the upright photo.
    pub face: Face,
    /// The aligned crop.
    pub crop: Crop,
    /// What was measured before embedding.
    pub quality: Quality,
    /// The embedding, or why the face was refused.
    pub outcome: Result<Embedding, Refusal>,
}

/// A face before its embedding: found, aligned and judged.
#[derive(Clone)]
pub struct FoundFace {
    /// Where it is in the upright photo.
    pub face: Face,
    /// The aligned crop.
    pub crop: Crop,
    /// What was measured.
    pub quality: Quality,
    /// Why it must not be embedded, if there is a reason.
    pub refusal: Option<Refusal>,
}

/// A detector, an embedding network and the quality that a face must have.
#[derive(Clone)]
pub struct Recognizer {
    detector: Arc<dyn Detect>,
    embedder: Arc<dyn Embed>,
    limits: QualityLimits,
}

impl Recognizer {
    /// The detector and the weights that ship inside the program.
    ///
    /// # Errors
    /// Only if the bundled weights can't be read, a fault of the build.
    pub fn bundled() -> Result<Self> {
        Self::trained(Weights::bundled()?, Compute::Cpu, None)
    }

    /// The bundled detector and the weights in a file, as `vultus train` writes them.
    ///
    /// # Errors
    /// [`Error::Weights`] or [`Error::Io`].
    pub fn from_weights(path: &Path) -> Result<Self> {
        Self::trained(Weights::read(path)?, Compute::Cpu, None)
    }

    /// The bundled detector on the CPU, and any weights on the device and in the numbers that are asked for (see [`TrainedEmbedder::on`]).
    ///
    /// # Errors
    /// [`Error::Weights`]; [`Error::Argument`] when there is no such device, or it does not embed in such numbers.
    pub fn trained(weights: Weights, embed_on: Compute, precision: Option<Precision>) -> Result<Self> {
        let embedder = TrainedEmbedder::on(weights, &embed_on.device()?, precision)?;
        Ok(Self::new(Arc::new(Mtcnn::bundled()?), Arc::new(embedder)))
    }

    /// No weights, milliseconds: every photo is one face, photos of one colour are one person. For tests of what comes after.
    pub fn double() -> Self {
        let embedder = crate::model::double::ColorHash::new("color-hash");
        Self::new(Arc::new(crate::detect::double::WholePhoto), Arc::new(embedder)).with_limits(QualityLimits::NONE)
    }

    /// Any detector and any embedding network.
    pub fn new(detector: Arc<dyn Detect>, embedder: Arc<dyn Embed>) -> Self {
        Self { detector, embedder, limits: QualityLimits::default() }
    }

    /// With other quality limits.
    #[must_use]
    pub fn with_limits(mut self, limits: QualityLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Finds, aligns and judges; the cheap half, which pipelines run in parallel, photo by photo.
    ///
    /// # Errors
    /// Only when the computation itself fails; no face is an empty list.
    pub fn find(&self, photo: &Photo) -> Result<Vec<FoundFace>> {
        let alignment = self.embedder.alignment();
        let faces = self.detector.detect(photo)?;
        Ok(faces
            .into_iter()
            .map(|face| {
                let crop = alignment.crop(photo, &face);
                let quality = Quality::measure(&face, &crop);
                FoundFace { refusal: self.limits.check(&quality), face, crop, quality }
            })
            .collect())
    }

    /// Embeds crops of any photos as one batch, in order.
    ///
    /// # Errors
    /// When the computation itself fails; [`Error::Argument`] when an embedder of somebody else's gives more or fewer
    /// embeddings than crops, since nobody could say then whose is whose.
    pub fn embed(&self, crops: &[Crop]) -> Result<Vec<Embedding>> {
        let embeddings = self.embedder.embed(crops)?;
        if embeddings.len() != crops.len() {
            let what = format!("gave {} embeddings for {} crops", embeddings.len(), crops.len());
            return Err(Error::argument("embedder", what));
        }
        Ok(embeddings)
    }

    /// All faces of a photo, largest first, each with its embedding or the reason why it has none.
    ///
    /// # Errors
    /// Only when the computation itself fails; no face is an empty list.
    pub fn recognize(&self, photo: &Photo) -> Result<Vec<RecognizedFace>> {
        let found = self.find(photo)?;
        Ok(self.embed_found(vec![found])?.into_iter().flatten().collect())
    }

    /// The embedding of a photo's largest usable face.
    ///
    /// # Errors
    /// [`Error::NoFace`] when there is none, with the reasons.
    pub fn embedding(&self, photo: &Photo) -> Result<Embedding> {
        let mut refusals = Vec::new();
        for found in self.recognize(photo)? {
            match found.outcome {
                Ok(embedding) => return Ok(embedding),
                Err(refusal) => refusals.push(refusal.to_string()),
            }
        }
        let what = match refusals.as_slice() {
            [] => "no face was found".to_owned(),
            [only] => format!("its only face was refused: {only}"),
            all => format!("all {} faces were refused: {}", all.len(), all.join("; ")),
        };
        Err(Error::NoFace { what: format!("no usable face: {what}") })
    }

    /// Completes what [`find`](Self::find) found in any number of photos; all faces are embedded as one batch.
    ///
    /// # Errors
    /// Only when the computation itself fails.
    pub fn embed_found(&self, photos: Vec<Vec<FoundFace>>) -> Result<Vec<Vec<RecognizedFace>>> {
        let usable = photos.iter().flatten().filter(|found| found.refusal.is_none());
        let crops: Vec<Crop> = usable.map(|found| found.crop.clone()).collect();
        let mut embeddings = self.embed(&crops)?.into_iter();
        let mut complete = |FoundFace { face, crop, quality, refusal }| {
            let outcome = match refusal {
                Some(refusal) => Err(refusal),
                None => Ok(embeddings.next().expect("one embedding a crop")),
            };
            RecognizedFace { face, crop, quality, outcome }
        };
        Ok(photos.into_iter().map(|found| found.into_iter().map(&mut complete).collect()).collect())
    }

    /// Hex digest of the embedding weights.
    pub fn digest(&self) -> &str {
        self.embedder.digest()
    }

    /// The detector's name, for provenance.
    pub fn detector_name(&self) -> &str {
        self.detector.name()
    }

    /// What distances mean for the loaded weights.
    pub fn calibration(&self) -> &Calibration {
        self.embedder.calibration()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use super::*;
    use crate::detect::double::WholePhoto;
    use crate::face::Alignment;
    use crate::model::double::ColorHash;

    /// Forgets its last crop.
    struct Forgetful(ColorHash);

    impl Embed for Forgetful {
        fn embed(&self, crops: &[Crop]) -> Result<Vec<Embedding>> {
            self.0.embed(&crops[..crops.len().saturating_sub(1)])
        }

        fn digest(&self) -> &str {
            self.0.digest()
        }

        fn calibration(&self) -> &Calibration {
            self.0.calibration()
        }

        fn alignment(&self) -> Alignment {
            self.0.alignment()
        }
    }

    #[test]
    fn an_embedder_that_loses_a_crop_is_an_error_and_no_panic() {
        let embedder = Arc::new(Forgetful(ColorHash::new("forgetful")));
        let recognizer = Recognizer::new(Arc::new(WholePhoto), embedder).with_limits(QualityLimits::NONE);
        let photo = Photo::from_rgb(8, 8, [200, 30, 30].repeat(64)).unwrap();
        let message = recognizer.recognize(&photo).err().unwrap().to_string();
        assert_eq!(message, "embedder: gave 0 embeddings for 1 crops");
    }
}
