//! The output files of a job, as its `job.finished` event committed them.

use axum::{Json, extract::State, http::HeaderMap, response::Response};
use bus::{
    ids::{Attempt, JobId},
    job::Job,
    output::manifest::Manifest,
};
use chrono::{DateTime, SecondsFormat, Utc};
use model::{ArtifactView, Artifacts, Kind};

use crate::{
    app::{App, Shared},
    error::ApiError,
    files::content::{self, read_problem},
    http::extract::{Path, Query, job_id},
    jobs::watch::{read_job, unknown},
};

/// The largest manifest that is read, in bytes: about 400,000 files.
const MAX_MANIFEST_BYTES: usize = 64 << 20;

/// `GET /v1/jobs/{id}/artifacts`
pub(crate) async fn list(State(app): State<Shared>, Path(id): Path<String>, query: Query) -> Result<Json<Artifacts>, ApiError> {
    query.none()?;
    let (job, committed) = committed(&app, job_id(&id)?).await?;
    let expires_at = expiry(&app, &job);
    let (attempt, manifest) = committed.map_or((None, Manifest::default()), |(attempt, manifest)| (Some(attempt), manifest));
    Ok(Json(Artifacts {
        attempt,
        artifacts: manifest.outputs.into_iter().map(ArtifactView::from).collect(),
        links: manifest.links,
        deleted: manifest.deleted,
        left_out: manifest.left_out,
        unmatched: manifest.unmatched,
        state: Some(job.state()),
        expired: expires_at.is_some_and(|until| until <= Utc::now()),
        expires_at,
    }))
}

/// `GET /v1/jobs/{id}/artifacts/{*path}`
pub(crate) async fn get(
    State(app): State<Shared>,
    Path((id, path)): Path<(String, String)>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    query.none()?;
    let (job, committed) = committed(&app, job_id(&id)?).await?;
    let outputs = committed.map(|(_, manifest)| manifest.outputs).unwrap_or_default();
    let Some(file) = outputs.iter().find(|file| file.path.as_str() == path) else {
        let so_far = if job.state().is_end() {
            ""
        } else {
            "; it has not ended, and its outputs are available after it has"
        };
        let detail = format!("job {} has no output `{}`{so_far}", job.id, path.escape_debug());
        return Err(ApiError::not_found(detail));
    };
    if let Some(until) = expiry(&app, &job).filter(|until| *until <= Utc::now()) {
        return Err(expired(&job, until));
    }
    content::serve(&app.files, file.sha256, &headers, Some(&path)).await
}

/// When the outputs of an ended job expire; `None`: never.
pub(crate) fn expiry(app: &App, job: &Job) -> Option<DateTime<Utc>> {
    app.storage_config.retention.outputs_until(job.ended_at?, job.spec.keep_outputs_ms)
}

fn expired(job: &Job, until: DateTime<Utc>) -> ApiError {
    let until = until.to_rfc3339_opts(SecondsFormat::Secs, true);
    let detail = format!(
        "the outputs of job {} expired at {until} and were removed; its log and its history are kept, and `rgrid rerun {}` runs it again",
        job.id, job.id
    );
    ApiError::new(Kind::Gone, detail)
}

/// A job, and the manifest of its last attempt, if that has finished.
async fn committed(app: &App, id: JobId) -> Result<(Job, Option<(Attempt, Manifest)>), ApiError> {
    let job = read_job(app, id).await?.ok_or_else(|| unknown(id))?;
    let Some(finished) = job.finished() else { return Ok((job, None)) };
    let attempt = finished.attempt;
    let manifest = match &finished.manifest {
        Some(reference) => manifest(app, &reference.sha256).await?,
        None => Manifest::default(),
    };
    Ok((job, Some((attempt, manifest))))
}

/// Reads a manifest from the store.
pub(crate) async fn manifest(app: &App, sha256: &bus::ids::Digest) -> Result<Manifest, ApiError> {
    let bytes = app
        .files
        .get_bytes(sha256, MAX_MANIFEST_BYTES)
        .await
        .map_err(|error| read_problem(&error))?;
    serde_json::from_slice(&bytes).map_err(|error| ApiError::new(Kind::Internal, format!("content {sha256} is not a manifest: {error}")))
}
