//! `POST /v1/jobs/{id}/requeue` and `POST /v1/requeue`: revive one dead or expired job, or those that match a filter.

use std::collections::BTreeMap;

use axum::{Json, extract::State, http::StatusCode};
use bus::{
    ids::JobId,
    job::{Command, Job, State as JobState},
};
use futures::{StreamExt as _, stream};
use model::{JobView, Kind, NotRequeued, RequeuedMany};
use serde::Deserialize;

use super::{
    caught_up,
    command::{CommandOutcome, apply_command, check_reason, reason},
};
use crate::{
    admission::admit,
    app::{App, Shared},
    error::ApiError,
    http::extract::{Path, Query, WholeBody, job_id, json, namespace},
    queries::Revivable,
};

/// The most jobs of one request.
const MAX_LIMIT: u32 = 1_000;
/// Jobs that are revived at the same time.
const AT_ONCE: usize = 64;

/// `POST /v1/jobs/{id}/requeue`, with `{"reason":…}` or an empty body.
pub(crate) async fn requeue(
    State(app): State<Shared>,
    Path(id): Path<String>,
    query: Query,
    WholeBody(body): WholeBody,
) -> Result<(StatusCode, Json<JobView>), ApiError> {
    query.none()?;
    let id = job_id(&id)?;
    let command = Command::Requeue { reason: reason(&body)? };
    // Checked first: while the log has no room for new jobs, no job is looked up.
    drop(admit(&app.admission, 1, 0).await?);
    match Box::pin(apply_command(&app, id, &command)).await? {
        CommandOutcome::Appended(job) => Ok((StatusCode::ACCEPTED, Json(JobView::from(&job)))),
        CommandOutcome::Rejected(job, _) => Err(ApiError::new(Kind::Conflict, not_requeueable(&job))),
    }
}

fn not_requeueable(job: &Job) -> String {
    let (id, state) = (job.id, job.state());
    let hint = match state {
        JobState::Failed | JobState::TimedOut | JobState::OutOfMemory | JobState::Cancelled | JobState::Succeeded => {
            "it has ended: submit it again, with `retry` if it should be retried automatically"
        }
        JobState::Dead | JobState::Held | JobState::Queued | JobState::Claimed | JobState::Running | JobState::Retrying => {
            "it has not ended"
        }
    };
    format!("job {id} is {state}; only a job that is dead, or that exceeded its queue timeout, can be requeued, and {hint}")
}

/// Which jobs to revive. Every field narrows the selection.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RequeueManyRequest {
    namespace: String,
    queue: Option<String>,
    name: Option<String>,
    labels: BTreeMap<String, String>,
    /// `dead` (attempts used up), `timed_out` (queue timeout exceeded); both by default.
    states: Vec<JobState>,
    reason: Option<String>,
    limit: u32,
    /// The cursor that the page before returned.
    before: Option<i64>,
    /// Wait until the tables hold at least this event.
    min_sequence: u64,
    /// Count the matching jobs, and revive none.
    dry_run: bool,
}

impl Default for RequeueManyRequest {
    fn default() -> Self {
        Self {
            namespace: "default".to_owned(),
            queue: None,
            name: None,
            labels: BTreeMap::new(),
            states: Vec::new(),
            reason: None,
            limit: 500,
            before: None,
            min_sequence: 0,
            dry_run: false,
        }
    }
}

/// `POST /v1/requeue`: revives one page of jobs, the newest first; `next` is the cursor of the next page.
pub(crate) async fn requeue_many(
    State(app): State<Shared>,
    query: Query,
    WholeBody(body): WholeBody,
) -> Result<Json<RequeuedMany>, ApiError> {
    query.none()?;
    let request: RequeueManyRequest = json("the request", &body)?;
    let filter = filter(&request)?;
    check_reason(request.reason.as_deref())?;
    caught_up(&app, request.min_sequence).await?;
    if request.dry_run {
        let matching = Some(app.tables.count_revivable(&filter).await?);
        return Ok(Json(RequeuedMany {
            matching,
            ..RequeuedMany::default()
        }));
    }
    let (ids, next) = app.tables.revivable(&filter).await?;
    drop(admit(&app.admission, ids.len() as u64, 0).await?);
    let command = Command::Requeue { reason: request.reason };
    let mut revivals = stream::iter(ids).map(|id| revive(&app, id, &command)).buffered(AT_ONCE);
    let mut answer = RequeuedMany {
        next,
        ..RequeuedMany::default()
    };
    while let Some((id, why)) = revivals.next().await {
        match why {
            None => answer.requeued.push(id),
            Some(why) => answer.left.push(NotRequeued { job: id, why }),
        }
    }
    Ok(Json(answer))
}

/// Revives a job that is dead according to the tables; returns why not, if the log says otherwise or does not answer.
async fn revive(app: &App, id: JobId, command: &Command) -> (JobId, Option<String>) {
    let why = match Box::pin(apply_command(app, id, command)).await {
        Ok(CommandOutcome::Appended(_)) => None,
        Ok(CommandOutcome::Rejected(job, _)) => Some(not_requeueable(&job)),
        Err(problem) => Some(problem.0.detail),
    };
    (id, why)
}

fn filter(request: &RequeueManyRequest) -> Result<Revivable, ApiError> {
    if let Some(state) = request
        .states
        .iter()
        .find(|state| !matches!(state, JobState::Dead | JobState::TimedOut))
    {
        return Err(ApiError::malformed(format!(
            "`states` contains {state}; only dead and timed_out jobs can be requeued"
        )));
    }
    if !(1..=MAX_LIMIT).contains(&request.limit) {
        return Err(ApiError::malformed(format!(
            "`limit` is {}, and must be 1 to {MAX_LIMIT}",
            request.limit
        )));
    }
    let all = request.states.is_empty();
    // A text column of Postgres cannot hold a NUL, so that no job has one.
    let texts = request
        .queue
        .iter()
        .chain(&request.name)
        .chain(request.labels.iter().flat_map(|(name, value)| [name, value]));
    if texts.into_iter().any(|text| text.contains('\0')) {
        return Err(ApiError::malformed("a field contains a NUL character; remove it"));
    }
    Ok(Revivable {
        namespace: namespace(&request.namespace)?,
        queue: request.queue.clone(),
        name: request.name.clone(),
        labels: request.labels.clone(),
        dead: all || request.states.contains(&JobState::Dead),
        expired: all || request.states.contains(&JobState::TimedOut),
        limit: i64::from(request.limit),
        before: request.before,
    })
}
