//! Tests of `gallery`.
