//! The library from outside: one program, so that it links once.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

mod catalog;
mod clustering;
mod detect;
mod evaluation;
mod face;
mod filters;
mod gallery;
#[cfg(feature = "cuda")]
mod gpu;
mod ingest;
mod model;
mod photo;
mod tidy;
mod training;
