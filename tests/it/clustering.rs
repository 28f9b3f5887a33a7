//! Tests of `clustering`.
