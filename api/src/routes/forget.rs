//! `POST /v1/forget`: remove a face, a photo or a person.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use vultus::catalog::FaceId;
use vultus::gallery::Forget;

use crate::app::App;
use crate::error::Failure;
use crate::request::Asked;
use crate::wire::Forgotten;

pub(super) fn router() -> Router<Arc<App>> {
    Router::new().route("/v1/forget", post(forget))
}

async fn forget(State(app): State<Arc<App>>, mut asked: Asked) -> Result<Json<Forgotten>, Failure> {
    let face = asked.parsed("face", "the id of a stored face")?;
    let photo = asked.text("photo")?;
    let person = asked.text("person")?;
    asked.finish()?;
    let what = match (face, photo, person) {
        (Some(id), None, None) => Forget::Face(FaceId(id)),
        (None, Some(hash), None) => Forget::Photo(hash.parse()?),
        (None, None, Some(name)) => Forget::Person(name),
        _ => return Err(Failure::bad_request("expected exactly one of `face`, `photo` (64 hex digits) and `person`")),
    };
    app.work(move |gallery| Ok(Forgotten { removed: gallery.forget(&what)? })).await
}
