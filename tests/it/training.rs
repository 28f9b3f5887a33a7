//! Tests of `training`.
