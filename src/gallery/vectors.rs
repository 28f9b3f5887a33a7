//! The index of vectors in a gallery: one writer, and readers that don't wait for it.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use vultus_index::Index;

use super::view::Follower;
use crate::Result;
use crate::catalog::{Catalog, Snapshot};

/// The index behind its writer's lock, and beside it what was published last.
pub(super) struct Vectors {
    writer: Mutex<Follower<Index>>,
    published: ArcSwap<Published>,
}

struct Published {
    /// The commit that it contains, at least.
    applied: u64,
    vectors: Arc<vultus_index::Snapshot>,
}

impl Published {
    fn of(follower: &mut Follower<Index>) -> Arc<Self> {
        let applied = follower.applied();
        let index = follower.view_mut();
        index.publish();
        Arc::new(Self { applied, vectors: index.reader().snapshot() })
    }
}

impl Vectors {
    /// Opens the index in the gallery's folder and brings it to `now`; see [`Follower::open`].
    pub(super) fn open(gallery: &Path, now: &Snapshot, rebuilt: &mut Vec<String>) -> Result<Self> {
        let mut follower = Follower::open(gallery, now, rebuilt)?;
        let published = ArcSwap::new(Published::of(&mut follower));
        Ok(Self { writer: Mutex::new(follower), published })
    }

    /// The vectors as of this commit or a later one. Waits for the writer only where that commit is not published yet.
    pub(super) fn at(&self, sequence: u64, catalog: &Catalog) -> Result<Arc<vultus_index::Snapshot>> {
        let published = self.published.load();
        if published.applied >= sequence {
            return Ok(published.vectors.clone());
        }
        self.write(|index| index.catch_up(&catalog.read()?))?;
        Ok(self.latest())
    }

    /// What was published last, whatever it contains.
    pub(super) fn latest(&self) -> Arc<vultus_index::Snapshot> {
        self.published.load().vectors.clone()
    }

    /// Changes the index, one thread at a time; then readers see it.
    pub(super) fn write<T>(&self, change: impl FnOnce(&mut Follower<Index>) -> Result<T>) -> Result<T> {
        // Of a writer that panicked: the index says what it contains only after it does.
        let mut follower = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = change(&mut follower);
        self.published.store(Published::of(&mut follower));
        outcome
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use crate::catalog::Metadata;
    use crate::gallery::IdentifyOptions;
    use crate::{Gallery, Recognizer};

    #[test]
    fn a_question_does_not_wait_while_somebody_writes() {
        let folder = tempfile::tempdir().unwrap();
        let mut png = std::io::Cursor::new(Vec::new());
        image::RgbImage::from_pixel(120, 120, image::Rgb([200, 90, 40]))
            .write_to(&mut png, image::ImageFormat::Png)
            .unwrap();
        let gallery = Gallery::open(folder.path(), Recognizer::double()).unwrap();
        gallery.ingest(&png.into_inner(), "ana.png", Some("ana"), Metadata::new()).unwrap();
        let face = gallery.faces(None, crate::catalog::FaceId(0), 1).unwrap().remove(0);

        let (answer, answers) = mpsc::channel();
        let people = || gallery.nearest(&face.embedding, &IdentifyOptions::within(1.0)).unwrap().1;
        thread::scope(|scope| {
            gallery
                .index
                .write(|_| {
                    scope.spawn(move || answer.send(people()).unwrap());
                    // Not before the answer is there, as long as one can be hoped for.
                    let people =
                        answers.recv_timeout(Duration::from_secs(20)).expect("an answer while the index is written to");
                    assert_eq!(people[0].person, "ana");
                    Ok(())
                })
                .unwrap();
        });
    }
}
