//! `GET /v1/jobs/{id}` and its history: read from the log, so that clients read their own writes.

use std::time::Duration;

use axum::{Json, extract::State};
use bus::{job::State as JobState, log::read};
use model::{History, HistoryEvent, JobView};
use serde::Deserialize;

use crate::{
    app::{App, Shared},
    error::{ApiError, chain},
    http::extract::{Path, Query, job_id},
    jobs::watch::{Watch, unknown},
};

/// How much of a payload that is not an event is shown, in bytes.
const SHOWN_MAX: usize = 1_024;
/// The longest wait for a job.
const MAX_WAIT: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Started,
    End,
}

/// `GET /v1/jobs/{id}?wait=30s&until=end|started`
pub(crate) async fn get(State(app): State<Shared>, Path(id): Path<String>, query: Query) -> Result<Json<JobView>, ApiError> {
    let id = job_id(&id)?;
    let (mut wait, mut until) = (None, Until::End);
    query.each(|name, value| {
        match name {
            "wait" => wait = Some(seconds(&value)?),
            "until" => {
                until = match value.as_str() {
                    "end" => Until::End,
                    "started" => Until::Started,
                    _ => return Err(ApiError::malformed("the parameter `until` must be `end` or `started`")),
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let mut watch = Watch::open(&app, id).await?;
    if let Some(wait) = wait {
        let reached = Box::pin(wait_until(&app, &mut watch, until));
        tokio::select! {
            reached = tokio::time::timeout(wait, reached) => reached.unwrap_or(Ok(()))?,
            () = app.stop.cancelled() => {}
        }
    }
    Ok(Json(JobView::from(watch.job())))
}

async fn wait_until(app: &App, watch: &mut Watch, until: Until) -> Result<(), ApiError> {
    let is_reached = |state: JobState| state.is_end() || (until == Until::Started && state == JobState::Running);
    while !is_reached(watch.job().state()) {
        watch.changed(app).await?;
    }
    Ok(())
}

/// `30s`, `500ms`, `2m`, or a number of seconds.
fn seconds(text: &str) -> Result<Duration, ApiError> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()));
    let scale = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        _ => f64::NAN,
    };
    let wait = number.parse().map_or(f64::NAN, |number: f64| number * scale);
    Duration::try_from_secs_f64(wait)
        .map(|wait| wait.min(MAX_WAIT))
        .map_err(|_| ApiError::malformed(format!("the parameter `wait` is `{}`; write 30s, 500ms or 2m", text.escape_debug())))
}

/// `GET /v1/jobs/{id}/history`
pub(crate) async fn history(State(app): State<Shared>, Path(id): Path<String>, query: Query) -> Result<Json<History>, ApiError> {
    query.none()?;
    let id = job_id(&id)?;
    let entries = read::everything(&app.bus.js, id).await?;
    if entries.is_empty() && crate::jobs::watch::read_job(&app, id).await?.is_none() {
        return Err(unknown(id));
    }
    let events = entries.iter().map(event).collect();
    Ok(Json(History { events }))
}

/// The event as it is stored, even if this program does not know its type, or it is not an event.
fn event(entry: &read::Stored) -> HistoryEvent {
    #[derive(Deserialize)]
    struct Stored {
        r#type: String,
        id: bus::ids::EventId,
        time: chrono::DateTime<chrono::Utc>,
        actor: String,
        causation_id: Option<bus::ids::EventId>,
        correlation_id: Option<bus::ids::EventId>,
        data: serde_json::Value,
    }
    let unreadable = read::decode(&entry.subject, entry.sequence, &entry.payload)
        .err()
        .map(|error| chain(&error));
    match serde_json::from_slice::<Stored>(&entry.payload) {
        Ok(stored) => HistoryEvent {
            sequence: entry.sequence,
            r#type: stored.r#type,
            id: Some(stored.id),
            time: Some(stored.time),
            actor: stored.actor,
            causation_id: stored.causation_id,
            correlation_id: stored.correlation_id,
            data: stored.data,
            unreadable,
        },
        Err(_) => HistoryEvent {
            sequence: entry.sequence,
            r#type: "unreadable".to_owned(),
            id: None,
            time: None,
            actor: entry.subject.rsplit_once(".by.").map_or("", |(_, actor)| actor).to_owned(),
            causation_id: None,
            correlation_id: None,
            data: String::from_utf8_lossy(&entry.payload[..entry.payload.len().min(SHOWN_MAX)]).into(),
            unreadable,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_a_duration_or_a_problem() {
        assert_eq!(seconds("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(seconds("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(seconds("9000m"), Ok(MAX_WAIT));
        for bad in ["", "s", "-1s", "1h", "NaN", "1e400s", "1 s"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
