//! `vultus serve`: the gallery over HTTP.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::Context;

use super::{Answer, Common};

/// Answer all verbs over HTTP, as JSON
///
/// Nobody is asked who they are: let only those reach the address who may see and change the gallery.
/// Ctrl-C ends the server after the requests that run.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  vultus serve &\n  \
    curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:7878/v1/identify")]
pub(crate) struct Args {
    /// Address and port to listen on; port 0 takes any that is free
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7878")]
    listen: SocketAddr,
    /// Longest request body, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = vultus_api::Options::default().body_bytes_max)]
    body_bytes_max: usize,
    /// Requests computed at one time; as many as cores when left out
    #[arg(long, value_name = "COUNT")]
    workers: Option<usize>,
}

pub(crate) fn run(args: &Args, common: &Common) -> anyhow::Result<Answer> {
    let gallery = Arc::new(common.open_gallery()?);
    let listener = TcpListener::bind(args.listen).with_context(|| format!("--listen {}", args.listen))?;
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        eprintln!("vultus: {address} can be reached from other computers, and nobody is asked who they are");
    }
    let mut options = vultus_api::Options { body_bytes_max: args.body_bytes_max, ..Default::default() };
    options.workers = args.workers.unwrap_or(options.workers);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // Signals are heard before anybody is told that the server is ready.
    let stop = runtime.block_on(async { stop_signal() })?;
    if common.json {
        println!("{}", serde_json::json!({ "listening": format!("http://{address}") }));
    } else {
        println!("listening on http://{address}");
    }
    runtime.block_on(vultus_api::serve(listener, gallery, options, stop))?;
    // A request that outlived its grace must not keep the program.
    runtime.shutdown_background();
    Ok(Answer::Yes)
}

/// Ready once Ctrl-C is pressed or the service manager asks to stop.
#[cfg(unix)]
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Ready once Ctrl-C is pressed.
#[cfg(not(unix))]
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let interrupt = tokio::signal::ctrl_c();
    Ok(async move {
        // Without a handler the system ends the program anyway.
        let _ = interrupt.await;
    })
}
