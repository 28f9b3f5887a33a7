//! `POST /v1/cluster`: which stored faces are the same person?

use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use vultus::Task;
use vultus::clustering::Method;

use super::Threshold;
use crate::app::App;
use crate::error::Failure;
use crate::request::Asked;
use crate::wire::Cluster;

pub(super) fn router() -> Router<Arc<App>> {
    Router::new().route("/v1/cluster", post(cluster))
}

async fn cluster(State(app): State<Arc<App>>, mut asked: Asked) -> Result<Json<Cluster>, Failure> {
    let wanted = Wanted::take(&mut asked)?;
    asked.finish()?;
    let permit = app.clustering_permit()?;
    app.work(move |gallery| {
        let method = match wanted {
            Wanted::KMeans { k, seed } => Method::KMeans { k, seed },
            Wanted::AverageLinkage(cut) => Method::AverageLinkage { cut: cut.distance(gallery)? },
        };
        let clustered = gallery.cluster(method)?;
        let answer = Cluster::read(gallery, &clustered, method)?;
        drop(permit);
        Ok(answer)
    })
    .await
}

/// The method, before a rate is turned into a distance.
enum Wanted {
    AverageLinkage(Threshold),
    KMeans { k: usize, seed: u64 },
}

impl Wanted {
    /// `k_means` with `seed`, or else `far` or `cut`: what belongs to the other method is left, and so refused.
    fn take(asked: &mut Asked) -> Result<Self, Failure> {
        match asked.parsed("k_means", "a number of groups")? {
            Some(k) => Ok(Self::KMeans { k, seed: asked.parsed("seed", "a whole number")?.unwrap_or(0) }),
            None => Threshold::take(asked, "cut", Task::Cluster).map(Self::AverageLinkage),
        }
    }
}
