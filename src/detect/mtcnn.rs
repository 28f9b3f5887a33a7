//! MTCNN: a cascade that proposes many boxes cheaply, and looks ever closer at ever fewer.
//!
//! Sizes and thresholds are those of the program that the weights come from (`models/mtcnn.md`), and `tests/it/detect.rs` holds the result to it.
//! One departure: what is kept after each stage is bounded, and so is the size of the photo, so that no photo takes unbounded time or memory.
//!
//! Follows Zhang et al. 2016 (arXiv:1604.02878), section II-A.

use std::sync::Arc;

use super::Detect;
use super::candidate::{Candidate, Overlap, suppress};
use super::nets::{Maps, MtcnnNet, Net, Nets, probability};
use super::pyramid::Pyramid;
use crate::model::onnx::{self, Description, Scaling};
use crate::photo::pixels::Window;
use crate::{Bounds, Error, Face, Landmarks, Photo, Result};

/// The first net sees this many pixels on a side, at every second position.
const CELL: f32 = 12.0;
const STRIDE: f32 = 2.0;
/// From one size of the photo to the next: half the area.
const SCALE_STEP: f32 = 0.709;
/// Kept a stage. A crowd of 500 faces passes; what only looks like one does not grow without bound.
const CANDIDATES_MAX: usize = 1024;
/// Candidates a batch: what a batch needs stays in the L2 cache.
const BATCH: usize = 16;

/// What is looked for, and how far to go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MtcnnOptions {
    /// Smallest face looked for, in pixels; at least 12. Halving it takes four times as long.
    pub face_px_min: u32,
    /// A photo longer on a side is scaled down to this first, and its smallest face grows with it: a bound on time and memory.
    pub side_px_max: u32,
    /// Probability that a candidate needs after each of the three nets.
    pub thresholds: [f32; 3],
}

impl Default for MtcnnOptions {
    /// Faces from 40 px; photos are looked at with up to 1,600 px on a side, so in a photo of 4,000 px faces are found from 100 px.
    fn default() -> Self {
        Self { face_px_min: 40, side_px_max: 1600, thresholds: [0.6, 0.7, 0.7] }
    }
}

/// The detector that ships. Runs on the calling thread; photos are what runs in parallel.
#[derive(Clone, Debug)]
pub struct Mtcnn {
    nets: Arc<Nets>,
    options: MtcnnOptions,
}

impl Mtcnn {
    /// The weights inside the program, with [`MtcnnOptions::default`].
    ///
    /// # Errors
    /// Only if the bundled weights can't be read, a fault of the build.
    pub fn bundled() -> Result<Self> {
        Self::with_options(MtcnnOptions::default())
    }

    /// The weights inside the program, with other options.
    ///
    /// # Errors
    /// [`Error::Argument`] when an option is out of its range.
    pub fn with_options(options: MtcnnOptions) -> Result<Self> {
        if (options.face_px_min as f32) < CELL {
            return Err(Error::argument("face_px_min", format!("{} px, at least 12 needed", options.face_px_min)));
        }
        if !(64..=16_384).contains(&options.side_px_max) {
            return Err(Error::argument(
                "side_px_max",
                format!("{} px is not within 64 to 16384", options.side_px_max),
            ));
        }
        if !options.thresholds.iter().all(|threshold| (0.0..1.0).contains(threshold)) {
            return Err(Error::argument("thresholds", format!("{:?} are not all within 0 to 1", options.thresholds)));
        }
        Ok(Self { nets: Arc::new(Nets::bundled()?), options })
    }

    /// One of the nets alone: for comparing and measuring it.
    ///
    /// - `x`: `(n, height, width, 3)` of `shape`, upright RGB as `(v - 127.5) / 128`, row after row.
    /// - Returns `(n, height', width', outputs)`, row after row: the logits of "no face" and "face", four offsets of the box in
    ///   its sides, and from the output net five x and five y of the landmarks.
    ///
    /// # Errors
    /// [`Error::Argument`] when `x` is not of that shape, or too small for the net.
    pub fn forward(&self, net: MtcnnNet, x: &[f32], shape: [usize; 4]) -> Result<Vec<f32>> {
        if shape.iter().product::<usize>() != x.len() || shape[3] != 3 {
            return Err(Error::argument("x", format!("{} values are not RGB of {shape:?}", x.len())));
        }
        Ok(self.nets.get(net).forward(&Maps { values: x.to_vec(), shape })?.values)
    }

    /// One of the nets as the bytes of an ONNX file.
    ///
    /// - Input `pixels`: `(n, 3, height, width)`, `f32`, upright RGB as `(v - 127.5) / 128`; 24 x 24 for the refining net, 48 x 48
    ///   for the output net, at least 12 x 12 for proposals.
    /// - Output `heads`: what [`forward`](Self::forward) returns, as `(n, outputs)`; of the proposal net
    ///   `(n, outputs, height', width')`.
    ///
    /// # Errors
    /// Only if the bundled weights are unusable.
    pub fn to_onnx(&self, net: MtcnnNet) -> Result<Vec<u8>> {
        let (name, sides) = match net {
            MtcnnNet::Proposal => ("mtcnn-proposal", None),
            MtcnnNet::Refine => ("mtcnn-refine", Some([24, 24])),
            MtcnnNet::Output => ("mtcnn-output", Some([48, 48])),
        };
        let about = "Upright RGB pixels as (v - 127.5) / 128 to the logits of \"no face\" and \"face\", four offsets of the box in its \
                     sides, and (output net only) five x and five y of the landmarks in sides of the box.";
        let description = Description {
            name,
            about: about.to_owned(),
            input: ("pixels", sides),
            output: "heads",
            scaling: Scaling::None,
            metadata: vec![("detector", self.name().to_owned())],
        };
        onnx::encode(&self.nets.get(net).graph, &description)
    }

    /// First stage: every position at every size.
    fn propose(&self, pyramid: &Pyramid<'_>) -> Result<Vec<Candidate>> {
        let (width, height) = pyramid.size();
        let mut scale = CELL / self.options.face_px_min as f32;
        let mut proposals = Vec::new();
        while width.min(height) as f32 * scale >= CELL {
            let heads = self.nets.proposal.forward(&pyramid.at_scale(scale))?;
            let columns = heads.shape[2];
            let found = passing(&heads, self.options.thresholds[0]).into_iter().map(|(index, score, heads)| {
                let [x, y] = [index % columns, index / columns].map(|at| STRIDE * at as f32);
                let edge = |at: f32| (at / scale).trunc();
                let (x1, y1, x2, y2) = (edge(x + 1.0), edge(y + 1.0), edge(x + CELL), edge(y + CELL));
                (Candidate { x1, y1, x2, y2, score }, heads)
            });
            proposals.extend(suppress(found.collect(), |(c, _)| c, 0.5, Overlap::Union, CANDIDATES_MAX));
            scale *= SCALE_STEP;
        }
        let kept = suppress(proposals, |(candidate, _)| candidate, 0.7, Overlap::Union, CANDIDATES_MAX);
        Ok(kept.into_iter().map(|(c, heads)| c.moved(&heads[2..6], c.x2 - c.x1, c.y2 - c.y1).squared()).collect())
    }

    /// Second stage: candidates at 24 x 24.
    fn refine(&self, pyramid: &Pyramid<'_>, candidates: &[Candidate]) -> Result<Vec<Candidate>> {
        let found = look(&self.nets.refine, pyramid, candidates, 24, self.options.thresholds[1])?;
        let kept = suppress(found, |(candidate, _)| candidate, 0.7, Overlap::Union, CANDIDATES_MAX);
        Ok(kept.into_iter().map(|(c, heads)| c.moved(&heads[2..6], c.width(), c.height()).squared()).collect())
    }

    /// Third stage: what is left at 48 x 48, with landmarks.
    fn finish(&self, pyramid: &Pyramid<'_>, candidates: &[Candidate]) -> Result<Vec<(Candidate, Landmarks)>> {
        let found = look(&self.nets.output, pyramid, candidates, 48, self.options.thresholds[2])?;
        let placed = found.into_iter().map(|(c, heads)| {
            let landmarks = Landmarks(std::array::from_fn(|i| {
                [c.x1 - 1.0 + c.width() * heads[6 + i], c.y1 - 1.0 + c.height() * heads[11 + i]]
            }));
            (c.moved(&heads[2..6], c.width(), c.height()), landmarks)
        });
        Ok(suppress(placed.collect(), |(candidate, _)| candidate, 0.7, Overlap::Smaller, CANDIDATES_MAX))
    }
}

impl Detect for Mtcnn {
    fn detect(&self, photo: &Photo) -> Result<Vec<Face>> {
        let pyramid = Pyramid::new(photo, self.options.side_px_max);
        let candidates = self.propose(&pyramid)?;
        let candidates = self.refine(&pyramid, &candidates)?;
        let found = self.finish(&pyramid, &candidates)?;
        let reduction = pyramid.reduction();
        let mut faces: Vec<Face> = found
            .into_iter()
            .filter(|(c, _)| c.x2 > c.x1 && c.y2 > c.y1)
            .map(|(c, landmarks)| {
                let [x, y, width, height] = [c.x1, c.y1, c.x2 - c.x1, c.y2 - c.y1].map(|value| value * reduction);
                // The centre of the first pixel of a reduced photo is not that of the photo's first pixel.
                let at = |value: f32| (value + 0.5) * reduction - 0.5;
                Face {
                    bounds: Bounds { x, y, width, height },
                    landmarks: Landmarks(landmarks.0.map(|point| point.map(at))),
                    confidence: c.score,
                }
            })
            .collect();
        faces.sort_by(|a, b| b.bounds.area().total_cmp(&a.bounds.area()));
        Ok(faces)
    }

    fn name(&self) -> &str {
        "mtcnn-1"
    }
}

/// Shows candidates to a net, `side` pixels on a side, and keeps those it takes for faces, on whole pixels, with all that it says.
fn look(
    net: &Net,
    pyramid: &Pyramid<'_>,
    candidates: &[Candidate],
    side: usize,
    threshold: f32,
) -> Result<Vec<(Candidate, Vec<f32>)>> {
    let candidates: Vec<Candidate> =
        candidates.iter().map(|c| c.truncated()).filter(|c| c.width() >= 1.0 && c.height() >= 1.0).collect();
    let mut found = Vec::new();
    for batch in candidates.chunks(BATCH) {
        let window = |c: &Candidate| Window { x: c.x1 - 1.0, y: c.y1 - 1.0, width: c.width(), height: c.height() };
        let windows: Vec<Window> = batch.iter().map(window).collect();
        let heads = net.forward(&pyramid.windows(&windows, side))?;
        let faces = passing(&heads, threshold).into_iter();
        found.extend(faces.map(|(index, score, heads)| (Candidate { score, ..batch[index] }, heads)));
    }
    Ok(found)
}

/// What a net says where it sees a face: the position, the probability and the row of outputs.
fn passing(heads: &Maps, threshold: f32) -> Vec<(usize, f32, Vec<f32>)> {
    let rows = heads.values.chunks_exact(heads.shape[3]).enumerate();
    let scored = rows.map(|(index, heads)| (index, probability(heads), heads));
    scored
        .filter(|(_, score, _)| *score > threshold)
        .map(|(index, score, heads)| (index, score, heads.to_vec()))
        .collect()
}
