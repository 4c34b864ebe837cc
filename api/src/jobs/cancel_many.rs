//! `POST /v1/cancel`: the jobs that a filter finds, ended a page at a time.

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
    http::extract::{Query, Whole, json_or_nothing},
};

/// Jobs that are cancelled at once.
const AT_ONCE: usize = 64;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct CancelManyRequest {
    reason: Option<String>,
    /// Count them, and cancel none.
    dry_run: bool,
}

/// What came of one job.
enum Came {
    /// It has ended by this.
    Cancelled,
    /// Its worker is asked to end it, now or before.
    Cancelling,
    /// It had ended before.
    Ended,
    /// It could not be asked for.
    Left(String),
}

/// `POST /v1/cancel?` with the parameters of `GET /v1/jobs`, and `{"reason":…,"dry_run":true}` or nothing: one page of those that have not
/// ended, the newest first; `next` says how to ask for those that follow. Asking again changes nothing.
pub(crate) async fn cancel_many(State(app): State<Shared>, query: Query, Whole(body): Whole) -> Result<Json<CancelledMany>, ApiError> {
    let (filter, min_sequence) = list::read(query)?;
    let asked: CancelManyRequest = json_or_nothing(&body)?;
    check_reason(asked.reason.as_deref())?;
    if let Some(state) = filter.states.iter().find(|state| state.is_end()) {
        return Err(ApiError::malformed(format!(
            "the parameter `state` is {state}; only a job that has not ended can be cancelled"
        )));
    }
    caught_up(&app, min_sequence).await?;
    if asked.dry_run {
        return Ok(Json(CancelledMany {
            matching: Some(app.tables.count_living(&filter).await?),
            ..CancelledMany::default()
        }));
    }
    let (ids, next) = app.tables.living(&filter).await?;
    let command = Command::Cancel { reason: asked.reason };
    let mut all = stream::iter(ids).map(|id| one(&app, id, &command)).buffered(AT_ONCE);
    let mut answer = CancelledMany {
        next,
        ..CancelledMany::default()
    };
    while let Some((id, came)) = all.next().await {
        match came {
            Came::Cancelled => answer.cancelled.push(id),
            Came::Cancelling => answer.cancelling.push(id),
            Came::Ended => {}
            Came::Left(why) => answer.left.push(NotCancelled { job: id, why }),
        }
    }
    Ok(Json(answer))
}

async fn one(app: &App, id: JobId, command: &Command) -> (JobId, Came) {
    let came = match Box::pin(apply_command(app, id, command)).await {
        Ok(CommandOutcome::Appended(job)) if job.state().is_end() => Came::Cancelled,
        Ok(CommandOutcome::Appended(_)) => Came::Cancelling,
        Ok(CommandOutcome::Rejected(_, Rejection::AlreadyCancelling)) => Came::Cancelling,
        Ok(CommandOutcome::Rejected(job, _)) if job.state() == JobState::Cancelled => Came::Cancelled,
        Ok(CommandOutcome::Rejected(..)) => Came::Ended,
        Err(problem) => Came::Left(problem.0.detail),
    };
    (id, came)
}
