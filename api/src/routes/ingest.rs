//! `POST /v1/ingest`: take this photo into the gallery.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::Value;
use vultus::catalog::{Metadata, PhotoHash};

use crate::app::App;
use crate::error::Failure;
use crate::request::Asked;
use crate::wire::{Ingested, IngestedOutcome};

/// Where a photo came from when its client does not say.
const UNNAMED_PATH: &str = "upload";

pub(super) fn router() -> Router<Arc<App>> {
    Router::new().route("/v1/ingest", post(ingest))
}

async fn ingest(State(app): State<Arc<App>>, mut asked: Asked) -> Result<(StatusCode, Json<Ingested>), Failure> {
    let upload = asked.photo()?;
    let path = asked.text("path")?.or_else(|| upload.file_name.clone()).unwrap_or_else(|| UNNAMED_PATH.to_owned());
    let person = asked.text("person")?;
    let metadata = asked.value("metadata")?.map(metadata).transpose()?.unwrap_or_default();
    asked.finish()?;
    let answer = app
        .work(move |gallery| {
            let added = gallery.ingest(&upload.bytes, &path, person.as_deref(), metadata)?;
            Ok(Ingested::read(gallery, &PhotoHash::of(&upload.bytes), &added)?)
        })
        .await?;
    let status = match answer.outcome {
        IngestedOutcome::Added => StatusCode::CREATED,
        IngestedOutcome::Known => StatusCode::OK,
    };
    Ok((status, answer))
}

/// An object, or the text of one.
fn metadata(value: Value) -> Result<Metadata, Failure> {
    let value = match value {
        Value::String(text) => serde_json::from_str(&text)
            .map_err(|error| Failure::bad_request(format!("metadata: expected a JSON object: {error}")))?,
        value => value,
    };
    match value {
        Value::Object(metadata) => Ok(metadata),
        other => Err(Failure::bad_request(format!("metadata: expected a JSON object, found {other}"))),
    }
}
