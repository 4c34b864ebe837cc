//! `POST /v1/batches/earlier`

use std::sync::Arc;

use axum::{Json, extract::State};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use model::{BatchSubmission, Earlier};

use super::submit;
use crate::{
    app::Shared,
    error::ApiError,
    http::extract::{Query, WholeBody, json},
    jobs::earlier,
};

/// Members that are looked up at the same time.
const AT_ONCE: usize = 8;

/// `POST /v1/batches/earlier?namespace=`: for each member of a batch, the earlier job whose result can be reused. Submits nothing.
pub(crate) async fn of_batch(State(app): State<Shared>, query: Query, WholeBody(body): WholeBody) -> Result<Json<Earlier>, ApiError> {
    let namespace = query.namespace_only()?;
    let submission: BatchSubmission = json("the batch", &body)?;
    let members = Box::pin(submit::members(&app, submission)).await?;
    let (mut reader, mut jobs) = (members.read(), Vec::new());
    loop {
        let (specs, _) = reader.page().await?;
        if specs.is_empty() {
            return Ok(Json(Earlier { jobs }));
        }
        let looked = stream::iter(specs).map(|spec| {
            let (app, namespace) = (Arc::clone(&app), namespace.clone());
            async move {
                let job = Box::pin(earlier(&app, &namespace, &spec)).await?;
                Ok::<_, ApiError>(job.map(|job| job.id))
            }
        });
        let page: Vec<_> = looked.buffered(AT_ONCE).try_collect().await?;
        jobs.extend(page);
    }
}
