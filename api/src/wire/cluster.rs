//! Groups of faces as JSON, with the names that the gallery knows and how well both agree.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use vultus::Result;
use vultus::catalog::FaceId;
use vultus::clustering::{self, Method};
use vultus::gallery::{Clustered, Gallery};

use super::people::Person;

/// Faces read at once while names are looked up; bounds memory, since a record carries its embedding.
const PAGE_FACES: usize = 1024;

/// Every stored face, grouped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// `average_linkage` or `k_means`.
    pub method: String,
    /// For average linkage: groups merge while their mean squared distance is at most this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<f32>,
    /// For k-means: the number of groups wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k: Option<usize>,
    /// For k-means: the seed of the initial centres.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Faces grouped.
    pub faces: u64,
    /// The groups, largest first, equal sizes by their first face.
    pub groups: Vec<Group>,
    /// How well groups and names agree, when any face is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<Agreement>,
}

/// Faces that look like one person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Their ids, ascending.
    pub faces: Vec<u64>,
    /// The names that these faces carry, most faces first; empty when none is named.
    pub people: Vec<Person>,
}

/// How well groups agree with the names, over the faces that have one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Named faces that were compared.
    pub faces: u64,
    /// BCubed: averaged over faces.
    pub bcubed: PrecisionRecall,
    /// Over pairs of faces.
    pub pairwise: PrecisionRecall,
}

/// Precision, recall and their harmonic mean, each 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrecisionRecall {
    /// Of what was put together, the share that belongs together.
    pub precision: f64,
    /// Of what belongs together, the share that was put together.
    pub recall: f64,
    /// Harmonic mean.
    pub f: f64,
}

impl From<&clustering::PrecisionRecall> for PrecisionRecall {
    fn from(from: &clustering::PrecisionRecall) -> Self {
        Self { precision: from.precision, recall: from.recall, f: from.f }
    }
}

impl Cluster {
    /// What [`Gallery::cluster`] answered, with the names that the gallery holds.
    ///
    /// # Errors
    /// Only of storage.
    pub fn read(gallery: &Gallery, clustered: &Clustered, method: Method) -> Result<Self> {
        Self::new(clustered, method, &names(gallery)?)
    }

    fn new(clustered: &Clustered, method: Method, names: &HashMap<FaceId, String>) -> Result<Self> {
        let (method, cut, k, seed) = match method {
            Method::AverageLinkage { cut } => ("average_linkage", Some(cut), None, None),
            Method::KMeans { k, seed } => ("k_means", None, Some(k), Some(seed)),
        };
        Ok(Self {
            method: method.to_owned(),
            cut,
            k,
            seed,
            faces: clustered.faces.len() as u64,
            groups: groups(clustered, names),
            agreement: agreement(clustered, names)?,
        })
    }
}

/// Every name that a stored face carries.
fn names(gallery: &Gallery) -> Result<HashMap<FaceId, String>> {
    let mut names = HashMap::new();
    let mut from = FaceId(0);
    loop {
        let page = gallery.faces(None, from, PAGE_FACES)?;
        let Some(last) = page.last() else { return Ok(names) };
        from = FaceId(last.id.0 + 1);
        names.extend(page.into_iter().filter_map(|record| Some((record.id, record.person?))));
    }
}

fn groups(clustered: &Clustered, names: &HashMap<FaceId, String>) -> Vec<Group> {
    let mut members: BTreeMap<u32, Vec<FaceId>> = BTreeMap::new();
    for (face, label) in clustered.faces.iter().zip(&clustered.partition.labels) {
        members.entry(*label).or_default().push(*face);
    }
    // Labels count up in order of first appearance and the sort is stable, so equal sizes stay by first face.
    let mut members: Vec<Vec<FaceId>> = members.into_values().collect();
    members.sort_by_key(|faces| std::cmp::Reverse(faces.len()));
    members.iter().map(|faces| group(faces, names)).collect()
}

fn group(faces: &[FaceId], names: &HashMap<FaceId, String>) -> Group {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for name in faces.iter().filter_map(|face| names.get(face)) {
        *counts.entry(name).or_default() += 1;
    }
    let mut people: Vec<Person> =
        counts.into_iter().map(|(name, faces)| Person { name: name.to_owned(), faces }).collect();
    people.sort_by_key(|person| std::cmp::Reverse(person.faces));
    Group { faces: faces.iter().map(|face| face.0).collect(), people }
}

fn agreement(clustered: &Clustered, names: &HashMap<FaceId, String>) -> Result<Option<Agreement>> {
    let mut label_of_name: HashMap<&str, u32> = HashMap::new();
    let (mut found, mut truth) = (Vec::new(), Vec::new());
    for (face, label) in clustered.faces.iter().zip(&clustered.partition.labels) {
        if let Some(name) = names.get(face) {
            let next = label_of_name.len() as u32;
            truth.push(*label_of_name.entry(name).or_insert(next));
            found.push(*label);
        }
    }
    if found.is_empty() {
        return Ok(None);
    }
    let agreement = clustering::agreement(&found, &truth)?;
    Ok(Some(Agreement {
        faces: found.len() as u64,
        bcubed: PrecisionRecall::from(&agreement.bcubed),
        pairwise: PrecisionRecall::from(&agreement.pairwise),
    }))
}

#[cfg(test)]
mod tests {
    use vultus::clustering::Partition;

    use super::*;

    #[test]
    fn groups_come_largest_first_with_their_names() {
        let clustered = Clustered {
            faces: [2, 3, 5, 7, 11].map(FaceId).to_vec(),
            partition: Partition { labels: vec![0, 1, 1, 2, 1] },
        };
        let names = HashMap::from([3, 5].map(|id| (FaceId(id), "ana".to_owned())));
        let names = names.into_iter().chain([(FaceId(11), "aaron".to_owned())]).collect();
        let person = |name: &str, faces| Person { name: name.to_owned(), faces };
        assert_eq!(
            groups(&clustered, &names),
            [
                Group { faces: vec![3, 5, 11], people: vec![person("ana", 2), person("aaron", 1)] },
                Group { faces: vec![2], people: vec![] },
                Group { faces: vec![7], people: vec![] },
            ]
        );
    }

    #[test]
    fn without_names_nothing_is_said_about_agreement() {
        let clustered = Clustered { faces: vec![FaceId(1)], partition: Partition { labels: vec![0] } };
        let cluster = Cluster::new(&clustered, Method::AverageLinkage { cut: 0.5 }, &HashMap::new())
            .expect("nothing to compare, nothing to fail");
        let json = serde_json::to_value(&cluster).expect("plain data");
        let expected = serde_json::json!({
            "method": "average_linkage", "cut": 0.5, "faces": 1, "groups": [{"faces": [1], "people": []}]
        });
        assert_eq!(json, expected);
    }
}
