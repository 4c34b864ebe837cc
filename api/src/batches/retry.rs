//! `POST /v1/batches/{id}/retry`: the members of a batch again, as a new batch that is linked to it.

use axum::{Json, extract::State, http::StatusCode};
use bus::{
    batch::BatchSubmitted,
    ids::{BatchId, Digest},
};
use model::{BatchAnswer, Kind};
use serde::Deserialize;

use super::{
    batch_id, find,
    members::{Members, MembersAgain},
    store::{NewBatch, store},
    submit::check_members,
};
use crate::{
    admission::admit,
    app::Shared,
    error::ApiError,
    http::extract::{Path, Query, Whole, json},
    jobs::caught_up,
    queries::BatchFilter,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryRequest {
    /// The new batch's identity: under the same one it is submitted once.
    id: BatchId,
    /// Only those members that did not end well.
    #[serde(default)]
    failed_only: bool,
    /// Look at tables that hold at least this event.
    #[serde(default)]
    min_sequence: u64,
}

/// `POST /v1/batches/{id}/retry`, with `{"id":…,"failed_only":true}`: new 201, there before 200. Only of a batch that has ended,
/// so that the same request always means the same members.
pub(crate) async fn retry(
    State(app): State<Shared>,
    Path(id): Path<String>,
    query: Query,
    Whole(body): Whole,
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
            "batch {of} is {}, with {} of {} members ended; it can be tried again once it has ended",
            view.state.as_str(),
            view.ended(),
            view.total
        );
        return Err(ApiError::new(Kind::Conflict, detail));
    }
    let members = Members::Again(MembersAgain {
        batch: asked.id,
        of,
        failed_only: asked.failed_only,
        tables: app.tables.clone(),
    });
    // The batch has ended, so that they are the same ones whenever they are counted.
    let total = app.tables.count_members(of, asked.failed_only).await?;
    if total == 0 {
        let detail = format!("all {} members of batch {of} succeeded; there is nothing to try again", view.total);
        return Err(ApiError::new(Kind::Conflict, detail));
    }
    let (bytes, _) = Box::pin(check_members(&app, &members, total)).await?;
    let room = admit(&app.fill, u64::from(total), bytes).await?;
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
