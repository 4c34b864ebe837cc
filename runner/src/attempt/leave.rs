//! Leaving an attempt's command to the next runner of the worker.

use std::time::Duration;

use bus::ids::{Attempt, JobId};
use tracing::warn;

use crate::{
    attempt::{context::Context, end::Leaving, left::LeftAttempt, workspace::Place},
    inputs::Layout,
    log::spool::Logbook,
};

/// How long the log of an attempt that is left to the next runner may take to be stored.
const SUSPENDED: Duration = Duration::from_secs(15);

/// Leaves a command to the next runner. Where its log cannot be kept up to there, it is ended instead. Returns whether it is left.
pub(crate) async fn leave(
    context: &Context,
    (job, attempt): (JobId, Attempt),
    place: Place,
    laid: Layout,
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
            warn!(job.id = %job, "job {job} cannot be left to the next runner: the store does not take its log");
            return false;
        }
    };
    let Some(command) = handle.leave().await else { return false };
    let left = LeftAttempt {
        job,
        attempt,
        root: place.leave(),
        laid: laid.files.into_iter().collect(),
        links: laid.links.into_iter().collect(),
        dirs: laid.dirs.into_iter().collect(),
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

/// Ends what was left to us and is not to be gone on with.
pub(crate) fn give_up(context: &Context, left: LeftAttempt, why: &str) {
    warn!(job.id = %left.job, "ending attempt {} of job {}, which the last runner left: {why}", left.attempt, left.job);
    if let Ok(docker) = &context.executors.docker {
        docker.discard(left.command);
    }
    // Dropped, it is removed.
    drop(context.places.take_up(&left.root));
}
