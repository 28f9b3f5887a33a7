//! `POST /v1/identify`: who is in this photo?

use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use vultus::Task;
use vultus::gallery::IdentifyOptions;

use super::Threshold;
use crate::app::App;
use crate::error::Failure;
use crate::request::Asked;
use crate::wire::Identified;

/// Neighbors asked for when the client does not say, and at most.
const K_DEFAULT: usize = 10;
const K_MAX: usize = 1000;

pub(super) fn router() -> Router<Arc<App>> {
    Router::new().route("/v1/identify", post(identify))
}

async fn identify(State(app): State<Arc<App>>, mut asked: Asked) -> Result<Json<Identified>, Failure> {
    let upload = asked.photo()?;
    let k = asked.parsed("k", "a whole number")?.unwrap_or(K_DEFAULT);
    if k > K_MAX {
        return Err(Failure::bad_request(format!("k: expected at most {K_MAX}, found {k}")));
    }
    let threshold = Threshold::take(&mut asked, "within", Task::Identify)?;
    let filter = asked.text("filter")?.map(|text| text.parse()).transpose()?;
    let exact = asked.parsed("exact", "`true` or `false`")?.unwrap_or(false);
    asked.finish()?;
    app.work(move |gallery| {
        let options = IdentifyOptions { k, within: threshold.distance(gallery)?, filter, exact };
        let faces = gallery.identify(&upload.decode()?, &options)?;
        Ok(Identified::new(&faces, options.within))
    })
    .await
}
