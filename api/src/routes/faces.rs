//! `GET /v1/people` and `GET /v1/faces`: what is stored, by name and by face.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use vultus::catalog::FaceId;

use crate::app::App;
use crate::error::Failure;
use crate::request::Asked;
use crate::wire::{Faces, People, StoredFace};

/// Faces in a page when the client does not say, and at most.
const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1000;

pub(super) fn router() -> Router<Arc<App>> {
    Router::new().route("/v1/people", get(people)).route("/v1/faces", get(faces))
}

async fn people(State(app): State<Arc<App>>, asked: Asked) -> Result<Json<People>, Failure> {
    asked.finish()?;
    app.work(|gallery| Ok(People::from(gallery.people()?.as_slice()))).await
}

async fn faces(State(app): State<Arc<App>>, mut asked: Asked) -> Result<Json<Faces>, Failure> {
    let filter = asked.text("filter")?.map(|text| text.parse()).transpose()?;
    let from = asked.parsed("from", "the id of a stored face")?.unwrap_or(0);
    let limit = asked.parsed("limit", "a whole number")?.unwrap_or(LIMIT_DEFAULT);
    asked.finish()?;
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Failure::bad_request(format!("limit: expected 1 to {LIMIT_MAX}, found {limit}")));
    }
    app.work(move |gallery| {
        // One more than asked for tells whether there is a next page.
        let mut records = gallery.faces(filter.as_ref(), FaceId(from), limit + 1)?;
        let next = records.get(limit).map(|record| record.id.0);
        records.truncate(limit);
        Ok(Faces { faces: records.iter().map(StoredFace::from).collect(), next })
    })
    .await
}
