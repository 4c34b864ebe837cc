//! `POST /v1/jobs/{id}/requeue` and `POST /v1/requeue`: dead and expired jobs, revived one by one or by a filter.

use std::collections::BTreeMap;

use axum::{Json, extract::State, http::StatusCode};
use bus::{
    ids::JobId,
    job::{Command, Job, State as JobState},
};
use futures::{StreamExt as _, stream};
use model::{JobView, Kind, LeftDead, RequeuedMany};
use serde::Deserialize;

use super::{
    caught_up,
    command::{CommandOutcome, apply_command, check_reason, reason},
};
use crate::{
    admission::admit,
    app::{App, Shared},
    error::ApiError,
    http::extract::{Path, Query, Whole, job_id, json, namespace},
    queries::Revivable,
};

/// The most jobs of one request.
const MAX_LIMIT: u32 = 1_000;
/// Jobs that are revived at once.
const AT_ONCE: usize = 64;

/// `POST /v1/jobs/{id}/requeue`, with `{"reason":…}` or nothing.
pub(crate) async fn requeue(
    State(app): State<Shared>,
    Path(id): Path<String>,
    query: Query,
    Whole(body): Whole,
) -> Result<(StatusCode, Json<JobView>), ApiError> {
    query.none()?;
    let id = job_id(&id)?;
    let command = Command::Requeue { reason: reason(&body)? };
    // Whatever became of the job: without room, nothing that would run is looked up.
    drop(admit(&app.fill, 1, 0).await?);
    match Box::pin(apply_command(&app, id, &command)).await? {
        CommandOutcome::Appended(job) => Ok((StatusCode::ACCEPTED, Json(JobView::from(&job)))),
        CommandOutcome::Rejected(job, _) => Err(ApiError::new(Kind::Conflict, why_not(&job))),
    }
}

fn why_not(job: &Job) -> String {
    let (id, state) = (job.id, job.state());
    let hint = match state {
        JobState::Failed | JobState::TimedOut | JobState::OutOfMemory | JobState::Cancelled | JobState::Succeeded => {
            "it had its say: submit it anew, and with `retry` where it is to be tried again by itself"
        }
        JobState::Dead | JobState::Held | JobState::Queued | JobState::Claimed | JobState::Running | JobState::Retrying => {
            "it has not ended"
        }
    };
    format!("job {id} is {state}; only one that is dead, or that waited longer than it may, can be requeued, and {hint}")
}

/// Which jobs are to be revived. Every field narrows them down.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RequeueManyRequest {
    namespace: String,
    queue: Option<String>,
    name: Option<String>,
    labels: BTreeMap<String, String>,
    /// `dead` (attempts used up), `timed_out` (waited longer than it may); both unless given.
    states: Vec<JobState>,
    reason: Option<String>,
    limit: u32,
    /// Where the page before said to go on.
    before: Option<i64>,
    /// Look at tables that hold at least this event.
    min_sequence: u64,
    /// Count them, and revive none.
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

/// `POST /v1/requeue`: one page of them, the newest first; `next` says how to ask for those that follow.
pub(crate) async fn requeue_many(State(app): State<Shared>, query: Query, Whole(body): Whole) -> Result<Json<RequeuedMany>, ApiError> {
    query.none()?;
    let asked: RequeueManyRequest = json("the request", &body)?;
    let which = which(&asked)?;
    check_reason(asked.reason.as_deref())?;
    caught_up(&app, asked.min_sequence).await?;
    if asked.dry_run {
        let matching = Some(app.tables.count_revivable(&which).await?);
        return Ok(Json(RequeuedMany {
            matching,
            ..RequeuedMany::default()
        }));
    }
    let (ids, next) = app.tables.revivable(&which).await?;
    drop(admit(&app.fill, ids.len() as u64, 0).await?);
    let command = Command::Requeue { reason: asked.reason };
    let mut came = stream::iter(ids).map(|id| revive(&app, id, &command)).buffered(AT_ONCE);
    let mut answer = RequeuedMany {
        next,
        ..RequeuedMany::default()
    };
    while let Some((id, why)) = came.next().await {
        match why {
            None => answer.requeued.push(id),
            Some(why) => answer.left.push(LeftDead { job: id, why }),
        }
    }
    Ok(Json(answer))
}

/// Revives a job that the tables take for dead; says why not, where the log knows better or is away.
async fn revive(app: &App, id: JobId, command: &Command) -> (JobId, Option<String>) {
    let why = match Box::pin(apply_command(app, id, command)).await {
        Ok(CommandOutcome::Appended(_)) => None,
        Ok(CommandOutcome::Rejected(job, _)) => Some(why_not(&job)),
        Err(problem) => Some(problem.0.detail),
    };
    (id, why)
}

fn which(asked: &RequeueManyRequest) -> Result<Revivable, ApiError> {
    if let Some(state) = asked
        .states
        .iter()
        .find(|state| !matches!(state, JobState::Dead | JobState::TimedOut))
    {
        return Err(ApiError::malformed(format!(
            "`states` holds {state}; only dead and timed_out jobs can be requeued"
        )));
    }
    if !(1..=MAX_LIMIT).contains(&asked.limit) {
        return Err(ApiError::malformed(format!("`limit` is {}; it is 1 to {MAX_LIMIT}", asked.limit)));
    }
    let all = asked.states.is_empty();
    // What no text column can hold, no job has.
    let texts = asked
        .queue
        .iter()
        .chain(&asked.name)
        .chain(asked.labels.iter().flat_map(|(name, value)| [name, value]));
    if texts.into_iter().any(|text| text.contains('\0')) {
        return Err(ApiError::malformed("a field holds a NUL character; leave it out"));
    }
    Ok(Revivable {
        namespace: namespace(&asked.namespace)?,
        queue: asked.queue.clone(),
        name: asked.name.clone(),
        labels: asked.labels.clone(),
        dead: all || asked.states.contains(&JobState::Dead),
        expired: all || asked.states.contains(&JobState::TimedOut),
        limit: i64::from(asked.limit),
        before: asked.before,
    })
}
