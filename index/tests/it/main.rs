//! The index from outside, one module for each promise.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod crafted;
mod damage;
mod data;
mod filters;
mod format;
mod full_disk;
mod kept;
mod killed;
mod model;
mod power;
mod readers;
mod recall;
mod refusals;
mod simulated;
mod together;
