//! `POST /v1/workers/{id}/cordon`, `…/drain` and `…/uncordon`: an operator's word on who takes work.
//!
//! It is an event behind the worker's last one, and needs NATS alone; the runner hears of it as everybody does.

use axum::{Json, extract::State};
use bus::{
    envelope::{Actor, Envelope},
    ids::WorkerId,
    stream::{
        append::{self, Append},
        read::{self, WorkerHistory},
    },
    worker::{Cordoned, Uncordoned, WorkerEvent, cordon as standing},
};
use chrono::{TimeDelta, Utc};
use serde::Deserialize;

use crate::{
    app::{App, Shared},
    error::Problem,
    extract::{Path, Query, Whole, json_or_nothing},
    jobs::{check_reason, reason},
    view::Cordon,
};

/// How often another writer may come before.
const TRIES: usize = 10;

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
) -> Result<Json<Cordon>, Problem> {
    query.none()?;
    let reason = reason(&body)?;
    change(&app, worker_id(&id)?, |now| {
        let mut wanted = now.cloned().unwrap_or_default();
        wanted.reason = reason.clone().or(wanted.reason);
        Some(wanted)
    })
    .await
}

/// `POST /v1/workers/{id}/drain`: it takes no new work, and what it has leaves it, by the deadline if there is one.
pub(crate) async fn drain(
    State(app): State<Shared>,
    Path(id): Path<String>,
    query: Query,
    Whole(body): Whole,
) -> Result<Json<Cordon>, Problem> {
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
                .ok_or_else(|| Problem::malformed("`deadline_ms` lies beyond the calendar; leave it out for no deadline"))?,
        ),
    };
    change(&app, worker_id(&id)?, |now| {
        let before = now.cloned().unwrap_or_default();
        Some(Cordoned {
            drain: true,
            // Said again without one, a deadline stays.
            deadline: deadline.or(before.deadline),
            reason: asked.reason.clone().or(before.reason),
        })
    })
    .await
}

/// `POST /v1/workers/{id}/uncordon`: it takes work again.
pub(crate) async fn uncordon(
    State(app): State<Shared>,
    Path(id): Path<String>,
    query: Query,
    Whole(body): Whole,
) -> Result<Json<Cordon>, Problem> {
    query.none()?;
    let AskedNothing {} = json_or_nothing(&body)?;
    change(&app, worker_id(&id)?, |_| None).await
}

fn worker_id(text: &str) -> Result<WorkerId, Problem> {
    text.parse()
        .map_err(|error: bus::ids::ParseError| Problem::malformed(format!("the worker {error}")))
}

/// Says how the worker is to stand from now on, unless it stands so.
async fn change(app: &App, id: WorkerId, wanted: impl Fn(Option<&Cordoned>) -> Option<Cordoned>) -> Result<Json<Cordon>, Problem> {
    let mut conflict = None;
    for _ in 0..TRIES {
        let WorkerHistory { events, last } = read::worker(&app.bus.js, &id).await?;
        if last == 0 {
            return Err(unknown(&id));
        }
        let now = standing(events.iter().map(|(_, event)| event));
        let next = wanted(now);
        if next.as_ref() == now {
            return Ok(Json(answer(id, next, false, last)));
        }
        let event = next
            .clone()
            .map_or_else(|| WorkerEvent::Uncordoned(Uncordoned {}), WorkerEvent::Cordoned);
        let envelope = Envelope::new(Actor::Api, event);
        match app.log.append(Append::worker(&id, Some(last), &envelope)).await {
            Ok(sequence) => return Ok(Json(answer(id, next, true, sequence))),
            Err(error @ append::Error::Conflict { .. }) => conflict = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    Err(conflict.map_or_else(|| unknown(&id), Problem::from))
}

fn unknown(id: &WorkerId) -> Problem {
    Problem::not_found(format!(
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
