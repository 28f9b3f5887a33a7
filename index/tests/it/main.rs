//! The index from outside, one module for each promise.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod data;
mod model;
mod refusals;
