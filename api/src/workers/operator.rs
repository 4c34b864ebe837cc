//! `POST /v1/workers/{id}/cordon`, `…/drain` and `…/uncordon`: an operator's word on who takes work.
//!
//! It is an event behind the worker's last one, and needs NATS alone; the runner hears of it as everybody does.

use axum::{Json, extract::State};
use bus::{
    ids::WorkerId,
    log::writer::Outcome,
    worker::{Command, Cordoned, Rejection, Worker},
};
use chrono::{TimeDelta, Utc};
use model::Cordon;
use serde::Deserialize;

use crate::{
    app::{App, Shared},
    error::ApiError,
    http::extract::{Path, Query, Whole, json_or_nothing},
    jobs::{check_reason, reason},
};

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct AskedDrain {
    reason: Option<String>,
    /// When what has not ended is ended, in milliseconds from now.
    deadline_ms: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct AskedNothing {}

/// `POST /v1/workers/{id}/cordon`: it takes no new work. A worker that drains goes on draining.
pub(crate) async fn cordon(
    State(app): State<Shared>,
    Path(id): Path<String>,
    query: Query,
    Whole(body): Whole,
) -> Result<Json<Cordon>, ApiError> {
    query.none()?;
    let reason = reason(&body)?;
    change(&app, worker_id(&id)?, &Command::Cordon { reason }).await
}

/// `POST /v1/workers/{id}/drain`: it takes no new work, and what it has leaves it, by the deadline if there is one.
pub(crate) async fn drain(
    State(app): State<Shared>,
    Path(id): Path<String>,
    query: Query,
    Whole(body): Whole,
) -> Result<Json<Cordon>, ApiError> {
    query.none()?;
    let asked: AskedDrain = json_or_nothing(&body)?;
    check_reason(asked.reason.as_deref())?;
    let delay = asked
        .deadline_ms
        .map(|ms| i64::try_from(ms).ok().and_then(TimeDelta::try_milliseconds));
    let deadline = match delay {
        None => None,
        Some(delay) => Some(
            delay
                .and_then(|delay| Utc::now().checked_add_signed(delay))
                .ok_or_else(|| ApiError::malformed("`deadline_ms` lies beyond the calendar; leave it out for no deadline"))?,
        ),
    };
    let reason = asked.reason;
    change(&app, worker_id(&id)?, &Command::Drain { deadline, reason }).await
}

/// `POST /v1/workers/{id}/uncordon`: it takes work again.
pub(crate) async fn uncordon(
    State(app): State<Shared>,
    Path(id): Path<String>,
    query: Query,
    Whole(body): Whole,
) -> Result<Json<Cordon>, ApiError> {
    query.none()?;
    let AskedNothing {} = json_or_nothing(&body)?;
    change(&app, worker_id(&id)?, &Command::Uncordon).await
}

fn worker_id(text: &str) -> Result<WorkerId, ApiError> {
    text.parse()
        .map_err(|error: bus::ids::ParseError| ApiError::malformed(format!("the worker {error}")))
}

/// Decides on a worker as it stands, and appends what that comes to.
async fn change(app: &App, id: WorkerId, command: &Command) -> Result<Json<Cordon>, ApiError> {
    let (worker, changed, sequence) = match app.writer.write::<Worker>(&id, command).await? {
        Outcome::Appended(worker, sequence) => (worker, true, sequence),
        Outcome::Rejected(_, _, Rejection::Absent) => return Err(unknown(&id)),
        // Only a runner resumes a session.
        Outcome::Rejected(worker, last, Rejection::Unchanged | Rejection::SessionOver) => (worker, false, last),
    };
    Ok(Json(answer(id, worker.and_then(|worker| worker.cordon), changed, sequence)))
}

fn unknown(id: &WorkerId) -> ApiError {
    ApiError::not_found(format!(
        "there is no worker {id}; `rgrid workers --all` shows those that there are or were"
    ))
}

fn answer(worker: WorkerId, cordon: Option<Cordoned>, changed: bool, sequence: u64) -> Cordon {
    let cordoned = cordon.is_some();
    let Cordoned { drain, deadline, reason } = cordon.unwrap_or_default();
    Cordon {
        worker,
        cordoned,
        drain,
        deadline,
        reason,
        changed,
        sequence,
    }
}
