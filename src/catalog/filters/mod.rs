//! Which faces a filter lets through, answered by tantivy: a view over the records, rebuilt when it is damaged.
