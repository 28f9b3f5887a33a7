//! How good embeddings are, by the protocols that others report: verification of labelled pairs, and identification.
//!
//! Works on embeddings in memory; [`embed_shards`] makes them from photos. Faces that were not found are never dropped:
//! each protocol says how they count.

mod all_pairs;
mod identification;
mod npz;
mod pairs;
mod shards;
mod verification;

pub use all_pairs::{AllPairs, all_pairs};
pub use identification::{Identification, OpenSet, identification};
pub use npz::write_npz;
pub use pairs::{Pair, PairList};
pub use shards::{Degradation, EmbedProgress, LabelledFace, Look, Missing, Photos, embed_shards, in_the_middle};
pub use verification::{Mean, TrueAccept, Verification, verification};
