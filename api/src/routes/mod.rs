//! One verb a file: its `router()`, its handler, its parameters.

mod cluster;
mod faces;
mod forget;
mod identify;
mod ingest;
mod stats;
mod verify;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{Method, Uri, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use vultus::{Gallery, Task};

use crate::app::App;
use crate::error::{Failure, Kind};
use crate::request::Asked;

/// Every route of the server.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .merge(ingest::router())
        .merge(identify::router())
        .merge(verify::router())
        .merge(cluster::router())
        .merge(faces::router())
        .merge(forget::router())
        .merge(stats::router())
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        // `Asked` has read the body under its own limit when axum looks at it.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn(refuse_other_sites))
        .with_state(app)
}

/// Any web page that its user visits can make the browser post to this computer. Browsers say which site asks: only pages
/// that this server itself gave may.
async fn refuse_other_sites(request: Request, next: Next) -> Result<Response, Failure> {
    let headers = request.headers();
    if let Some(origin) = headers.get(header::ORIGIN) {
        let site = origin.to_str().ok().and_then(|origin| Some(origin.split_once("://")?.1));
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        if site.is_none() || site != host {
            return Err(Failure::new(Kind::CrossOrigin, format!("the request comes from a page of {origin:?}")));
        }
    }
    Ok(next.run(request).await)
}

async fn unknown_route(uri: Uri) -> Failure {
    Failure::new(Kind::NotFound, format!("no such route: {}", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> Failure {
    Failure::new(Kind::MethodNotAllowed, format!("{} does not take {method}", uri.path()))
}

/// How near is near enough: said as a false-accept rate or as a distance, or left to the verb.
enum Threshold {
    Far(f64),
    Distance(f32),
    /// What suits the task, as the program's subcommands have it.
    Default(Task),
}

impl Threshold {
    /// Takes `far`, or the distance under the name that the verb gives it.
    fn take(asked: &mut Asked, distance: &str, task: Task) -> Result<Self, Failure> {
        let far = asked.parsed("far", "a false-accept rate such as 1e-3")?;
        match (far, asked.parsed(distance, "a squared distance, 0 to 4")?) {
            (Some(_), Some(_)) => Err(Failure::bad_request(format!("expected `far` or `{distance}`, found both"))),
            (Some(far), None) => Ok(Self::Far(far)),
            (None, Some(distance)) => Ok(Self::Distance(distance)),
            (None, None) => Ok(Self::Default(task)),
        }
    }

    /// As a squared distance, under the model that the gallery uses.
    fn distance(&self, gallery: &Gallery) -> vultus::Result<f32> {
        let calibration = gallery.recognizer().calibration();
        match *self {
            Self::Far(far) => calibration.threshold(far),
            Self::Distance(distance) => Ok(distance),
            Self::Default(task) => gallery.default_threshold(task),
        }
    }
}
