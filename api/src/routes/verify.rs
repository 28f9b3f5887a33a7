//! `POST /v1/verify`: are these two the same person? Two photos, two stored faces, or one of each.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use vultus::catalog::FaceId;
use vultus::gallery::Probe;
use vultus::{Photo, Task};

use super::Threshold;
use crate::app::App;
use crate::error::Failure;
use crate::request::Asked;
use crate::wire::Verified;

pub(super) fn router() -> Router<Arc<App>> {
    Router::new().route("/v1/verify", post(verify))
}

async fn verify(State(app): State<Arc<App>>, mut asked: Asked) -> Result<Json<Verified>, Failure> {
    let uploads = asked.photos();
    let faces: Vec<u64> = asked.parsed_list("face", "the id of a stored face")?;
    let threshold = Threshold::take(&mut asked, "within", Task::Verify)?;
    asked.finish()?;
    if uploads.len() + faces.len() != 2 {
        return Err(Failure::bad_request(format!(
            "expected two to compare, `photo` or `face`; found {} photos and {} faces",
            uploads.len(),
            faces.len()
        )));
    }
    app.work(move |gallery| {
        let within = threshold.distance(gallery)?;
        let photos: Vec<Photo> = uploads.iter().map(|upload| upload.decode()).collect::<Result<_, _>>()?;
        let stored = faces.iter().map(|id| Probe::Face(FaceId(*id)));
        let probes: Vec<Probe<'_>> = photos.iter().map(Probe::Photo).chain(stored).collect();
        Ok(Verified::from(&gallery.verify(probes[0], probes[1], within)?))
    })
    .await
}
