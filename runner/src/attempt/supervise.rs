//! An attempt's command, from its start to its end: listened to, and ended when it must be.

use std::time::Duration;

use bus::job::{Command, Job, Outcome, Rejection, Usage};
use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    attempt::{
        context::Context,
        deadline::Limit,
        end::{Broken, Cut, Done, Leaving, Unfinished},
        registry::{Entry, Stop},
        writer::{self, JobWriter},
    },
    executor::{self, Ended, Exit, Handle, Running},
    log::spool::{self, Logbook},
};

/// How long a command that cannot be left behind has to end by itself when the runner restarts.
const MOMENT: Duration = Duration::from_secs(2);

/// Waits until an attempt whose command does not run yet must end.
pub(crate) async fn cut_early(entry: &mut Entry, job: &Job) -> Cut {
    tokio::select! {
        stop = entry.stop() => Cut::Stop(stop),
        limit = Limit::passed(Limit::in_total(job, Utc::now())) => Cut::Late(limit),
    }
}

/// A command that runs, and what is to be said of it.
pub(crate) struct Started {
    /// The command.
    pub(crate) running: Running,
    /// When it began.
    pub(crate) begun: DateTime<Utc>,
    /// The word of its start, where the log has none yet.
    pub(crate) say: Option<Command>,
}

/// Follows a command to its end. The outer error means that nothing is to be committed.
pub(crate) async fn follow(
    context: &Context,
    writer: &mut JobWriter,
    entry: &mut Entry,
    logbook: &mut Logbook,
    started: Started,
) -> Result<Result<Done, Broken>, Unfinished> {
    let job = writer.job().clone();
    let Running {
        stdout,
        stderr,
        handle,
        held,
        environment: _,
    } = started.running;
    let _held = held;
    let limit = Limit::of(&job, started.begun, Utc::now());
    let grace = Grace::of(&job, context);
    let leave = CancellationToken::new();
    let together = {
        let pump = logbook.pump(stdout, stderr, &leave);
        let watch = supervise(handle.as_ref(), entry, limit, grace);
        let say = async {
            match started.say {
                Some(command) => writer.append(command).await.map(drop),
                None => Ok(()),
            }
        };
        Box::pin(together(handle.as_ref(), watch, say, pump, &leave)).await?
    };
    let Together { ended, cut, said, pumped } = match together {
        Some(together) => together,
        None => {
            return Err(Unfinished::Leaving(Leaving {
                handle,
                begun: started.begun,
            }));
        }
    };
    match said {
        // A stale attempt is fenced; everything else about the start is known from the end.
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
    Ok(Ok(Done {
        outcome: outcome(ended.exit, cut, &job),
        usage: usage(&ended, (Utc::now() - started.begun).to_std().unwrap_or_default()),
    }))
}

/// What came of watching a command.
enum Watched {
    /// It ended, and perhaps it was made to.
    Ended(Result<Ended, executor::Error>, Option<Cut>),
    /// It goes on without us.
    Leaving,
}

/// What came of a command, of the word of its start, and of its pipes.
struct Together {
    ended: Result<Ended, executor::Error>,
    cut: Option<Cut>,
    said: Result<(), writer::Error>,
    pumped: Result<(), spool::Error>,
}

/// Waits for the command, for the log's word on its start, and for its pipes; a fence or a broken log ends the command.
/// Nothing, where the command is left and its log is whole up to there.
async fn together(
    handle: &dyn Handle,
    watch: impl Future<Output = Watched>,
    say: impl Future<Output = Result<(), writer::Error>>,
    pump: impl Future<Output = Result<(), spool::Error>>,
    leave: &CancellationToken,
) -> Result<Option<Together>, Unfinished> {
    tokio::pin!(watch, say, pump);
    let (mut watched, mut said, mut pumped) = (None, None, None);
    let mut pipes_until = None;
    loop {
        tokio::select! {
            result = &mut watch, if watched.is_none() => match result {
                // Nothing of it is to be committed: neither its pipes nor a log that is away are waited for.
                Watched::Ended(_, Some(Cut::Stop(Stop::Leave))) => return Err(Unfinished::Interrupted),
                Watched::Ended(_, Some(Cut::Stop(stop @ (Stop::Shutdown | Stop::Fenced)))) => return Err(Unfinished::Stopped(stop)),
                Watched::Ended(ended, cut) => {
                    watched = Some((ended, cut));
                    pipes_until = Some(tokio::time::Instant::now() + handle.outputs_after());
                }
                Watched::Leaving => {
                    leave.cancel();
                    // A log that broke is the end of the command; so is an end that nobody will hear of otherwise.
                    let pumped = match pumped {
                        Some(pumped) => pumped,
                        None => pump.await,
                    };
                    return match pumped {
                        Ok(()) => Ok(None),
                        Err(_) => Err(Unfinished::Interrupted),
                    };
                }
            },
            result = &mut say, if said.is_none() => {
                if result.is_err() {
                    handle.kill().await;
                }
                said = Some(result);
            }
            result = &mut pump, if pumped.is_none() => {
                if result.is_err() {
                    handle.kill().await;
                }
                pumped = Some(result);
            }
            () = tokio::time::sleep_until(pipes_until.unwrap_or_else(tokio::time::Instant::now)), if pipes_until.is_some() && pumped.is_none() => {
                debug!("the command is gone and its pipes are not; leaving them");
                pumped = Some(Ok(()));
            }
        }
        match (watched.take(), said.take(), pumped.take()) {
            (Some((ended, cut)), Some(said), Some(pumped)) => {
                return Ok(Some(Together { ended, cut, said, pumped }));
            }
            (w, s, p) => (watched, said, pumped) = (w, s, p),
        }
    }
}

/// How long a command that is asked to end may take.
#[derive(Debug, Clone, Copy)]
struct Grace {
    /// As its job says, for a cancel or a limit.
    own: Duration,
    /// Where the runner cannot wait for longer.
    hasty: Duration,
}

impl Grace {
    fn of(job: &Job, context: &Context) -> Self {
        let own = job.spec.grace_ms.map_or(context.grace, Duration::from_millis);
        Self {
            own,
            hasty: own.min(context.grace),
        }
    }
}

/// Waits for the command's end, and sees to it where its time is over or somebody asks.
async fn supervise(handle: &dyn Handle, entry: &mut Entry, limit: Option<Limit>, grace: Grace) -> Watched {
    let cut = tokio::select! {
        ended = handle.wait() => return Watched::Ended(ended, None),
        limit = Limit::passed(limit) => Cut::Late(limit),
        stop = entry.stop() => Cut::Stop(stop),
    };
    let cut = match cut {
        Cut::Stop(Stop::Leave) if handle.can_be_left() => return Watched::Leaving,
        Cut::Stop(Stop::Leave) => tokio::select! {
            ended = handle.wait() => return Watched::Ended(ended, None),
            () = tokio::time::sleep(MOMENT) => cut,
            stop = entry.stop() => Cut::Stop(stop),
        },
        cut => cut,
    };
    let grace = match cut {
        Cut::Stop(Stop::Fenced) => Duration::ZERO,
        Cut::Stop(Stop::Leave | Stop::Shutdown) => grace.hasty,
        Cut::Stop(Stop::Cancel) | Cut::Late(_) => grace.own,
    };
    if !grace.is_zero() {
        handle.terminate().await;
        tokio::select! {
            ended = handle.wait() => return Watched::Ended(ended, Some(cut)),
            () = tokio::time::sleep(grace) => {}
            stop = entry.fenced() => {
                handle.kill().await;
                return Watched::Ended(handle.wait().await, Some(Cut::Stop(stop)));
            }
        }
    }
    handle.kill().await;
    Watched::Ended(handle.wait().await, Some(cut))
}

fn outcome(exit: Exit, cut: Option<Cut>, job: &Job) -> Outcome {
    match (exit, cut) {
        // Also where it then ended with 0: coreutils' `timeout` says 124 all the same.
        (_, Some(Cut::Late(limit))) => limit.outcome(),
        (_, Some(Cut::Stop(_))) => Outcome::Cancelled,
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
