//! `POST /v1/jobs/{id}/rerun`: runs a job again as a new job, in the same environment.

use std::collections::HashSet;

use axum::{Json, extract::State, http::StatusCode};
use bus::{
    ids::JobId,
    job::Job,
    spec::{ExecutorKind, JobSpec, Origin, OriginKind, submission::check_id},
};
use model::Submitted;
use serde::Deserialize;

use super::{
    chosen_id,
    inputs::check_inputs,
    submit::{NewJob, check_references},
};
use crate::{
    admission::admit,
    app::Shared,
    error::ApiError,
    http::extract::{Path, Query, WholeBody, job_id, json_or_nothing},
    jobs::watch::{read_job, unknown},
};

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RerunRequest {
    /// The new job's id. The same request with the same id makes one job.
    id: Option<JobId>,
}

/// `POST /v1/jobs/{id}/rerun`, with `{"id":…}` or an empty body: 201 for a new job, 200 for one that exists.
pub(crate) async fn rerun(
    State(app): State<Shared>,
    Path(id): Path<String>,
    query: Query,
    WholeBody(body): WholeBody,
) -> Result<(StatusCode, Json<Submitted>), ApiError> {
    query.none()?;
    let id = job_id(&id)?;
    let asked: RerunRequest = json_or_nothing(&body)?;
    check_id(asked.id, None)?;
    let job = read_job(&app, id).await?.ok_or_else(|| unknown(id))?;
    let spec = rerun_spec(&job);
    if let Some(chosen) = asked.id
        && let Some(submitted) = chosen_id::first_answer(&app, &job.namespace, chosen, &spec).await?
    {
        return Ok((StatusCode::OK, Json(submitted)));
    }
    let bytes = serde_json::to_vec(&spec).map_or(0, |bytes| bytes.len() as u64);
    let _room = admit(&app.admission, 1, bytes).await?;
    if let Some(missing) = check_inputs(&app.files, [&spec], &HashSet::new()).await?.first_of(&spec) {
        return Err(missing);
    }
    check_references(&app, &job.namespace, &spec).await?;
    let submitted = Box::pin(NewJob::new(job.namespace, asked.id, spec).submit(&app)).await?;
    let status = if submitted.existed { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(submitted)))
}

/// The spec of a job that repeats another one: it starts at once, with the executor and in the image (by its digest) of the last attempt.
fn rerun_spec(job: &Job) -> JobSpec {
    let ran = job.attempts.iter().rev().find(|attempt| attempt.environment.is_some());
    let executor = ran.and_then(|attempt| attempt.executor);
    let image = ran.and_then(|attempt| attempt.environment.clone());
    JobSpec {
        executor: executor.or(job.spec.executor),
        image: match executor {
            Some(ExecutorKind::Docker) => image,
            _ => job.spec.image.clone(),
        },
        start: None,
        batch: None,
        key: None,
        origin: Some(Origin {
            job: job.id,
            kind: OriginKind::Rerun,
        }),
        ..job.spec.clone()
    }
}
