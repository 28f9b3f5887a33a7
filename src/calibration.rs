//! What a distance means for one model: thresholds at stated false-accept rates, measured on held-out people.
//!
//! A threshold belongs to a model, its detector and its alignment; it is stored with the weights and is never a
//! constant in the code.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The distance below which a fraction `far` of pairs of different people falls.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperatingPoint {
    /// False-accept rate, 0 to 1.
    pub far: f64,
    /// Squared distance, 0 to 4.
    pub distance: f32,
    /// True-accept rate (the paper's VAL) at that distance.
    pub val: f64,
}

/// The operating points of one model, measured once on people that it was not trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Calibration {
    /// Where it was measured, for people to read.
    pub data: String,
    /// Pairs of the same person behind the figures.
    pub same_pairs: u64,
    /// Pairs of different people behind the figures.
    pub different_pairs: u64,
    /// Strictly ascending by `far` and by `distance`.
    pub points: Vec<OperatingPoint>,
}

/// What a threshold is for. How often strangers may pass depends on how many of them are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Two faces are compared: one pair of strangers in a thousand passes.
    Verify,
    /// A face is compared with all others: one search in twenty for somebody who is not there finds a stranger.
    Identify,
    /// All faces are compared with all: a face has one stranger within the threshold, on average.
    Cluster,
}

impl Task {
    /// The false-accept rate of one comparison among `faces` faces.
    fn far(self, faces: u64) -> f64 {
        match self {
            Self::Verify => 1e-3,
            Self::Identify => 0.05 / faces.max(1) as f64,
            Self::Cluster => 1.0 / faces.saturating_sub(1).max(1) as f64,
        }
    }
}

/// Pairs of different people that must lie behind every false-accept rate: with fewer, the rate is chance.
const PAIRS_BEHIND_MIN: usize = 10;

/// Operating points measured per factor of ten in the false-accept rate.
const POINTS_PER_DECADE: f64 = 20.0;

impl Calibration {
    /// Measures operating points from the distances of labelled pairs, on a grid of twenty false-accept rates a decade.
    ///
    /// A false-accept rate with fewer than ten impostor pairs behind it is left out.
    ///
    /// # Errors
    /// [`Error::Argument`] if `same` is empty, `different` has fewer than ten, or either holds a value that is not finite.
    ///
    /// Source: VAL and FAR as in Schroff et al., "FaceNet", CVPR 2015, section 4, equations 5 to 8.
    pub fn measure(data: &str, same: &[f32], different: &[f32]) -> Result<Self> {
        let same = sorted("same", same, 1)?;
        let different = sorted("different", different, PAIRS_BEHIND_MIN)?;
        let share = |sorted: &[f32], distance: f32| {
            sorted.partition_point(|other| *other <= distance) as f64 / sorted.len() as f64
        };
        let mut points: Vec<OperatingPoint> = Vec::new();
        for rank in ranks(different.len()) {
            let distance = different[rank - 1];
            // Ranks that tie share one distance, hence one rate.
            if points.last().is_none_or(|last| last.distance < distance) {
                points.push(OperatingPoint { far: share(&different, distance), distance, val: share(&same, distance) });
            }
        }
        Ok(Self {
            data: data.to_owned(),
            same_pairs: same.len() as u64,
            different_pairs: different.len() as u64,
            points,
        })
    }

    /// The threshold at a false-accept rate, between measured points interpolated in log FAR.
    ///
    /// # Errors
    /// [`Error::Argument`] when `far` lies outside what was measured: such a threshold would be a guess.
    pub fn threshold(&self, far: f64) -> Result<f32> {
        let (Some(first), Some(last)) = (self.points.first(), self.points.last()) else {
            return Err(Error::argument("far", "this model's calibration holds no operating points"));
        };
        if !(first.far..=last.far).contains(&far) {
            let what = format!(
                "{far:e} lies outside what was measured on {}, {:.2e} to {:.2e}",
                self.data, first.far, last.far
            );
            return Err(Error::argument("far", what));
        }
        let above = self.points.partition_point(|point| point.far <= far);
        let Some(high) = self.points.get(above) else { return Ok(last.distance) };
        // `far` is at least the first point's, so a point lies below.
        let low = &self.points[above - 1];
        let along = (far / low.far).ln() / (high.far / low.far).ln();
        let (from, to) = (f64::from(low.distance), f64::from(high.distance));
        Ok((from + along * (to - from)) as f32)
    }

    /// The threshold that suits a task in a collection of `faces` faces. It tightens as a collection grows, as far as the
    /// calibration was measured.
    ///
    /// # Errors
    /// [`Error::Argument`] when the calibration holds no operating points.
    pub fn default_threshold(&self, task: Task, faces: u64) -> Result<f32> {
        let far = task.far(faces);
        match self.points.as_slice() {
            [first, .., last] => self.threshold(far.clamp(first.far, last.far)),
            [only] => Ok(only.distance),
            [] => self.threshold(far),
        }
    }

    /// The fraction of pairs of different people that are at most this far apart: the odds that one comparison
    /// at this distance is a false match. Clamped to the measured range; 1 where nothing was measured.
    pub fn far_at(&self, distance: f32) -> f64 {
        let (Some(first), Some(last)) = (self.points.first(), self.points.last()) else { return 1.0 };
        if distance.is_nan() || distance >= last.distance {
            return last.far;
        }
        let above = self.points.partition_point(|point| point.distance <= distance);
        let Some(low) = above.checked_sub(1).map(|below| &self.points[below]) else { return first.far };
        let high = &self.points[above];
        let along =
            (f64::from(distance) - f64::from(low.distance)) / (f64::from(high.distance) - f64::from(low.distance));
        low.far * (along * (high.far / low.far).ln()).exp()
    }
}

/// The distances in ascending order.
fn sorted(name: &'static str, distances: &[f32], at_least: usize) -> Result<Vec<f32>> {
    if distances.len() < at_least {
        let what = format!("at least {at_least} pairs are needed, found {}", distances.len());
        return Err(Error::argument(name, what));
    }
    if distances.iter().any(|distance| !distance.is_finite()) {
        return Err(Error::argument(name, "a distance is not finite"));
    }
    let mut sorted = distances.to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    Ok(sorted)
}

/// How many of `count` impostor pairs each point accepts, ascending: from ten to all.
fn ranks(count: usize) -> BTreeSet<usize> {
    let decades = (count as f64 / PAIRS_BEHIND_MIN as f64).log10();
    let steps = (decades * POINTS_PER_DECADE).floor() as u32;
    let mut ranks: BTreeSet<usize> = (0..=steps)
        .map(|step| (count as f64 * 10f64.powf(-f64::from(step) / POINTS_PER_DECADE)).round() as usize)
        .filter(|rank| (PAIRS_BEHIND_MIN..=count).contains(rank))
        .collect();
    ranks.insert(PAIRS_BEHIND_MIN);
    ranks
}

/// A calibration as it stands in a weights file, before anybody trusts it.
#[derive(Deserialize)]
struct Stored {
    data: String,
    same_pairs: u64,
    different_pairs: u64,
    points: Vec<OperatingPoint>,
}

impl TryFrom<Stored> for Calibration {
    type Error = String;

    fn try_from(Stored { data, same_pairs, different_pairs, points }: Stored) -> Result<Self, String> {
        for (at, point) in points.iter().enumerate() {
            let rates = point.far > 0.0 && point.far <= 1.0 && (0.0..=1.0).contains(&point.val);
            if !rates || !(0.0..=4.5).contains(&point.distance) {
                return Err(format!("operating point {at} is out of range: {point:?}"));
            }
        }
        if points.windows(2).any(|pair| pair[0].far >= pair[1].far || pair[0].distance >= pair[1].distance) {
            return Err("operating points do not ascend".to_owned());
        }
        Ok(Self { data, same_pairs, different_pairs, points })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use proptest::prelude::*;

    use super::*;

    /// A thousand different pairs at 0.001, 0.002 … 1.000 and ten of the same person.
    fn even() -> Calibration {
        let different: Vec<f32> = (1..=1000).map(|rank| rank as f32 / 1000.0).collect();
        let same: Vec<f32> = (1..=10).map(|rank| rank as f32 / 100.0).collect();
        Calibration::measure("an even spread", &same, &different).unwrap()
    }

    #[test]
    fn on_evenly_spread_pairs_a_threshold_is_its_own_false_accept_rate() {
        let calibration = even();
        for far in [0.01, 0.05, 0.1, 0.5, 1.0] {
            let threshold = calibration.threshold(far).unwrap();
            assert!((f64::from(threshold) - far).abs() < 0.002 * (1.0 + 10.0 * far), "{far} gave {threshold}");
        }
        let tenth = calibration.points.iter().find(|point| point.far == 0.1).unwrap();
        assert_eq!((tenth.distance, tenth.val), (0.1, 1.0));
    }

    #[test]
    fn every_point_has_ten_impostors_behind_it_and_the_last_accepts_all() {
        let calibration = even();
        assert_eq!(calibration.points[0].far, 0.01);
        assert_eq!(calibration.points.last().unwrap().far, 1.0);
        assert_eq!((calibration.same_pairs, calibration.different_pairs), (10, 1000));
    }

    #[test]
    fn a_rate_outside_the_measured_range_is_refused_and_the_range_named() {
        for far in [1e-3, 0.0, -1.0, 1.5, f64::NAN] {
            let message = even().threshold(far).unwrap_err().to_string();
            assert!(message.contains("1.00e-2 to 1.00e0"), "{message}");
        }
    }

    #[test]
    fn odds_beyond_the_measured_range_are_clamped_and_never_flatter() {
        let calibration = even();
        assert_eq!(calibration.far_at(0.0), 0.01);
        assert_eq!(calibration.far_at(3.9), 1.0);
        assert_eq!(calibration.far_at(f32::NAN), 1.0, "no distance must not look like a sure match");
        let nothing = Calibration { points: Vec::new(), ..calibration };
        assert_eq!(nothing.far_at(0.0), 1.0);
        assert!(nothing.threshold(0.1).is_err());
    }

    #[test]
    fn too_few_pairs_and_values_that_are_not_finite_are_refused() {
        let ten = [1.0; 10];
        assert!(Calibration::measure("t", &[], &ten).is_err());
        assert!(Calibration::measure("t", &[0.5], &ten[1..]).is_err());
        assert!(Calibration::measure("t", &[f32::NAN], &ten).is_err());
        assert!(Calibration::measure("t", &[0.5], &[f32::INFINITY; 10]).is_err());
        assert_eq!(Calibration::measure("t", &[0.5], &ten).unwrap().points.len(), 1, "ties share a point");
    }

    #[test]
    fn a_stored_calibration_that_does_not_ascend_is_refused() {
        let good = serde_json::to_value(even()).unwrap();
        assert_eq!(serde_json::from_value::<Calibration>(good.clone()).unwrap(), even());
        for (member, value) in [("far", 0.9), ("far", 0.0), ("distance", 0.9), ("distance", -1.0), ("val", 2.0)] {
            let mut bad = good.clone();
            bad["points"][0][member] = value.into();
            assert!(serde_json::from_value::<Calibration>(bad).is_err(), "{member} of {value} went unnoticed");
        }
    }

    proptest! {
        #[test]
        fn points_ascend_and_the_two_directions_agree(
            same in prop::collection::vec(0f32..4.0, 1..50),
            different in prop::collection::vec(prop_oneof![0f32..4.0, Just(1.5f32)], 10..400),
            along in 0f64..=1.0,
        ) {
            let calibration = Calibration::measure("t", &same, &different).unwrap();
            let points = &calibration.points;
            for pair in points.windows(2) {
                prop_assert!(pair[0].far < pair[1].far && pair[0].distance < pair[1].distance);
                prop_assert!(pair[0].val <= pair[1].val);
            }
            let (first, last) = (points[0], points[points.len() - 1]);
            let far = (first.far * (along * (last.far / first.far).ln()).exp()).clamp(first.far, last.far);
            let threshold = calibration.threshold(far).unwrap();
            prop_assert!((first.distance..=last.distance).contains(&threshold));
            // A threshold is rounded to f32, and a rate moves by the slope times that rounding.
            let steepest = points.windows(2)
                .map(|pair| (pair[1].far / pair[0].far).ln() / f64::from(pair[1].distance - pair[0].distance))
                .fold(0.0, f64::max);
            let error = (calibration.far_at(threshold) / far).ln().abs();
            prop_assert!(error <= steepest * 4.0 * f64::from(f32::EPSILON) + 1e-9, "{far} came back off by {error:e}");
        }

        #[test]
        fn a_larger_distance_is_never_less_likely_false(a in 0f32..4.0, b in 0f32..4.0) {
            let (near, far) = (a.min(b), a.max(b));
            prop_assert!(even().far_at(near) <= even().far_at(far));
        }
    }
}
