//! The earlier job whose result can be reused for a new one. The tables propose candidates; the log and the store decide.

use bus::{
    ids::Namespace,
    job::{Job, State},
    spec::{JobSpec, reuse},
};
use chrono::Utc;
use tracing::debug;

use crate::{
    app::App,
    error::ApiError,
    files::{artifacts, content::read_problem},
    jobs::watch::read_job,
};

/// How many earlier jobs are considered, newest first.
const MAX_CANDIDATES: i64 = 4;

/// The newest job of this namespace with the same script, arguments and inputs that succeeded, and whose outputs are in the store. `None`
/// where there is none, or where Postgres does not answer: the new job is run then.
pub(crate) async fn earlier(app: &App, namespace: &Namespace, spec: &JobSpec) -> Result<Option<Job>, ApiError> {
    let Some(key) = reuse::key(namespace, spec) else { return Ok(None) };
    let candidates = match app.tables.succeeded_with_key(&key, MAX_CANDIDATES).await {
        Ok(candidates) => candidates,
        Err(problem) => {
            debug!("no earlier result can be looked up: {}", problem.detail);
            return Ok(None);
        }
    };
    for id in candidates {
        let Some(job) = read_job(app, id).await? else { continue };
        let is_it = job.state() == State::Succeeded && reuse::key(&job.namespace, &job.spec) == Some(key);
        let expired = artifacts::expiry(app, &job).is_some_and(|until| until <= Utc::now());
        if is_it && !expired && is_complete(app, &job).await? {
            return Ok(Some(job));
        }
    }
    Ok(None)
}

/// Whether all outputs and the log of the job are in the store.
async fn is_complete(app: &App, job: &Job) -> Result<bool, ApiError> {
    let Some(finished) = job.finished() else { return Ok(false) };
    let Some(reference) = &finished.manifest else { return Ok(true) };
    let is_incomplete = |missing: Vec<_>| !missing.is_empty();
    let missing = app.files.missing(&[reference.sha256]).await.map_err(|error| read_problem(&error))?;
    if is_incomplete(missing) {
        return Ok(false);
    }
    let manifest = artifacts::manifest(app, &reference.sha256).await?;
    let outputs = manifest.outputs.iter().map(|file| file.sha256);
    let mut named: Vec<_> = outputs.chain(manifest.log.iter().map(|segment| segment.sha256)).collect();
    named.sort_unstable();
    named.dedup();
    let missing = app.files.missing(&named).await.map_err(|error| read_problem(&error))?;
    Ok(!is_incomplete(missing))
}
