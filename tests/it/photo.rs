//! Tests of `photo`.
