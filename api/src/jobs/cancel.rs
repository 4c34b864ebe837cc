//! `POST /v1/jobs/{id}/cancel`

use axum::{Json, extract::State, http::StatusCode};
use bus::job::{Command, Rejection, State as JobState};
use model::{JobView, Kind};

use super::command::{CommandOutcome, apply_command, reason};
use crate::{
    app::Shared,
    error::ApiError,
    http::extract::{Path, Query, WholeBody, job_id},
};

/// `POST /v1/jobs/{id}/cancel`, with `{"reason":…}` or an empty body: 202, or 200 where the job was cancelled before.
pub(crate) async fn cancel(
    State(app): State<Shared>,
    Path(id): Path<String>,
    query: Query,
    WholeBody(body): WholeBody,
) -> Result<(StatusCode, Json<JobView>), ApiError> {
    query.none()?;
    let id = job_id(&id)?;
    let command = Command::Cancel { reason: reason(&body)? };
    match Box::pin(apply_command(&app, id, &command)).await? {
        CommandOutcome::Appended(job) => Ok((StatusCode::ACCEPTED, Json(JobView::from(&job)))),
        CommandOutcome::Rejected(job, rejection) if rejection == Rejection::AlreadyCancelling || job.state() == JobState::Cancelled => {
            Ok((StatusCode::OK, Json(JobView::from(&job))))
        }
        CommandOutcome::Rejected(job, _) => {
            let detail = format!("job {id} has already ended as {}, and cannot be cancelled", job.state());
            Err(ApiError::new(Kind::Conflict, detail))
        }
    }
}
