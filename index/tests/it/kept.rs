//! Indexes that keep less of their vectors than all of it.

use tempfile::tempdir;
use vultus_index::{Effort, Index, Kept, Options, Search};

use crate::data::{clustered, options, unit};

const DIMENSIONS: usize = 128;

/// Squared distance.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum()
}

/// The first ids whose vectors are nearest to a query.
fn nearest(vectors: &[Vec<f32>], query: &[f32], k: usize) -> Vec<u64> {
    let mut all: Vec<(f32, u64)> = vectors.iter().zip(0..).map(|(vector, id)| (distance(vector, query), id)).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all[..k].iter().map(|(_, id)| *id).collect()
}

fn add_all(index: &mut Index, vectors: &[Vec<f32>]) {
    vectors.iter().zip(0..).for_each(|(vector, id)| index.add(id, vector).unwrap());
    index.seal(1).unwrap();
    index.settle().unwrap();
}

#[test]
fn what_is_kept_takes_little_room_and_finds_nearly_the_same() {
    let mut vectors = clustered(3, 6_060, DIMENSIONS);
    let queries = vectors.split_off(6_000);
    let truth: Vec<Vec<u64>> = queries.iter().map(|query| nearest(&vectors, query, 10)).collect();
    // Bytes a vector (so few have some four for what any index has), recall among the vectors as they were added, and how far off a distance may be.
    let kinds = [(Kept::F32, 724.0, 0.99, 1e-5), (Kept::Bf16, 468.0, 0.98, 2e-3), (Kept::Codes, 260.0, 0.95, 0.02)];
    for (kept, bytes_max, recall_min, off_max) in kinds {
        let folder = tempdir().unwrap();
        let mut index = Index::open(folder.path(), Options { kept, ..options(DIMENSIONS, 2_000) }).unwrap();
        add_all(&mut index, &vectors);
        let files = folder.path().read_dir().unwrap().map(|file| file.unwrap().metadata().unwrap().len());
        let bytes = files.sum::<u64>() as f64 / vectors.len() as f64;
        assert!(bytes < bytes_max, "{kept:?}: {bytes} bytes a vector");

        for effort in [Effort::Exact, Effort::Width(128), Effort::Recall(0.999)] {
            let mut hits = 0;
            for (query, truth) in queries.iter().zip(&truth) {
                let found = index.search(query, &Search { effort, ..Search::default() }).unwrap();
                assert_eq!(found.len(), 10);
                for found in found {
                    let off = (found.distance - distance(&vectors[found.id as usize], query)).abs();
                    assert!(off < off_max, "{kept:?}: a distance is off by {off}");
                    hits += usize::from(truth.contains(&found.id));
                }
            }
            let recall = hits as f64 / (10 * queries.len()) as f64;
            assert!(recall >= recall_min, "{kept:?}, {effort:?}: recall {recall}");
        }
        for (vector, id) in vectors.iter().zip(0..).step_by(50) {
            let read = index.vector(id).unwrap().unwrap();
            assert!(distance(&read, &unit(&read)) < 1e-9, "{kept:?}: not of unit length");
            assert!(distance(&read, vector).sqrt() < off_max, "{kept:?}: {}", distance(&read, vector).sqrt());
        }
        let graph = index.neighbors_of_all(&Search { k: 3, effort: Effort::Width(32), ..Search::default() }).unwrap();
        assert!(graph.iter().all(|(id, found)| found.len() == 3 && found.iter().all(|found| found.id != *id)));
    }
}

#[test]
fn a_folder_may_change_what_it_keeps_and_merges_lose_little() {
    let folder = tempdir().unwrap();
    let vectors = clustered(4, 4_000, DIMENSIONS);
    let mut bytes_before = u64::MAX;
    for (merges, kept) in [Kept::F32, Kept::Codes, Kept::Codes, Kept::Codes].into_iter().enumerate() {
        let mut index = Index::open(folder.path(), Options { kept, ..options(DIMENSIONS, 500) }).unwrap();
        if merges == 0 {
            add_all(&mut index, &vectors);
        } else {
            // Half of what is left goes, so that the rest is worth writing anew; what is kept is what the last merge left.
            let gone = 1 << (merges - 1);
            (0..4_000).filter(|id| id % (2 * gone) == gone).for_each(|id| assert!(index.remove(id).unwrap()));
            index.seal(merges as u64 + 1).unwrap();
            index.settle().unwrap();
            assert_eq!(index.merges(), 1);
        }
        let bytes = folder.path().read_dir().unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes < bytes_before);
        bytes_before = bytes;
        for id in index.scroll(0, usize::MAX).unwrap() {
            let off = distance(&index.vector(id).unwrap().unwrap(), &vectors[id as usize]).sqrt();
            assert!(off <= 0.02 * merges as f32, "{off} off after {merges} merges");
        }
    }
}
