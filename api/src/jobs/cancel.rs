//! `POST /v1/jobs/{id}/cancel`

use axum::{Json, extract::State, http::StatusCode};
use bus::{
    envelope::{Actor, Envelope},
    ids::JobId,
    job::{Command, Job, Recorded, Rejection, State as JobState, decide},
    stream::{
        append::{self, Append},
        read,
    },
};
use serde::Deserialize;

use crate::{
    app::{App, Shared},
    error::{Kind, Problem},
    extract::{Path, Query, Whole, job_id, json},
    view::JobView,
    watch::unknown,
};

/// How often another writer may come before.
const TRIES: usize = 10;
/// The longest reason, in bytes: it stands in the event.
const MAX_REASON_BYTES: usize = 4_096;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Asked {
    reason: Option<String>,
}

/// `POST /v1/jobs/{id}/cancel`, with `{"reason":…}` or nothing: asked for 202, asked for before 200.
pub(crate) async fn cancel(
    State(app): State<Shared>,
    Path(id): Path<String>,
    query: Query,
    Whole(body): Whole,
) -> Result<(StatusCode, Json<JobView>), Problem> {
    query.none()?;
    let id = job_id(&id)?;
    let asked: Asked = if body.is_empty() {
        Asked::default()
    } else {
        json("the request", &body)?
    };
    if asked.reason.as_ref().is_some_and(|reason| reason.len() > MAX_REASON_BYTES) {
        let detail = format!("the reason may have {MAX_REASON_BYTES} bytes; make it shorter");
        return Err(Problem::new(Kind::Refused, detail));
    }
    let (status, job) = Box::pin(request(&app, id, asked.reason)).await?;
    Ok((status, Json(JobView::from(&job))))
}

async fn request(app: &App, id: JobId, reason: Option<String>) -> Result<(StatusCode, Job), Problem> {
    let mut conflict = None;
    for _ in 0..TRIES {
        let events = read::history(&app.bus.js, id).await?;
        let Some(job) = Job::replay(&events) else { return Err(unknown(id)) };
        let event = match decide(Some(&job), Command::Cancel { reason: reason.clone() }) {
            Ok(event) => event,
            Err(Rejection::AlreadyCancelling) => return Ok((StatusCode::OK, job)),
            Err(Rejection::Ended) if job.state() == JobState::Cancelled => return Ok((StatusCode::OK, job)),
            Err(_) => {
                let detail = format!("job {id} ended already, as {}; there is nothing to cancel", job.state());
                return Err(Problem::new(Kind::Conflict, detail));
            }
        };
        let mut envelope = Envelope::new(Actor::Api, event);
        envelope.correlation_id = events.first().map(|first| first.envelope.id);
        match app.log.append(Append::job(&job.namespace, id, job.sequence, &envelope)).await {
            Ok(sequence) => {
                let recorded = Recorded {
                    namespace: job.namespace.clone(),
                    job: id,
                    speaker: Some(Actor::Api),
                    sequence,
                    envelope,
                };
                let job = Job::evolve(Some(job), &recorded).ok_or_else(|| unknown(id))?;
                return Ok((StatusCode::ACCEPTED, job));
            }
            Err(error @ append::Error::Conflict { .. }) => conflict = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    Err(conflict.map_or_else(|| unknown(id), Problem::from))
}
