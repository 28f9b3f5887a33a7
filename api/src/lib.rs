//! The HTTP surface of vultus.

pub mod wire;
