//! Tests of `face`.
