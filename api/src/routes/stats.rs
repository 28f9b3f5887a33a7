//! `GET /v1/stats` and `GET /v1/health`: what is in the gallery, and whether the server answers.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};

use crate::app::App;
use crate::error::Failure;
use crate::request::Asked;
use crate::wire::{Health, Stats};

pub(super) fn router() -> Router<Arc<App>> {
    Router::new().route("/v1/stats", get(stats)).route("/v1/health", get(health))
}

async fn stats(State(app): State<Arc<App>>, asked: Asked) -> Result<Json<Stats>, Failure> {
    asked.finish()?;
    app.work(|gallery| Ok(Stats::from(&gallery.stats()?))).await
}

/// Answers without a worker, so that a busy server is not taken for a dead one.
async fn health(State(app): State<Arc<App>>) -> Json<Health> {
    Json(Health {
        status: "ok".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        model: app.model().to_owned(),
    })
}
