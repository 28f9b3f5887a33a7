//! Labelled crops → weights: data, sampler, augmentation, triplet loss and mining, checkpoints.
