//! The last event of an attempt: its commit, or its return.

use std::time::Instant;

use bus::{
    ids::{Attempt, JobId},
    job::{Command, Rejection, State, Usage},
};
use tracing::{debug, error, info};

use crate::{
    attempt::{
        context::Context,
        end::{Executed, NotCommitted},
        registry::{Entry, StopReason},
        writer::{self, JobWriter},
    },
    errors::chain,
};

/// Commits an attempt's result, or returns its job.
pub(crate) async fn conclude(
    context: &Context,
    writer: &mut JobWriter,
    entry: Entry,
    attempt: Attempt,
    begun: Instant,
    executed: Result<Executed, NotCommitted>,
) -> Result<State, NotCommitted> {
    let reason = match executed {
        Ok(executed) => return commit(context, writer, entry, attempt, begun, executed).await,
        Err(reason @ (NotCommitted::NoRoom | NotCommitted::Interrupted)) => reason,
        Err(reason) => return Err(reason),
    };
    let return_job = Command::Return {
        attempt,
        session: context.session,
        interrupted: matches!(reason, NotCommitted::Interrupted),
    };
    match append_end(writer, entry, return_job).await? {
        State::Retrying => Err(reason),
        ended => Ok(ended),
    }
}

/// Commits an attempt's result.
async fn commit(
    context: &Context,
    writer: &mut JobWriter,
    entry: Entry,
    attempt: Attempt,
    begun: Instant,
    executed: Executed,
) -> Result<State, NotCommitted> {
    let (outcome, manifest, usage) = match executed {
        Ok((end, manifest)) => (end.outcome, manifest, end.usage),
        Err(error) => {
            let wall_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            (
                error.outcome(),
                None,
                Usage {
                    wall_ms,
                    ..Usage::default()
                },
            )
        }
    };
    let finish = Command::Finish {
        attempt,
        session: context.session,
        outcome,
        manifest,
        usage,
    };
    append_end(writer, entry, finish).await
}

/// Appends an attempt's last event, unless the attempt is fenced, and returns the job's state after it.
async fn append_end(writer: &mut JobWriter, mut entry: Entry, command: Command) -> Result<State, NotCommitted> {
    tokio::select! {
        appended = writer.append(command) => drop(appended?),
        stop = entry.fenced() => return Err(NotCommitted::Stopped(stop)),
    }
    Ok(writer.job().state())
}

/// Writes to the runner's own log how an attempt ended.
pub(crate) fn log_end(id: JobId, attempt: Attempt, ended: Result<State, NotCommitted>) {
    match ended {
        Ok(state) => debug!(job.id = %id, "job {id}, attempt {attempt}: {state}"),
        Err(NotCommitted::Leaving(_) | NotCommitted::Stopped(StopReason::Leave)) => {
            info!(job.id = %id, "attempt {attempt} of job {id} is left to the next runner, or rescheduled");
        }
        Err(NotCommitted::Interrupted) => info!(job.id = %id, "returned job {id}, attempt {attempt}: this runner's shutdown ended it"),
        Err(NotCommitted::NoRoom) => debug!(job.id = %id, "returned job {id}, attempt {attempt}: there is no room for it"),
        Err(NotCommitted::Stopped(stop)) => info!(job.id = %id, "stopped attempt {attempt} of job {id}: {stop:?}"),
        Err(NotCommitted::Write(writer::Error::Rejected(rejection @ Rejection::Stale { .. }))) => {
            info!(job.id = %id, "attempt {attempt} of job {id} is no longer the job's current attempt, and its result is discarded: {rejection}");
        }
        Err(NotCommitted::Write(failed)) => {
            error!(job.id = %id, "the end of job {id}, attempt {attempt}, is not in the log: {}", chain(&failed));
        }
    }
}
