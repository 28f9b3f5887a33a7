//! Photos in, people out, in thirty lines: ingest a folder per person, then ask who is in another photo.
//!
//! `cargo run --release --example quickstart [PEOPLE_FOLDER PHOTO]`

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use vultus::gallery::IdentifyOptions;
use vultus::ingest::{self, Options, PersonFrom};
use vultus::photo::Limits;
use vultus::{Gallery, Photo, Recognizer};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let people = arguments.next().unwrap_or_else(|| "samples/people".into());
    let photo = arguments.next().unwrap_or_else(|| "samples/groups/group01.jpg".into());

    // A gallery is a folder. The recognizer finds and embeds faces, the gallery remembers them.
    let folder = tempfile::tempdir()?;
    let gallery = Gallery::open(folder.path(), Recognizer::bundled()?)?;

    // Each folder below `people` is a person, each photo in it shows that person.
    let paths = vec![PathBuf::from(people)];
    let options = Options { paths, person_from_folder: PersonFrom::Folder, ..Options::default() };
    let progress = ingest::run(&gallery, &options, &AtomicBool::new(false), &())?;
    println!("{} photos, {} faces in {:.1} s", progress.added, progress.faces, progress.seconds);

    // A threshold is a false-accept rate that was measured for the model, never a magic number.
    let within = gallery.recognizer().calibration().threshold(1e-3)?;
    let options = IdentifyOptions { k: 10, within, filter: None, exact: false };
    let photo = Photo::decode(&std::fs::read(photo)?, &Limits::default())?;
    for face in gallery.identify(&photo, &options)? {
        match face.people.first() {
            Some(best) => println!("{}: {}, distance {:.3}", face.face.bounds, best.person, best.distance),
            None => println!("{}: unknown", face.face.bounds),
        }
    }
    Ok(())
}
