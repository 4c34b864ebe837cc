//! Leaving an attempt's command to the next runner of the worker.

use std::time::Duration;

use bus::ids::{Attempt, JobId};
use tracing::warn;

use crate::{
    attempt::{context::Context, end::Leaving, left::LeftAttempt, workspace::Workspace},
    inputs::StagedInputs,
    log::spool::Logbook,
};

/// How long storing the log of an attempt that is left to the next runner may take.
const SUSPENDED: Duration = Duration::from_secs(15);

/// Leaves a command to the next runner; it is ended instead where its log cannot be stored. Returns whether it is left.
pub(crate) async fn leave(
    context: &Context,
    (job, attempt): (JobId, Attempt),
    workspace: Workspace,
    staged: StagedInputs,
    logbook: Logbook,
    Leaving { handle, begun }: Leaving,
) -> bool {
    let log = match tokio::time::timeout(SUSPENDED, logbook.suspend()).await {
        Ok(Ok(log)) => log,
        Ok(Err(error)) => {
            warn!(job.id = %job, "job {job} cannot be left to the next runner: {error}");
            return false;
        }
        Err(_) => {
            warn!(job.id = %job, "job {job} cannot be left to the next runner: its log cannot be stored in time");
            return false;
        }
    };
    let Some(command) = handle.leave().await else { return false };
    let left = LeftAttempt {
        job,
        attempt,
        root: workspace.leave(),
        laid: staged.files.into_iter().collect(),
        links: staged.links.into_iter().collect(),
        dirs: staged.dirs.into_iter().collect(),
        begun,
        log,
        command,
    };
    match context.left.add(left) {
        Ok(()) => true,
        Err(left) => {
            give_up(context, *left, "it took too long to be left to the next runner");
            false
        }
    }
}

/// Ends an attempt that the last runner left and that is not continued.
pub(crate) fn give_up(context: &Context, left: LeftAttempt, why: &str) {
    warn!(job.id = %left.job, "ending attempt {} of job {}, which the last runner left: {why}", left.attempt, left.job);
    if let Ok(docker) = &context.executors.docker {
        docker.discard(left.command);
    }
    // The workspace is removed when it is dropped.
    drop(context.workspaces.take_up(&left.root));
}
