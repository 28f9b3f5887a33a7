//! What can go wrong, and which status says so.
//!
//! A [`Failure`] is a request that is answered with a [`Problem`]. One `match` turns the library's errors into
//! them. What the client did wrong is explained to the client; what went wrong on our side is logged, and the
//! client hears no more than that it did.

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::wire::Problem;

/// The result of [`serve`](crate::serve).
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a server could not start or did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The listening socket can't be used.
    #[error("listening socket: {0}")]
    Listen(#[from] std::io::Error),
    /// The gallery could not be written to disk at the end; the next open replays what is missing.
    #[error(transparent)]
    Gallery(#[from] vultus::Error),
}

/// The kinds of problem: status, name and title of each are fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    BadRequest,
    CrossOrigin,
    NotFound,
    MethodNotAllowed,
    TooSlow,
    TooLarge,
    UnsupportedMediaType,
    UnreadablePhoto,
    NoFace,
    Fault,
    Busy,
}

impl Kind {
    fn describe(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::BadRequest => (StatusCode::BAD_REQUEST, "bad-request", "The request is malformed"),
            Self::CrossOrigin => (StatusCode::FORBIDDEN, "cross-origin", "Other web sites may not ask this server"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "There is no such thing"),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "This route does not take this method")
            }
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, "too-slow", "The request did not arrive in time"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The request is too large"),
            Self::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "This content type is not taken")
            }
            Self::UnreadablePhoto => (StatusCode::UNPROCESSABLE_ENTITY, "unreadable-photo", "The photo can't be read"),
            Self::NoFace => (StatusCode::UNPROCESSABLE_ENTITY, "no-face", "The photo shows no usable face"),
            Self::Fault => (StatusCode::INTERNAL_SERVER_ERROR, "fault", "The server failed"),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy", "The server is busy"),
        }
    }
}

/// A request that can't be answered as asked.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    detail: String,
}

impl Failure {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }

    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(Kind::BadRequest, detail)
    }

    /// A fault of ours: the reason goes to standard error, for the client has no use for it.
    pub(crate) fn fault(reason: impl std::fmt::Display) -> Self {
        eprintln!("vultus: {reason}");
        Self::new(Kind::Fault, "the reason is in the server's log")
    }
}

impl From<vultus::Error> for Failure {
    fn from(error: vultus::Error) -> Self {
        use vultus::Error::{Argument, NoFace, NotFound, Photo};
        let kind = match &error {
            Photo { .. } => Kind::UnreadablePhoto,
            Argument { .. } => Kind::BadRequest,
            NoFace { .. } => Kind::NoFace,
            NotFound { .. } => Kind::NotFound,
            // Weights, storage and computation: nothing that a request could cause or cure.
            _ => return Self::fault(error),
        };
        Self::new(kind, error.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, name, title) = self.kind.describe();
        let problem = Problem {
            kind: format!("urn:vultus:{name}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: self.detail,
        };
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/problem+json"));
        if self.kind == Kind::Busy {
            headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        response
    }
}
