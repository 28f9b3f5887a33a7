//! The HTTP surface of vultus: one gallery behind `/v1`, as JSON.
//!
//! [`serve`] answers the verbs of [`vultus::Gallery`]; [`wire`] defines what they answer. The handlers only translate:
//! whatever computes or touches the disk runs on worker threads, of which there are as many as cores, so that
//! the threads that talk to clients never wait for a network of neurons.

mod app;
mod error;
mod request;
mod routes;
mod server;
pub mod wire;

pub use app::Options;
pub use error::{Error, Result};
pub use server::serve;
