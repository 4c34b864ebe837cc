//! `POST /v1/batches/{id}/retry`: runs the members of a batch again, as a new batch that is linked to it.

use axum::{Json, extract::State, http::StatusCode};
use bus::{
    batch::BatchSubmitted,
    ids::{BatchId, Digest},
};
use model::{BatchAnswer, Kind};
use serde::Deserialize;

use super::{
    batch_id, find,
    members::{Members, RetriedMembers},
    store::{NewBatch, store},
    submit::check_members,
};
use crate::{
    admission::admit,
    app::Shared,
    error::ApiError,
    http::extract::{Path, Query, WholeBody, json},
    jobs::caught_up,
    queries::BatchFilter,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryRequest {
    /// The new batch's id. The same request with the same id makes one batch.
    id: BatchId,
    /// Only the members that did not succeed.
    #[serde(default)]
    failed_only: bool,
    /// Wait until the tables hold at least this event.
    #[serde(default)]
    min_sequence: u64,
}

/// `POST /v1/batches/{id}/retry`, with `{"id":…,"failed_only":true}`: 201 for a new batch, 200 for one that exists. The old batch
/// must have ended, so that the same request always selects the same members.
pub(crate) async fn retry(
    State(app): State<Shared>,
    Path(id): Path<String>,
    query: Query,
    WholeBody(body): WholeBody,
) -> Result<(StatusCode, Json<BatchAnswer>), ApiError> {
    query.none()?;
    let of = batch_id(&id)?;
    let asked: RetryRequest = json("the request", &body)?;
    let old = find(&app, of).await?;
    caught_up(&app, asked.min_sequence.max(old.sequence)).await?;
    let filter = BatchFilter {
        namespace: old.namespace.clone(),
        id: Some(of),
        limit: 1,
        before: None,
    };
    let (views, _) = app.tables.batches(&filter).await?;
    let view = views.first().ok_or_else(|| super::unknown(of))?;
    if !view.state.is_end() {
        let detail = format!(
            "batch {of} is {}: {} of {} members have ended; it can be retried once all have ended",
            view.state.as_str(),
            view.ended(),
            view.total
        );
        return Err(ApiError::new(Kind::Conflict, detail));
    }
    let members = Members::Retried(RetriedMembers {
        batch: asked.id,
        of,
        failed_only: asked.failed_only,
        tables: app.tables.clone(),
    });
    // The batch has ended, so that the count does not change.
    let total = app.tables.count_members(of, asked.failed_only).await?;
    if total == 0 {
        let detail = format!("all {} members of batch {of} succeeded; there is nothing to retry", view.total);
        return Err(ApiError::new(Kind::Conflict, detail));
    }
    let (bytes, _) = Box::pin(check_members(&app, &members, total)).await?;
    let room = admit(&app.admission, u64::from(total), bytes).await?;
    let new = NewBatch {
        id: asked.id,
        namespace: old.namespace,
        submitted: BatchSubmitted {
            total,
            retry_of: Some(of),
            sha256: Digest::of(format!("{of} {}", asked.failed_only).as_bytes()),
            ..old.submitted
        },
        members,
        room,
    };
    let answer = Box::pin(store(&app, new)).await?;
    let status = if answer.existed { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(answer)))
}
