//! An attempt's command, from its start to its end: its output is read, and it is ended when it must be.

use std::time::Duration;

use bus::job::{Command, Job, Outcome, Rejection, Usage};
use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    attempt::{
        context::Context,
        deadline::Limit,
        end::{AttemptError, CommandEnd, EarlyEnd, Leaving, NotCommitted},
        registry::{Entry, StopReason},
        writer::{self, JobWriter},
    },
    executor::{self, Ended, Exit, Handle, Running},
    log::spool::{self, Logbook},
};

/// How long a command that cannot be left running has to end on its own when the runner restarts.
const RESTART_GRACE: Duration = Duration::from_secs(2);

/// Waits until an attempt must end before its command runs.
pub(crate) async fn wait_for_early_end(entry: &mut Entry, job: &Job) -> EarlyEnd {
    tokio::select! {
        stop = entry.stop() => EarlyEnd::Stop(stop),
        limit = Limit::passed(Limit::in_total(job, Utc::now())) => EarlyEnd::TimedOut(limit),
    }
}

/// A command that runs.
pub(crate) struct Started {
    /// The command.
    pub(crate) running: Running,
    /// When it began.
    pub(crate) begun: DateTime<Utc>,
    /// Appends its start, where the log does not have it yet.
    pub(crate) start: Option<Command>,
}

/// Follows a command to its end. The outer error means that nothing is committed.
pub(crate) async fn follow(
    context: &Context,
    writer: &mut JobWriter,
    entry: &mut Entry,
    logbook: &mut Logbook,
    started: Started,
) -> Result<Result<CommandEnd, AttemptError>, NotCommitted> {
    let job = writer.job().clone();
    let Running {
        stdout,
        stderr,
        handle,
        packages,
        environment: _,
    } = started.running;
    let _packages = packages;
    let limit = Limit::of(&job, started.begun, Utc::now());
    let grace = Grace::of(&job, context);
    let leave = CancellationToken::new();
    let parts = {
        let pump = logbook.pump(stdout, stderr, &leave);
        let watch = supervise(handle.as_ref(), entry, limit, grace);
        let append_start = async {
            match started.start {
                Some(command) => writer.append(command).await.map(drop),
                None => Ok(()),
            }
        };
        Box::pin(run_parts(handle.as_ref(), watch, append_start, pump, &leave)).await?
    };
    let Parts {
        ended,
        early,
        start_appended,
        pumped,
    } = match parts {
        Some(parts) => parts,
        None => {
            return Err(NotCommitted::Leaving(Leaving {
                handle,
                begun: started.begun,
            }));
        }
    };
    match start_appended {
        // The start is in the log already.
        Err(writer::Error::Rejected(Rejection::AlreadyStarted)) | Ok(()) => {}
        Err(error) => return Err(error.into()),
    }
    if let Err(error) = pumped {
        return Ok(Err(error.into()));
    }
    let ended = match ended {
        Ok(ended) => ended,
        Err(error) => return Ok(Err(error.into())),
    };
    Ok(Ok(CommandEnd {
        outcome: outcome(ended.exit, early, &job),
        usage: usage(&ended, (Utc::now() - started.begun).to_std().unwrap_or_default()),
    }))
}

/// How watching a command ended.
enum WatchEnd {
    /// The command ended; with the reason, if it was made to.
    Ended(Result<Ended, executor::Error>, Option<EarlyEnd>),
    /// The command is left to the next runner.
    Leaving,
}

/// The results of a command, of appending its start, and of reading its output.
struct Parts {
    ended: Result<Ended, executor::Error>,
    early: Option<EarlyEnd>,
    start_appended: Result<(), writer::Error>,
    pumped: Result<(), spool::Error>,
}

/// Waits for the command's end, for its start to be appended, and for all of its output. A fence, or a log that cannot be written, ends
/// the command. Returns nothing where the command is left to the next runner and its log is complete up to there.
async fn run_parts(
    handle: &dyn Handle,
    watch: impl Future<Output = WatchEnd>,
    append_start: impl Future<Output = Result<(), writer::Error>>,
    pump: impl Future<Output = Result<(), spool::Error>>,
    leave: &CancellationToken,
) -> Result<Option<Parts>, NotCommitted> {
    tokio::pin!(watch, append_start, pump);
    let (mut watched, mut start_appended, mut pumped) = (None, None, None);
    let mut pipes_until = None;
    loop {
        tokio::select! {
            result = &mut watch, if watched.is_none() => match result {
                // Nothing is committed: neither the output nor the log is waited for.
                WatchEnd::Ended(_, Some(EarlyEnd::Stop(StopReason::Leave))) => return Err(NotCommitted::Interrupted),
                WatchEnd::Ended(_, Some(EarlyEnd::Stop(stop @ (StopReason::Shutdown | StopReason::Fenced)))) => return Err(NotCommitted::Stopped(stop)),
                WatchEnd::Ended(ended, early) => {
                    watched = Some((ended, early));
                    pipes_until = Some(tokio::time::Instant::now() + handle.outputs_after());
                }
                WatchEnd::Leaving => {
                    leave.cancel();
                    // A command whose log cannot be written is not left running.
                    let pumped = match pumped {
                        Some(pumped) => pumped,
                        None => pump.await,
                    };
                    return match pumped {
                        Ok(()) => Ok(None),
                        Err(_) => Err(NotCommitted::Interrupted),
                    };
                }
            },
            result = &mut append_start, if start_appended.is_none() => {
                if result.is_err() {
                    handle.kill().await;
                }
                start_appended = Some(result);
            }
            result = &mut pump, if pumped.is_none() => {
                if result.is_err() {
                    handle.kill().await;
                }
                pumped = Some(result);
            }
            () = tokio::time::sleep_until(pipes_until.unwrap_or_else(tokio::time::Instant::now)), if pipes_until.is_some() && pumped.is_none() => {
                debug!("the command is gone and its pipes are still open; closing them");
                pumped = Some(Ok(()));
            }
        }
        match (watched.take(), start_appended.take(), pumped.take()) {
            (Some((ended, early)), Some(start_appended), Some(pumped)) => {
                return Ok(Some(Parts {
                    ended,
                    early,
                    start_appended,
                    pumped,
                }));
            }
            (ended, appended, output) => (watched, start_appended, pumped) = (ended, appended, output),
        }
    }
}

/// How long a command that is asked to end may take.
#[derive(Debug, Clone, Copy)]
struct Grace {
    /// As its job says: after a cancellation or a timeout.
    of_job: Duration,
    /// When the runner stops or restarts.
    when_stopping: Duration,
}

impl Grace {
    fn of(job: &Job, context: &Context) -> Self {
        let of_job = job.spec.grace_ms.map_or(context.grace, Duration::from_millis);
        Self {
            of_job,
            when_stopping: of_job.min(context.grace),
        }
    }
}

/// Waits for the command's end, and ends it where its time is over or where it is asked to stop.
async fn supervise(handle: &dyn Handle, entry: &mut Entry, limit: Option<Limit>, grace: Grace) -> WatchEnd {
    let early = tokio::select! {
        ended = handle.wait() => return WatchEnd::Ended(ended, None),
        limit = Limit::passed(limit) => EarlyEnd::TimedOut(limit),
        stop = entry.stop() => EarlyEnd::Stop(stop),
    };
    let early = match early {
        EarlyEnd::Stop(StopReason::Leave) if handle.can_be_left() => return WatchEnd::Leaving,
        EarlyEnd::Stop(StopReason::Leave) => tokio::select! {
            ended = handle.wait() => return WatchEnd::Ended(ended, None),
            () = tokio::time::sleep(RESTART_GRACE) => early,
            stop = entry.stop() => EarlyEnd::Stop(stop),
        },
        early => early,
    };
    let grace = match early {
        EarlyEnd::Stop(StopReason::Fenced) => Duration::ZERO,
        EarlyEnd::Stop(StopReason::Leave | StopReason::Shutdown) => grace.when_stopping,
        EarlyEnd::Stop(StopReason::Cancel) | EarlyEnd::TimedOut(_) => grace.of_job,
    };
    if !grace.is_zero() {
        handle.terminate().await;
        tokio::select! {
            ended = handle.wait() => return WatchEnd::Ended(ended, Some(early)),
            () = tokio::time::sleep(grace) => {}
            stop = entry.fenced() => {
                handle.kill().await;
                return WatchEnd::Ended(handle.wait().await, Some(EarlyEnd::Stop(stop)));
            }
        }
    }
    handle.kill().await;
    WatchEnd::Ended(handle.wait().await, Some(early))
}

fn outcome(exit: Exit, early: Option<EarlyEnd>, job: &Job) -> Outcome {
    match (exit, early) {
        // Also where the command then exited with 0, as with coreutils' `timeout`, which exits with 124.
        (_, Some(EarlyEnd::TimedOut(limit))) => limit.outcome(),
        (_, Some(EarlyEnd::Stop(_))) => Outcome::Cancelled,
        (Exit::Code(0), None) => Outcome::Succeeded,
        (Exit::OutOfMemory, _) => Outcome::OutOfMemory {
            limit_bytes: job.spec.resources.memory_bytes,
        },
        (Exit::Code(exit_code), _) => Outcome::Failed { exit_code },
        (Exit::Signal(signal), _) => Outcome::Signalled { signal },
    }
}

fn usage(ended: &Ended, wall: Duration) -> Usage {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Usage {
        wall_ms: millis(wall),
        cpu_ms: ended.cpu.map(millis),
        memory_bytes: ended.memory_bytes,
    }
}
