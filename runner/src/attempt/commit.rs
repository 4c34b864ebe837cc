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
        end::{Executed, Unfinished},
        registry::{Entry, Stop},
        writer::{self, JobWriter},
    },
    errors::chain,
};

/// Commits what came of an attempt, or gives it back.
pub(crate) async fn conclude(
    context: &Context,
    writer: &mut JobWriter,
    entry: Entry,
    attempt: Attempt,
    begun: Instant,
    executed: Result<Executed, Unfinished>,
) -> Result<State, Unfinished> {
    let unfinished = match executed {
        Ok(executed) => return commit(context, writer, entry, attempt, begun, executed).await,
        Err(unfinished @ (Unfinished::NoRoom | Unfinished::Interrupted)) => unfinished,
        Err(unfinished) => return Err(unfinished),
    };
    let give_back = Command::Return {
        attempt,
        session: context.session,
        interrupted: matches!(unfinished, Unfinished::Interrupted),
    };
    match say_last(writer, entry, give_back).await? {
        State::Retrying => Err(unfinished),
        ended => Ok(ended),
    }
}

/// Commits what came of an attempt.
async fn commit(
    context: &Context,
    writer: &mut JobWriter,
    entry: Entry,
    attempt: Attempt,
    begun: Instant,
    executed: Executed,
) -> Result<State, Unfinished> {
    let (outcome, manifest, usage) = match executed {
        Ok((done, manifest)) => (done.outcome, manifest, done.usage),
        Err(broken) => {
            let wall_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            (
                broken.outcome(),
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
    say_last(writer, entry, finish).await
}

/// Says the last word on an attempt, while it is ours, and tells what the job comes to by it.
async fn say_last(writer: &mut JobWriter, mut entry: Entry, word: Command) -> Result<State, Unfinished> {
    tokio::select! {
        said = writer.append(word) => drop(said?),
        stop = entry.fenced() => return Err(Unfinished::Stopped(stop)),
    }
    Ok(writer.job().state())
}

/// Says in the runner's own log how an attempt ended.
pub(crate) fn told(id: JobId, attempt: Attempt, carried: Result<State, Unfinished>) {
    match carried {
        Ok(state) => debug!(job.id = %id, "job {id}, attempt {attempt}: {state}"),
        Err(Unfinished::Leaving(_) | Unfinished::Stopped(Stop::Leave)) => {
            info!(job.id = %id, "attempt {attempt} of job {id} is left to the next runner, or made again");
        }
        Err(Unfinished::Interrupted) => info!(job.id = %id, "gave job {id}, attempt {attempt}, back: this runner's shutdown ended it"),
        Err(Unfinished::NoRoom) => debug!(job.id = %id, "gave job {id}, attempt {attempt}, back: there is no room for it"),
        Err(Unfinished::Stopped(stop)) => info!(job.id = %id, "gave up attempt {attempt} of job {id}: {stop:?}"),
        Err(Unfinished::Write(writer::Error::Rejected(rejection @ Rejection::Stale { .. }))) => {
            info!(job.id = %id, "attempt {attempt} of job {id} was given to another worker; nothing of this one counts: {rejection}");
        }
        Err(Unfinished::Write(failed)) => {
            error!(job.id = %id, "the end of job {id}, attempt {attempt}, is not in the log: {}", chain(&failed));
        }
    }
}
