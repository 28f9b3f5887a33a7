//! Faces of the batches before, as they were embedded then: more positives and negatives than a batch has room for.
//!
//! Wang et al. 2020, "Cross-Batch Memory for Embedding Learning" (arXiv:1912.06798): an embedding changes so slowly that old ones still tell where a
//! person is. No gradient goes through them.

use std::borrow::Cow;

use candle_core::{Result, Tensor};

/// The latest faces, oldest first.
#[derive(Default)]
pub(in crate::training) struct Memory {
    /// `(faces, 128)`, none before the first is remembered.
    pub(in crate::training) embeddings: Option<Tensor>,
    pub(in crate::training) labels: Vec<usize>,
}

impl Memory {
    /// The faces of a batch and those that are remembered, with their labels.
    ///
    /// # Errors
    /// When the device fails.
    pub(in crate::training) fn with<'a>(
        &self,
        batch: &Tensor,
        labels: &'a [usize],
    ) -> Result<(Tensor, Cow<'a, [usize]>)> {
        match &self.embeddings {
            Some(embeddings) => Ok((Tensor::cat(&[batch, embeddings], 0)?, [labels, &self.labels].concat().into())),
            None => Ok((batch.clone(), labels.into())),
        }
    }

    /// Remembers a batch, and forgets the oldest so that `most` faces stay.
    ///
    /// # Errors
    /// When the device fails.
    pub(in crate::training) fn remember(&mut self, batch: &Tensor, labels: &[usize], most: usize) -> Result<()> {
        self.labels.extend(labels);
        let surplus = self.labels.len().saturating_sub(most);
        self.labels.drain(..surplus);
        let batch = batch.detach();
        let all = match &self.embeddings {
            Some(embeddings) => Tensor::cat(&[embeddings, &batch], 0)?,
            None => batch,
        };
        self.embeddings = (most > 0).then(|| all.narrow(0, surplus, self.labels.len())?.contiguous()).transpose()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

    use candle_core::Device;

    use super::*;

    #[test]
    fn the_latest_faces_are_remembered_with_their_labels() {
        let mut memory = Memory::default();
        let batch = |faces: &[f32]| Tensor::from_slice(faces, (faces.len(), 1), &Device::Cpu).unwrap();
        let seen = |memory: &Memory| {
            let (faces, labels) = memory.with(&batch(&[9.0]), &[90]).unwrap();
            (faces.flatten_all().unwrap().to_vec1::<f32>().unwrap(), labels.into_owned())
        };
        assert_eq!(seen(&memory), (vec![9.0], vec![90]));
        memory.remember(&batch(&[1.0, 2.0]), &[10, 20], 3).unwrap();
        assert_eq!(seen(&memory), (vec![9.0, 1.0, 2.0], vec![90, 10, 20]));
        memory.remember(&batch(&[3.0, 4.0]), &[30, 40], 3).unwrap();
        assert_eq!(seen(&memory), (vec![9.0, 2.0, 3.0, 4.0], vec![90, 20, 30, 40]));
        memory.remember(&batch(&[5.0, 6.0, 7.0, 8.0]), &[50, 60, 70, 80], 3).unwrap();
        assert_eq!(seen(&memory), (vec![9.0, 6.0, 7.0, 8.0], vec![90, 60, 70, 80]));
        memory.remember(&batch(&[1.0]), &[10], 0).unwrap();
        assert_eq!(seen(&memory), (vec![9.0], vec![90]));
    }
}
