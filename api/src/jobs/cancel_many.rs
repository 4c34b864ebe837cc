//! `POST /v1/cancel`: cancels the jobs that match a filter, one page at a time.

use axum::{Json, extract::State};
use bus::{
    ids::JobId,
    job::{Command, Rejection, State as JobState},
};
use futures::{StreamExt as _, stream};
use model::{CancelledMany, NotCancelled};
use serde::Deserialize;

use super::{
    caught_up,
    command::{CommandOutcome, apply_command, check_reason},
    list,
};
use crate::{
    app::{App, Shared},
    error::ApiError,
    http::extract::{Query, WholeBody, json_or_nothing},
};

/// Jobs that are cancelled at the same time.
const AT_ONCE: usize = 64;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct CancelManyRequest {
    reason: Option<String>,
    /// Count the matching jobs, and cancel none.
    dry_run: bool,
}

/// What happened to one job.
enum JobCancellation {
    /// The request ended it.
    Cancelled,
    /// Its worker has been asked to end it, by this request or an earlier one.
    Cancelling,
    /// It had ended already.
    Ended,
    /// It could not be cancelled, and why.
    Failed(String),
}

/// `POST /v1/cancel?` with the parameters of `GET /v1/jobs`, and `{"reason":…,"dry_run":true}` or an empty body: cancels
/// one page of the jobs that have not ended, the newest first; `next` is the cursor of the next page. The request is idempotent.
pub(crate) async fn cancel_many(
    State(app): State<Shared>,
    query: Query,
    WholeBody(body): WholeBody,
) -> Result<Json<CancelledMany>, ApiError> {
    let (filter, min_sequence) = list::parse(query)?;
    let request: CancelManyRequest = json_or_nothing(&body)?;
    check_reason(request.reason.as_deref())?;
    if let Some(state) = filter.states.iter().find(|state| state.is_end()) {
        return Err(ApiError::malformed(format!(
            "the parameter `state` is {state}; only jobs that have not ended can be cancelled"
        )));
    }
    caught_up(&app, min_sequence).await?;
    if request.dry_run {
        return Ok(Json(CancelledMany {
            matching: Some(app.tables.count_not_ended(&filter).await?),
            ..CancelledMany::default()
        }));
    }
    let (ids, next) = app.tables.not_ended(&filter).await?;
    let command = Command::Cancel { reason: request.reason };
    let mut all = stream::iter(ids).map(|id| cancel_one(&app, id, &command)).buffered(AT_ONCE);
    let mut answer = CancelledMany {
        next,
        ..CancelledMany::default()
    };
    while let Some((id, cancellation)) = all.next().await {
        match cancellation {
            JobCancellation::Cancelled => answer.cancelled.push(id),
            JobCancellation::Cancelling => answer.cancelling.push(id),
            JobCancellation::Ended => {}
            JobCancellation::Failed(why) => answer.left.push(NotCancelled { job: id, why }),
        }
    }
    Ok(Json(answer))
}

async fn cancel_one(app: &App, id: JobId, command: &Command) -> (JobId, JobCancellation) {
    let cancellation = match Box::pin(apply_command(app, id, command)).await {
        Ok(CommandOutcome::Appended(job)) if job.state().is_end() => JobCancellation::Cancelled,
        Ok(CommandOutcome::Appended(_)) => JobCancellation::Cancelling,
        Ok(CommandOutcome::Rejected(_, Rejection::AlreadyCancelling)) => JobCancellation::Cancelling,
        Ok(CommandOutcome::Rejected(job, _)) if job.state() == JobState::Cancelled => JobCancellation::Cancelled,
        Ok(CommandOutcome::Rejected(..)) => JobCancellation::Ended,
        Err(problem) => JobCancellation::Failed(problem.0.detail),
    };
    (id, cancellation)
}
