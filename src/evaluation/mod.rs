//! How good embeddings are: verification protocols over labelled pairs.
