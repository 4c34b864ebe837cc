//! `POST /v1/batches/{id}/cancel`

use axum::{Json, extract::State, http::StatusCode};
use bus::{
    batch::{Batch, Command, Phase},
    ids::JobId,
    job,
    log::read,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};

use super::{batch_id, command::apply_command};
use crate::{
    app::{App, Shared},
    error::ApiError,
    http::extract::{Path, Query, WholeBody},
    jobs::{self, reason},
};

/// Members that are cancelled at the same time.
const AT_ONCE: usize = 64;

/// `POST /v1/batches/{id}/cancel`, with `{"reason":…}` or an empty body: 202, or 200 where the batch was cancelled before.
///
/// If a watcher manages the batch, the watcher cancels the members; otherwise they are cancelled here, before the answer.
pub(crate) async fn cancel(
    State(app): State<Shared>,
    Path(id): Path<String>,
    query: Query,
    WholeBody(body): WholeBody,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    query.none()?;
    let id = batch_id(&id)?;
    let reason = reason(&body)?;
    let (batch, before) = apply_command(&app, id, &Command::Cancel { reason: reason.clone() }).await?;
    let reason = match &batch.phase {
        Phase::Cancelled { reason } => reason.clone(),
        _ => reason,
    };
    if !batch.is_minded() {
        cancel_members(&app, &batch, reason).await?;
    }
    let status = if before.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(json!({ "id": id, "sequence": batch.sequence }))))
}

/// Cancels every member that has not ended. A member that is not in the log, because the submission was interrupted, is skipped.
pub(super) async fn cancel_members(app: &App, batch: &Batch, reason: Option<String>) -> Result<(), ApiError> {
    let member_reason = reason.map_or_else(
        || "its batch was cancelled".to_owned(),
        |reason| format!("its batch was cancelled: {reason}"),
    );
    let one = async |index: u32| {
        let id = JobId::of_member(batch.id, index);
        if read::job(&app.bus.js, id).await?.is_none_or(|job| job.state().is_end()) {
            return Ok(());
        }
        let command = job::Command::Cancel {
            reason: Some(member_reason.clone()),
        };
        Box::pin(jobs::apply_command(app, id, &command)).await.map(|_| ())
    };
    stream::iter(0..batch.submitted.total)
        .map(one)
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await
}
