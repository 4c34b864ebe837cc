//! `POST /v1/workers/{id}/cordon`, `…/drain` and `…/uncordon`: an operator decides whether a worker takes work.
//!
//! Each appends an event of the worker, which its runner receives. Only NATS is needed.

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
    http::extract::{Path, Query, WholeBody, json_or_nothing},
    jobs::{check_reason, reason},
};

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct DrainRequest {
    reason: Option<String>,
    /// When the jobs that still run are stopped, in milliseconds from now.
    deadline_ms: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct UncordonRequest {}

/// `POST /v1/workers/{id}/cordon`: the worker takes no new work. A worker that is draining continues to drain.
pub(crate) async fn cordon(
    State(app): State<Shared>,
    Path(id): Path<String>,
    query: Query,
    WholeBody(body): WholeBody,
) -> Result<Json<Cordon>, ApiError> {
    query.none()?;
    let reason = reason(&body)?;
    apply_command(&app, worker_id(&id)?, &Command::Cordon { reason }).await
}

/// `POST /v1/workers/{id}/drain`: the worker takes no new work, and its jobs leave it, by the deadline if there is one.
pub(crate) async fn drain(
    State(app): State<Shared>,
    Path(id): Path<String>,
    query: Query,
    WholeBody(body): WholeBody,
) -> Result<Json<Cordon>, ApiError> {
    query.none()?;
    let request: DrainRequest = json_or_nothing(&body)?;
    check_reason(request.reason.as_deref())?;
    let delay = request
        .deadline_ms
        .map(|ms| i64::try_from(ms).ok().and_then(TimeDelta::try_milliseconds));
    let deadline = match delay {
        None => None,
        Some(delay) => Some(
            delay
                .and_then(|delay| Utc::now().checked_add_signed(delay))
                .ok_or_else(|| ApiError::malformed("`deadline_ms` is too large; leave it out for no deadline"))?,
        ),
    };
    let reason = request.reason;
    apply_command(&app, worker_id(&id)?, &Command::Drain { deadline, reason }).await
}

/// `POST /v1/workers/{id}/uncordon`: the worker takes work again.
pub(crate) async fn uncordon(
    State(app): State<Shared>,
    Path(id): Path<String>,
    query: Query,
    WholeBody(body): WholeBody,
) -> Result<Json<Cordon>, ApiError> {
    query.none()?;
    let UncordonRequest {} = json_or_nothing(&body)?;
    apply_command(&app, worker_id(&id)?, &Command::Uncordon).await
}

fn worker_id(text: &str) -> Result<WorkerId, ApiError> {
    text.parse()
        .map_err(|error: bus::ids::ParseError| ApiError::malformed(format!("the worker {error}")))
}

/// Decides on a command, and appends its event.
async fn apply_command(app: &App, id: WorkerId, command: &Command) -> Result<Json<Cordon>, ApiError> {
    let (worker, changed, sequence) = match app.writer.write::<Worker>(&id, command).await? {
        Outcome::Appended(worker, sequence) => (worker, true, sequence),
        Outcome::Rejected(_, _, Rejection::Absent) => return Err(unknown(&id)),
        Outcome::Rejected(worker, last, Rejection::Unchanged) => (worker, false, last),
    };
    Ok(Json(answer(id, worker.and_then(|worker| worker.cordon), changed, sequence)))
}

fn unknown(id: &WorkerId) -> ApiError {
    ApiError::not_found(format!(
        "worker {id} does not exist; `rgrid workers --all` shows all workers, also those that left"
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
