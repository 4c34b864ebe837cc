//! The jobs that new jobs depend on (`start.after`): each must exist, or come earlier in the same array.

use std::collections::HashSet;

use bus::{
    ids::{JobId, Namespace},
    log::{EVENTS, read},
    spec::{JobSpec, Refusal},
    subjects,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::{app::App, error::ApiError};

/// Jobs that are looked up at the same time.
const AT_ONCE: usize = 64;

/// Jobs that others depend on, and that are not in the log.
#[derive(Debug)]
pub(crate) struct AbsentJobs {
    namespace: Namespace,
    absent: HashSet<JobId>,
}

/// Looks up every job that these depend on, each once.
pub(crate) async fn check_dependencies<'a>(
    app: &App,
    namespace: &Namespace,
    specs: impl IntoIterator<Item = &'a JobSpec>,
) -> Result<AbsentJobs, ApiError> {
    let named: HashSet<JobId> = specs
        .into_iter()
        .filter_map(|spec| spec.start.as_ref())
        .flat_map(|start| start.after.iter().map(|dependency| dependency.job))
        .collect();
    let look = |id: JobId| async move {
        let filter = subjects::job_filter(namespace, id);
        let found = read::back_to(&app.bus.js, EVENTS, &filter, 0).await?;
        Ok::<_, read::Error>(found.is_empty().then_some(id))
    };
    let absent = stream::iter(named).map(look).buffer_unordered(AT_ONCE);
    let absent = absent.try_filter_map(|absent| std::future::ready(Ok(absent))).try_collect().await?;
    Ok(AbsentJobs {
        namespace: namespace.clone(),
        absent,
    })
}

impl AbsentJobs {
    /// The problem of a job that depends on one of them. Jobs in `earlier` are submitted before it, and count as existing.
    pub(crate) fn first_of(&self, spec: &JobSpec, earlier: &HashSet<JobId>) -> Option<ApiError> {
        let after = spec.start.as_ref().map_or(&[][..], |start| &start.after);
        let missing = after
            .iter()
            .find(|dependency| self.absent.contains(&dependency.job) && !earlier.contains(&dependency.job))?;
        let refusal = Refusal(format!(
            "`start.after` names job {}, which does not exist in namespace {}; submit it first, or leave it out",
            missing.job, self.namespace
        ));
        Some(refusal.into())
    }
}
