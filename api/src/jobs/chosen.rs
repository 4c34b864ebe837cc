//! Ids that whoever submits a job chose for it: the same submission again is the same job, and no id is taken from anybody else.

use bus::{
    ids::{JobId, Namespace},
    log::read,
    spec::JobSpec,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use model::{Kind, Submitted};

use crate::{app::App, error::ApiError, jobs::advice};

/// Ids of one request that are looked for at once.
const AT_ONCE: usize = 64;

/// What the first request with this id was answered; nothing where no job has it yet.
///
/// Looked for before anything else is checked: what was accepted is answered as accepted, although its secret was removed or the log
/// became full meanwhile. It is also what keeps an id unique over all namespaces: the log's own check covers one of them.
///
/// # Errors
/// If the id belongs to a job that is not the same, or the log cannot be read.
pub(super) async fn answered(app: &App, namespace: &Namespace, id: JobId, spec: &JobSpec) -> Result<Option<Submitted>, ApiError> {
    let Some(job) = read::job(&app.bus.js, id).await? else {
        return Ok(None);
    };
    if job.namespace != *namespace || job.spec != *spec {
        return Err(taken(id));
    }
    let entries = read::everything(&app.bus.js, id).await?;
    Ok(Some(Submitted {
        id,
        sequence: entries.first().map_or(job.sequence, |first| first.sequence),
        namespace: job.namespace,
        existed: true,
        reused: false,
        warning: app.advice.live().as_deref().and_then(|live| advice::warning(spec, live)),
    }))
}

/// Which of the ids of an array belong to jobs that are not the same, each with its problem by its place.
///
/// # Errors
/// If the log cannot be read.
pub(super) async fn taken_of(
    app: &App,
    namespace: &Namespace,
    jobs: &[(usize, JobId, &JobSpec)],
) -> Result<Vec<(usize, ApiError)>, ApiError> {
    let look = async |(place, id, spec): (usize, JobId, &JobSpec)| match answered(app, namespace, id, spec).await {
        Ok(_) => Ok(None),
        Err(problem) if problem.kind == Kind::Conflict => Ok(Some((place, problem))),
        Err(problem) => Err(problem),
    };
    let found: Vec<Option<(usize, ApiError)>> = stream::iter(jobs.to_vec()).map(look).buffered(AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// The problem of an id that another job has. It is the same sentence for a job of another namespace, of which nothing is told.
pub(super) fn taken(id: JobId) -> ApiError {
    ApiError::new(
        Kind::Conflict,
        format!("the id {id} belongs to a job that is not the same; choose a new UUIDv7 for this one, or leave `id` out"),
    )
}
