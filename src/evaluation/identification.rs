//! Identification by holding out: who is this, among everybody else, and is it anybody at all?
//!
//! - Rank 1: of every person with two photos or more, one photo is held out; all other photos of all people are the
//!   gallery. The figure is the share of those probes whose nearest face is of their own person.
//! - Open set: a share of the people is taken out of the gallery altogether. Their photos, one each, should find nobody;
//!   the probes of the others should find their own person within the threshold.
//!
//! A probe without a face counts as wrong (rank 1) or as unknown (open set); strangers without a face are left out,
//! since they would flatter.

use std::collections::BTreeMap;

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::LabelledFace;
use crate::{Embedding, Error, Result};

/// The share of people who are strangers in the open-set experiment.
const STRANGERS: f64 = 0.1;

/// What holding out says.
#[derive(Clone, Debug, PartialEq)]
pub struct Identification {
    /// Photos held out, one of every person with two or more.
    pub probes: usize,
    /// Of them, photos without a face; they count as wrong.
    pub probes_without_face: usize,
    /// Faces to find them among.
    pub gallery: usize,
    /// Share of probes whose nearest face is of their own person.
    pub rank_1: f64,
    /// People who were taken out as strangers, each with one face.
    pub strangers: usize,
    /// Probes of people who stayed.
    pub enrolled: usize,
    /// One for each threshold asked for.
    pub open_set: Vec<OpenSet>,
}

/// Rates at one threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OpenSet {
    /// Squared distance, 0 to 4.
    pub within: f32,
    /// Share of probes whose nearest face is within the threshold and of their own person.
    pub identified: f64,
    /// Share of probes whose nearest face is within the threshold and of somebody else.
    pub mistaken: f64,
    /// Share of probes with no face within the threshold.
    pub unknown: f64,
    /// Share of strangers who were taken for somebody.
    pub strangers_identified: f64,
}

/// Runs both experiments; `seed` draws the photos and the strangers.
///
/// # Errors
/// [`Error::Argument`] unless at least two people have two photos, and one stranger has a face.
pub fn identification(faces: &[LabelledFace], thresholds: &[f32], seed: u64) -> Result<Identification> {
    let mut people: BTreeMap<&str, Vec<&LabelledFace>> = BTreeMap::new();
    faces.iter().for_each(|face| people.entry(&face.person).or_default().push(face));
    // By person and photo, so that the order of the shards does not move the draw.
    people.values_mut().for_each(|photos| photos.sort_by(|a, b| a.photo.cmp(&b.photo)));

    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut probes: Vec<&LabelledFace> = Vec::new();
    let mut gallery: Vec<(&str, &Embedding)> = Vec::new();
    for (person, photos) in &people {
        let held_out = (photos.len() > 1).then(|| rng.random_range(0..photos.len()));
        probes.extend(held_out.map(|at| photos[at]));
        let rest = photos.iter().enumerate().filter(|(at, _)| Some(*at) != held_out);
        gallery.extend(rest.filter_map(|(_, face)| Some((*person, face.embedding()?))));
    }
    if probes.len() < 2 {
        let what = format!("at least two people with two photos are needed, found {}", probes.len());
        return Err(Error::argument("photos", what));
    }
    let nearest = nearest_of(&probes, &gallery);
    let right = probes.iter().zip(&nearest).filter(|(probe, near)| near.is_some_and(|near| near.0 == probe.person));

    let mut names: Vec<&str> = people.keys().copied().collect();
    names.shuffle(&mut rng);
    names.truncate(((names.len() as f64 * STRANGERS).round() as usize).max(1));
    names.sort_unstable();
    let is_stranger = |person: &str| names.binary_search(&person).is_ok();
    let known: Vec<(&str, &Embedding)> = gallery.iter().copied().filter(|(person, _)| !is_stranger(person)).collect();
    let strangers: Vec<&LabelledFace> =
        names.iter().filter_map(|name| people[name].iter().copied().find(|face| face.embedding().is_some())).collect();
    let enrolled: Vec<&LabelledFace> = probes.iter().copied().filter(|probe| !is_stranger(&probe.person)).collect();
    if strangers.is_empty() || enrolled.is_empty() {
        return Err(Error::argument("photos", "too few people with faces to take one out in ten as a stranger"));
    }
    let of_strangers = nearest_of(&strangers, &known);
    let of_enrolled = nearest_of(&enrolled, &known);
    let open_set = thresholds.iter().map(|within| open_set(*within, &enrolled, &of_enrolled, &of_strangers)).collect();

    Ok(Identification {
        rank_1: right.count() as f64 / probes.len() as f64,
        probes_without_face: probes.iter().filter(|probe| probe.embedding().is_none()).count(),
        probes: probes.len(),
        gallery: gallery.len(),
        strangers: strangers.len(),
        enrolled: enrolled.len(),
        open_set,
    })
}

/// A person and how far away their nearest face is.
type Nearest<'a> = Option<(&'a str, f32)>;

/// The nearest of the gallery to each probe; nothing for a probe without a face, or in an empty gallery.
fn nearest_of<'a>(probes: &[&LabelledFace], gallery: &[(&'a str, &Embedding)]) -> Vec<Nearest<'a>> {
    let nearest = |probe: &&LabelledFace| {
        let probe = probe.embedding()?;
        let distances = gallery.iter().map(|(person, face)| (*person, probe.distance(face)));
        distances.min_by(|a, b| a.1.total_cmp(&b.1))
    };
    probes.par_iter().map(nearest).collect()
}

fn open_set(
    within: f32,
    enrolled: &[&LabelledFace],
    of_enrolled: &[Nearest<'_>],
    of_strangers: &[Nearest<'_>],
) -> OpenSet {
    let accepted = |near: &Nearest<'_>| near.is_some_and(|near| near.1 <= within);
    let found = enrolled.iter().zip(of_enrolled).filter(|(_, near)| accepted(near));
    let (mut identified, mut mistaken) = (0, 0);
    for (probe, near) in found {
        let own = near.is_some_and(|near| near.0 == probe.person);
        *(if own { &mut identified } else { &mut mistaken }) += 1;
    }
    let all = enrolled.len();
    let share = |count: usize, of: usize| count as f64 / of as f64;
    OpenSet {
        within,
        identified: share(identified, all),
        mistaken: share(mistaken, all),
        unknown: share(all - identified - mistaken, all),
        strangers_identified: share(of_strangers.iter().filter(|near| accepted(near)).count(), of_strangers.len()),
    }
}
