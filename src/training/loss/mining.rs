//! Which triplets of a batch are worth a step.
//!
//! All of them compare faces of one source: people of two sources may be the same person under two names.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Anchor, positive and negative, as places in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Triplet {
    /// The face that both others are compared with.
    pub anchor: usize,
    /// Another face of the same person.
    pub positive: usize,
    /// A face of somebody else.
    pub negative: usize,
}

/// How triplets are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mining {
    /// Each anchor-positive pair with the nearest negative that is farther than the positive, but by less than the margin: Schroff et al.
    /// 2015 (arXiv:1503.03832), section 3.2.
    #[default]
    SemiHard,
    /// Each anchor with its farthest positive and its nearest negative: "batch hard", Hermans et al. 2017 (arXiv:1703.07737), equation 5.
    Hard,
    /// Every triplet: "batch all", equation 6 there; of a hinge, those that it doesn't let pass.
    All,
}

impl Mining {
    /// How many triplets there are for it at most, the first `anchors` of the faces being the anchors.
    pub(in crate::training) fn most(self, anchors: usize, labels: &[usize]) -> usize {
        let same = |label: &usize| labels.iter().filter(|other| *other == label).count();
        let anchors = labels.iter().take(anchors);
        match self {
            Self::SemiHard => anchors.map(|label| same(label) - 1).sum(),
            Self::Hard => anchors.filter(|label| same(label) > 1).count(),
            Self::All => anchors.map(|label| (same(label) - 1) * (labels.len() - same(label))).sum(),
        }
    }
}

/// Chooses triplets whose anchors are the faces of a batch; positives and negatives may also be faces that are remembered from batches before.
///
/// - `distances`: `batch * faces` squared distances, row after row; the first faces are those of the batch.
/// - `labels`: whose face each is; `sources`: which collection it is from.
/// - `margin`: a squared distance; none for the soft margin, which lets nothing pass.
/// - Of faces that are equally near, the first. Takes time in proportion to the pairs times the batch.
pub fn mine(
    mining: Mining,
    distances: &[f32],
    labels: &[usize],
    sources: &[usize],
    margin: Option<f32>,
) -> Vec<Triplet> {
    let count = labels.len();
    let anchors = distances.len() / count.max(1);
    assert!(distances.len() == anchors * count && anchors <= count, "a row of distances for each face of the batch");
    assert_eq!(sources.len(), count, "a source for each label");
    let of_anchor = |anchor: usize| {
        let row = &distances[anchor * count..][..count];
        // Faces that are no negatives lie beyond every margin.
        let apart = |other: usize| labels[other] != labels[anchor] && sources[other] == sources[anchor];
        let negatives: Vec<f32> = (0..count).map(|n| if apart(n) { row[n] } else { f32::INFINITY }).collect();
        let positives = (0..count).filter(|p| *p != anchor && labels[*p] == labels[anchor]);
        let with = |positive: usize, negative: usize| Triplet { anchor, positive, negative };
        let nearest = |low: f32, high: f32| {
            let nearest = lowest_between(&negatives, low, high)?;
            negatives.iter().position(|distance| *distance == nearest)
        };
        match mining {
            Mining::SemiHard => {
                let high = |positive: usize| row[positive] + margin.unwrap_or(f32::INFINITY);
                positives.filter_map(|p| Some(with(p, nearest(row[p], high(p))?))).collect::<Vec<_>>()
            }
            Mining::Hard => {
                // The first of those that are equally far.
                let farthest = positives.reduce(|far, p| if row[p] > row[far] { p } else { far });
                let triplet = |p| Some(with(p, nearest(f32::NEG_INFINITY, f32::INFINITY)?));
                farthest.and_then(triplet).into_iter().collect()
            }
            Mining::All => {
                let passed = |p: usize, n: usize| margin.is_some_and(|margin| row[p] + margin <= row[n]);
                let all = positives.flat_map(|p| (0..count).filter(|n| apart(*n)).map(move |n| (p, n)));
                all.filter(|(p, n)| !passed(*p, *n)).map(|(p, n)| with(p, n)).collect()
            }
        }
    };
    (0..anchors).into_par_iter().with_min_len(ANCHORS).flat_map_iter(of_anchor).collect()
}

/// Anchors that one task mines for at least.
const ANCHORS: usize = 32;

/// Distances that are compared side by side.
const LANES: usize = 16;

/// The lowest value above `low` and below `high`, both excluded.
fn lowest_between(values: &[f32], low: f32, high: f32) -> Option<f32> {
    let within = |value: f32| if value > low && value < high { value } else { f32::INFINITY };
    let (blocks, rest) = values.as_chunks::<LANES>();
    let mut lowest = [f32::INFINITY; LANES];
    for block in blocks {
        lowest.iter_mut().zip(block).for_each(|(lowest, value)| *lowest = lowest.min(within(*value)));
    }
    let lowest = lowest.into_iter().chain(rest.iter().map(|value| within(*value))).fold(f32::INFINITY, f32::min);
    (lowest < f32::INFINITY).then_some(lowest)
}
