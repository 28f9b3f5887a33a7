//! A listening socket, its connections, and how both end.
//!
//! Connections are hyper's, not `axum::serve`'s, because that one has no bound on the time that headers may take.

use std::future::Future;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;
use vultus::Gallery;

use crate::app::App;
use crate::{Options, Result, routes};

/// Answers requests until `shutdown` is ready; then finishes those that run, and flushes the gallery.
///
/// Nothing asks who the client is: listen where only trusted clients can connect. To listen on any free port, bind
/// port 0 and read the listener's address before handing it over. Wants a tokio runtime with I/O and time enabled.
///
/// # Errors
/// [`Error::Listen`](crate::Error::Listen) when the socket can't be used, [`Error::Gallery`](crate::Error::Gallery) when
/// the last flush fails. What goes wrong with one request is that client's answer, and no error here.
pub async fn serve(
    listener: TcpListener,
    gallery: Arc<Gallery>,
    options: Options,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let app = Arc::new(App::new(gallery, options));
    let router = routes::router(Arc::clone(&app));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(app.options.read_timeout);
    let slots = Arc::new(Semaphore::new(app.options.connections_max.clamp(1, Semaphore::MAX_PERMITS)));
    let connections = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            next = next => next,
            () = &mut shutdown => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // The client is gone already, or file descriptors ran out: either passes.
                eprintln!("vultus: accepting a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = connections.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            // A connection that ends badly concerns its client alone.
            let _ = connection.await;
            drop(slot);
        });
    }
    drop(listener);
    if tokio::time::timeout(app.options.shutdown_grace, connections.shutdown()).await.is_err() {
        eprintln!("vultus: some clients did not take their answers within {:?}", app.options.shutdown_grace);
    }
    Ok(app.finish().await?)
}
