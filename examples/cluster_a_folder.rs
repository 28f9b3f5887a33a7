//! Who is in this folder, without any names? Faces are found, embedded and grouped; nothing is kept on disk.
//!
//! `cargo run --release --example cluster_a_folder [FOLDER]`

use std::path::{Path, PathBuf};

use vultus::clustering::{Method, cluster};
use vultus::photo::Limits;
use vultus::{Photo, Recognizer};

fn main() -> anyhow::Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "samples/groups".into());
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    paths.sort();

    let recognizer = Recognizer::bundled()?;
    let (mut places, mut embeddings) = (Vec::new(), Vec::new());
    for path in paths.iter().filter(|path| is_jpeg(path)) {
        let photo = Photo::decode(&std::fs::read(path)?, &Limits::default())?;
        for face in recognizer.recognize(&photo)? {
            // A face that is too small, blurred or turned says why; it would only blur the groups.
            if let Ok(embedding) = face.outcome {
                places.push(format!("{} at {}", path.display(), face.face.bounds));
                embeddings.push(embedding);
            }
        }
    }

    let cut = recognizer.calibration().threshold(1e-3)?;
    let partition = cluster(&embeddings, Method::AverageLinkage { cut })?;
    let groups = partition.labels.iter().max().map_or(0, |last| last + 1);
    println!("{} faces, {groups} people", places.len());
    for group in 0..groups {
        println!("person {}", group + 1);
        let members = places.iter().zip(&partition.labels).filter(|(_, label)| **label == group);
        members.for_each(|(place, _)| println!("  {place}"));
    }
    Ok(())
}

fn is_jpeg(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "jpg" || extension == "jpeg")
}
