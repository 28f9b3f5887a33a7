//! identify: whose faces are these? And the search behind it, for one embedding.

use std::collections::BTreeSet;

use roaring::RoaringTreemap;
use vultus_index::{Effort, Search};

use super::Gallery;
use crate::catalog::{FaceId, FaceRecord, Filter, Snapshot};
use crate::face::Refusal;
use crate::{Embedding, Error, Face, Photo, Result};

/// Beam width in graphs: how many candidates a search keeps, whatever `k` is.
const EF: usize = 128;

/// From this depth on, comparing with every vector is cheaper than a beam that wide.
const GRAPH_DEPTH_MAX: usize = 4_096;

/// How identify looks.
#[derive(Clone, Debug)]
pub struct IdentifyOptions {
    /// Nearest faces wanted.
    pub k: usize,
    /// Farthest squared distance that still counts as a match.
    pub within: f32,
    /// Only among these faces.
    pub filter: Option<Filter>,
    /// Compare with every stored face instead of asking the graph.
    pub exact: bool,
}

/// A stored face near the one asked about.
#[derive(Clone, Debug)]
pub struct NearFace {
    /// The stored face.
    pub record: FaceRecord,
    /// Squared distance, 0 to 4.
    pub distance: f32,
}

/// A person near the face asked about: what identify answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Match {
    /// The name.
    pub person: String,
    /// Squared distance of the person's nearest face.
    pub distance: f32,
    /// The odds that a stranger's face is that near: the model's false-accept rate at this distance, for one comparison.
    pub far: f64,
    /// The nearest face.
    pub face: FaceId,
}

/// Who one face is.
#[derive(Clone, Debug)]
pub struct Identified {
    /// The face that was asked about.
    pub face: Face,
    /// Why it could not be compared, if so; then the lists are empty.
    pub refusal: Option<Refusal>,
    /// The nearest stored faces within the threshold, nearest first.
    pub neighbors: Vec<NearFace>,
    /// The nearest named people within the threshold, nearest first; empty means unknown.
    pub people: Vec<Match>,
}

impl IdentifyOptions {
    /// The ten nearest of all faces within a threshold, through the graph.
    pub fn within(distance: f32) -> Self {
        Self { k: 10, within: distance, filter: None, exact: false }
    }

    fn check(&self) -> Result<()> {
        if self.k == 0 {
            return Err(Error::argument("k", "at least one face must be wanted"));
        }
        check_within(self.within)
    }
}

/// Thresholds are squared distances between unit vectors.
pub(super) fn check_within(within: f32) -> Result<()> {
    if (0.0..=4.0).contains(&within) {
        return Ok(());
    }
    Err(Error::argument("within", format!("a squared distance lies between 0 and 4; found {within}")))
}

impl Gallery {
    /// Who is in a photo: one answer a face, largest first.
    ///
    /// ```
    /// # use vultus::{Gallery, Photo, Recognizer, catalog::Metadata, gallery::IdentifyOptions};
    /// # let folder = tempfile::tempdir()?;
    /// # let mut ana_png = std::io::Cursor::new(Vec::new());
    /// # image::RgbImage::from_pixel(120, 120, image::Rgb([200, 90, 40])).write_to(&mut ana_png, image::ImageFormat::Png)?;
    /// # let ana_png = ana_png.into_inner();
    /// let gallery = Gallery::open(folder.path(), Recognizer::double())?;
    /// gallery.ingest(&ana_png, "ana.png", Some("ana"), Metadata::new())?;
    ///
    /// let photo = Photo::decode(&ana_png, &Default::default())?;
    /// let within = gallery.recognizer().calibration().threshold(1e-3)?;
    /// let faces = gallery.identify(&photo, &IdentifyOptions::within(within))?;
    /// assert_eq!(faces[0].people[0].person, "ana");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `Argument` for `k` of zero or a threshold outside 0 to 4.
    pub fn identify(&self, photo: &Photo, options: &IdentifyOptions) -> Result<Vec<Identified>> {
        options.check()?;
        let faces = self.recognizer.recognize(photo)?;
        let answers = faces.into_iter().map(|found| {
            let (refusal, (neighbors, people)) = match found.outcome {
                Ok(embedding) => (None, self.nearest(&embedding, options)?),
                Err(refusal) => (Some(refusal), Default::default()),
            };
            Ok(Identified { face: found.face, refusal, neighbors, people })
        });
        answers.collect()
    }

    /// The nearest stored faces and people of one embedding; at most `k` of each.
    ///
    /// One person with many photos may fill all `k` nearest faces, so the search goes deeper until `k` people are found
    /// or the threshold is passed.
    ///
    /// # Errors
    /// As [`identify`](Self::identify).
    pub fn nearest(&self, embedding: &Embedding, options: &IdentifyOptions) -> Result<(Vec<NearFace>, Vec<Match>)> {
        options.check()?;
        let allowed = options.filter.as_ref().map(|filter| self.allowed(filter)).transpose()?;
        self.with_vectors(|vectors| self.nearest_in(vectors, embedding, options, allowed.as_ref()))
    }

    fn nearest_in(
        &self,
        vectors: &vultus_index::Snapshot,
        embedding: &Embedding,
        options: &IdentifyOptions,
        allowed: Option<&RoaringTreemap>,
    ) -> Result<(Vec<NearFace>, Vec<Match>)> {
        let now = self.catalog.read()?;
        let count = vectors.count();
        let mut depth = options.k.min(count);
        loop {
            let exact = options.exact || depth > GRAPH_DEPTH_MAX;
            let effort = if exact { Effort::Exact } else { Effort::Width(EF) };
            let search = Search { k: depth, effort, allowed, within: None };
            let mut found = vectors.search(embedding.as_slice(), &search)?;
            let all_seen = found.len() < depth || depth == count;
            let before = found.len();
            found.retain(|neighbor| neighbor.distance <= options.within);
            let passed = found.len() < before;

            let (neighbors, people) = self.group(&now, &found, options.k)?;
            let enough = neighbors.len() == options.k && people.len() == options.k;
            if enough || all_seen || passed {
                return Ok((neighbors, people));
            }
            depth = (depth * 4).min(count);
        }
    }

    /// The `k` nearest faces and, by their nearest face, the `k` nearest people. A face that was forgotten meanwhile is left out.
    fn group(&self, now: &Snapshot, found: &[vultus_index::Neighbor], k: usize) -> Result<(Vec<NearFace>, Vec<Match>)> {
        let (mut neighbors, mut people, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
        for &vultus_index::Neighbor { id, distance } in found {
            let Some(record) = now.face(FaceId(id))? else { continue };
            if people.len() < k
                && let Some(person) = &record.person
                && seen.insert(person.clone())
            {
                let far = self.recognizer.calibration().far_at(distance);
                people.push(Match { person: person.clone(), distance, far, face: record.id });
            }
            if neighbors.len() < k {
                neighbors.push(NearFace { record, distance });
            }
        }
        Ok((neighbors, people))
    }
}
