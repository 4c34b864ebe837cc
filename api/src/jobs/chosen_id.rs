//! Job ids that clients chose: submitting the same job again under its id is idempotent, and an id belongs to one job of the whole grid.

use bus::{
    ids::{JobId, Namespace},
    log::read,
    spec::JobSpec,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use model::{Kind, Submitted};

use crate::{app::App, error::ApiError, jobs::advice};

/// Ids of one request that are looked up at the same time.
const AT_ONCE: usize = 64;

/// The answer to the first submission with this id; `None` where no job has it.
///
/// It is looked up before anything else is checked: a job that was accepted is answered as accepted, although its secret was removed or
/// the log became full since. It also keeps an id unique over all namespaces: the log's own check covers one namespace.
///
/// # Errors
/// If the id belongs to a job that is not the same, or the log cannot be read.
pub(super) async fn first_answer(app: &App, namespace: &Namespace, id: JobId, spec: &JobSpec) -> Result<Option<Submitted>, ApiError> {
    let Some(job) = read::job(&app.bus.js, id).await? else {
        return Ok(None);
    };
    if job.namespace != *namespace || job.spec != *spec {
        return Err(id_conflict(id));
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

/// The jobs of an array whose ids belong to different jobs: the place of each, and its problem.
///
/// # Errors
/// If the log cannot be read.
pub(super) async fn conflicts(
    app: &App,
    namespace: &Namespace,
    jobs: &[(usize, JobId, &JobSpec)],
) -> Result<Vec<(usize, ApiError)>, ApiError> {
    let look = async |(place, id, spec): (usize, JobId, &JobSpec)| match first_answer(app, namespace, id, spec).await {
        Ok(_) => Ok(None),
        Err(problem) if problem.kind == Kind::Conflict => Ok(Some((place, problem))),
        Err(problem) => Err(problem),
    };
    let found: Vec<Option<(usize, ApiError)>> = stream::iter(jobs.to_vec()).map(look).buffered(AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// The problem of an id that a different job has. The text does not say whether that job is in another namespace.
pub(super) fn id_conflict(id: JobId) -> ApiError {
    ApiError::new(
        Kind::Conflict,
        format!("the id {id} belongs to a different job; choose a new UUIDv7 for this one, or leave out `id`"),
    )
}
