//! cluster: who belongs together, over the whole gallery.

use super::Gallery;
use crate::Result;
use crate::catalog::FaceId;
use crate::clustering::{self, Method, Partition};

/// What cluster found in the whole gallery.
#[derive(Clone, Debug)]
pub struct Clustered {
    /// The faces, ascending by id.
    pub faces: Vec<FaceId>,
    /// Which group each belongs to.
    pub partition: Partition,
}

impl Gallery {
    /// Groups every stored face.
    ///
    /// ```
    /// # use vultus::{Gallery, Recognizer, catalog::Metadata, clustering::Method};
    /// # let folder = tempfile::tempdir()?;
    /// # let png = |color| -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    /// #     let mut bytes = std::io::Cursor::new(Vec::new());
    /// #     image::RgbImage::from_pixel(120, 120, image::Rgb(color)).write_to(&mut bytes, image::ImageFormat::Png)?;
    /// #     Ok(bytes.into_inner())
    /// # };
    /// let gallery = Gallery::open(folder.path(), Recognizer::double())?;
    /// gallery.ingest(&png([200, 90, 40])?, "a.png", None, Metadata::new())?;
    /// gallery.ingest(&png([10, 20, 240])?, "b.png", None, Metadata::new())?;
    /// gallery.ingest(&png([201, 90, 40])?, "c.png", None, Metadata::new())?;
    ///
    /// let cut = gallery.recognizer().calibration().threshold(1e-3)?;
    /// let found = gallery.cluster(Method::AverageLinkage { cut })?;
    /// assert_eq!(found.partition.labels, [0, 1, 0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `Argument` as [`clustering::cluster`].
    pub fn cluster(&self, method: Method) -> Result<Clustered> {
        let now = self.catalog.read()?;
        let (mut faces, mut embeddings) = (Vec::new(), Vec::new());
        for record in now.faces_from(FaceId(0))? {
            let record = record?;
            faces.push(record.id);
            embeddings.push(record.embedding);
        }
        Ok(Clustered { faces, partition: clustering::cluster(&embeddings, method)? })
    }
}
