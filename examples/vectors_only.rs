//! The index without faces: anything that can be turned into unit vectors can be searched.
//!
//! Here it is words, by their spelling. Run it with `cargo run --example vectors_only -- photgraph`.

use roaring::RoaringTreemap;
use vultus_index::{Index, Options, Search};

const DIMENSIONS: usize = 64;
const WORDS: &str = "photo photograph photographer photography phonograph portrait portray face faces facet surface \
    people person personal crop crops cropped embed embedding embedded neighbor neighbour neighborhood match matches";

fn main() -> anyhow::Result<()> {
    let typed = std::env::args().nth(1).unwrap_or_else(|| "fotographer".to_owned());
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let folder = tempfile::tempdir()?;
    let options = Options { dimensions: DIMENSIONS, ..Options::default() };

    let mut index = Index::open(folder.path(), options)?;
    for (id, word) in (0..).zip(&words) {
        index.add(id, &vector(word))?;
    }
    // Now it is in a file; what came later would have to be added again after a crash.
    index.seal(words.len() as u64)?;
    drop(index);

    let mut index = Index::open(folder.path(), options)?;
    println!("{} words, the sequence number is {}", index.count(), index.sequence());
    let search = Search { k: 3, ..Search::default() };
    print("nearest", &typed, &index, &search, &words)?;

    let short: RoaringTreemap = (0..).zip(&words).filter(|(_, word)| word.len() <= 6).map(|(id, _)| id).collect();
    print("nearest of at most six letters", &typed, &index, &Search { allowed: Some(&short), ..search }, &words)?;

    let nearest = index.search(&vector(&typed), &search)?[0].id;
    index.remove(nearest)?;
    print(&format!("nearest without {}", words[nearest as usize]), &typed, &index, &search, &words)?;
    Ok(())
}

fn print(what: &str, typed: &str, index: &Index, search: &Search<'_>, words: &[&str]) -> anyhow::Result<()> {
    let found = index.search(&vector(typed), search)?;
    let found = found.iter().map(|neighbor| format!("{} at {:.2}", words[neighbor.id as usize], neighbor.distance));
    println!("{typed}: {what}: {}", found.collect::<Vec<_>>().join(", "));
    Ok(())
}

/// Counts each run of one to three letters in one of the dimensions, by a hash, and scales the counts to unit length.
fn vector(word: &str) -> Vec<f32> {
    let letters: Vec<char> = format!("^{word}$").chars().collect();
    let mut counts = vec![0.0_f32; DIMENSIONS];
    for run in (1..=3).flat_map(|length| letters.windows(length)) {
        let hash =
            run.iter().fold(17_u64, |hash, letter| (hash ^ u64::from(*letter)).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        counts[(hash >> 32) as usize % DIMENSIONS] += 1.0;
    }
    let length = counts.iter().map(|count| count * count).sum::<f32>().sqrt();
    counts.iter().map(|count| count / length).collect()
}
