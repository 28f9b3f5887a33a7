//! The server from outside: a real one, over a socket, on galleries whose photos of one colour are one person.

#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop")]

mod bounds;
mod refusals;
mod shutdown;
mod support;
mod verbs;
