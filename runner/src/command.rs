//! Running an attempt's command: started, listened to, and ended when it must be.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bus::{
    ids::Attempt,
    job::{Command, Job, Outcome, Rejection, Usage},
};
use tokio::sync::mpsc;
use tracing::debug;

use crate::{
    attempt::{Broken, Context, Done, Unfinished},
    executor::{self, Ended, Exit, Handle, Launch, Limits, Running},
    logbook::{self, Logbook},
    places::Place,
    scribe::{self, Scribe},
    sessions::{Entry, Stop},
};

/// How long pipes may stay open after everything that the command started is gone. Only a process that escaped its group holds
/// them then, and what it prints is not the job's any more.
const PIPES_AFTER: Duration = Duration::from_secs(2);
/// Sentences about the preparation that may wait to be put into the log.
const NOTICES: usize = 16;

/// Why a command was made to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Timeout,
    Stop(Stop),
}

/// Runs the command of a staged attempt to its end. The outer error means that nothing is to be committed.
pub(crate) async fn run(
    context: &Context,
    scribe: &mut Scribe,
    entry: &mut Entry,
    place: &Place,
    logbook: &mut Logbook,
    job: &Job,
    attempt: Attempt,
) -> Result<Result<Done, Broken>, Unfinished> {
    let executor = match context.executors.choose((&job.spec).into()).await {
        Ok(chosen) => {
            debug!(job.id = %job.id, "executor {}: {}", chosen.executor.kind(), chosen.why);
            chosen.executor
        }
        Err(error) => return Ok(Err(error.into())),
    };
    let (notice, mut notices) = mpsc::channel(NOTICES);
    let launching = executor.launch(launch(context, place, job, attempt, notice));
    tokio::pin!(launching);
    let launched = loop {
        tokio::select! {
            launched = &mut launching => break launched,
            stop = entry.stop() => return stopped_before_start(stop),
            Some(sentence) = notices.recv() => if let Err(error) = logbook.note(&sentence).await {
                return Ok(Err(error.into()));
            },
        }
    };
    let Running {
        stdout,
        stderr,
        handle,
        environment,
    } = match launched {
        Ok(running) => running,
        Err(error) => return Ok(Err(error.into())),
    };
    let begun = Instant::now();
    let started = Command::Start {
        attempt,
        session: context.session,
        executor: executor.kind(),
        environment,
    };
    let limit = job.spec.timeout_ms.map(Duration::from_millis);
    let mut cut = None;
    let (ended, said, pumped) = {
        let pump = logbook.pump(stdout, stderr);
        let watch = supervise(handle.as_ref(), entry, limit, context.grace, &mut cut);
        together(handle.as_ref(), watch, scribe.say(started), pump).await
    };
    match said {
        // A stale attempt is fenced; everything else about the start is known from the end.
        Err(scribe::Error::Rejected(Rejection::AlreadyStarted)) | Ok(_) => {}
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
        outcome: outcome(ended.exit, cut, job),
        usage: usage(&ended, begun.elapsed()),
    }))
}

fn stopped_before_start(stop: Stop) -> Result<Result<Done, Broken>, Unfinished> {
    match stop {
        Stop::Cancel => Ok(Ok(Done {
            outcome: Outcome::Cancelled,
            usage: Usage::default(),
        })),
        Stop::Fenced | Stop::Shutdown => Err(Unfinished::Stopped(stop)),
    }
}

fn launch(context: &Context, place: &Place, job: &Job, attempt: Attempt, notice: mpsc::Sender<String>) -> Launch {
    let spec = &job.spec;
    let mut env: BTreeMap<String, String> = [
        ("RGRID_JOB_ID", job.id.to_string()),
        ("RGRID_ATTEMPT", attempt.to_string()),
        ("RGRID_NAMESPACE", job.namespace.to_string()),
        ("RGRID_WORKER", context.worker.to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    env.extend(spec.env.clone());
    Launch {
        job: job.id,
        attempt,
        session: context.session,
        command: spec.command.clone(),
        runtime: spec.runtime.clone(),
        image: spec.image.clone(),
        env,
        work_dir: place.work.clone(),
        scratch_dir: place.scratch.clone(),
        limits: Limits {
            cpu_milli: spec.resources.cpu_limit.then_some(spec.resources.cpu_milli),
            memory_bytes: spec.resources.memory_bytes,
        },
        notice: Some(notice),
    }
}

/// Waits for the command, for the log's word on its start, and for its pipes; a fence or a broken log ends the command.
async fn together(
    handle: &dyn Handle,
    watch: impl Future<Output = Result<Ended, executor::Error>>,
    say: impl Future<Output = Result<u64, scribe::Error>>,
    pump: impl Future<Output = Result<(), logbook::Error>>,
) -> (
    Result<Ended, executor::Error>,
    Result<u64, scribe::Error>,
    Result<(), logbook::Error>,
) {
    tokio::pin!(watch, say, pump);
    let (mut ended, mut said, mut pumped) = (None, None, None);
    let mut pipes_until = None;
    loop {
        tokio::select! {
            result = &mut watch, if ended.is_none() => {
                ended = Some(result);
                pipes_until = Some(tokio::time::Instant::now() + PIPES_AFTER);
            }
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
        match (ended.take(), said.take(), pumped.take()) {
            (Some(ended), Some(said), Some(pumped)) => return (ended, said, pumped),
            (e, s, p) => (ended, said, pumped) = (e, s, p),
        }
    }
}

/// Waits for the command's end, and sees to it where its time is over or somebody asks.
async fn supervise(
    handle: &dyn Handle,
    entry: &mut Entry,
    limit: Option<Duration>,
    grace: Duration,
    cut: &mut Option<Cut>,
) -> Result<Ended, executor::Error> {
    let over = async {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = handle.wait() => return ended,
        () = over => *cut = Some(Cut::Timeout),
        stop = entry.stop() => *cut = Some(Cut::Stop(stop)),
    }
    if matches!(cut, Some(Cut::Stop(Stop::Fenced | Stop::Shutdown))) {
        handle.kill().await;
        return handle.wait().await;
    }
    handle.terminate().await;
    tokio::select! {
        ended = handle.wait() => return ended,
        () = tokio::time::sleep(grace) => {}
        stop = fenced(entry) => *cut = Some(Cut::Stop(stop)),
    }
    handle.kill().await;
    handle.wait().await
}

/// Waits for a reason to end the command that leaves it no grace.
async fn fenced(entry: &mut Entry) -> Stop {
    loop {
        match entry.stop().await {
            Stop::Cancel => {}
            stop @ (Stop::Fenced | Stop::Shutdown) => return stop,
        }
    }
}

fn outcome(exit: Exit, cut: Option<Cut>, job: &Job) -> Outcome {
    match (exit, cut) {
        // Also where it then ended with 0: coreutils' `timeout` says 124 all the same.
        (_, Some(Cut::Timeout)) => Outcome::TimedOut {
            limit_ms: job.spec.timeout_ms.unwrap_or(0),
            clock: bus::policy::Clock::Attempt,
        },
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
