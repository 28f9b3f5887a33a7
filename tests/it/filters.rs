//! Tests of `filters`.
