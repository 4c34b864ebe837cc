//! One attempt, from its claim to its commit.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bus::{
    envelope::{Actor, Envelope},
    grid::secrets::Key,
    ids::{Attempt, JobId, SessionId, WorkerId},
    job::{Command, Job, JobEvent, ManifestRef, Outcome, Phase, Rejection, State, Usage},
    log::{
        append::Log,
        room::{Addition, Gauge},
        work::Work,
    },
};
use chrono::Utc;
use store::Files;
use tracing::{debug, error, info, warn};

use crate::{
    attempt::{
        commit_outputs::collect,
        deadline::Limit,
        fence,
        inputs::{Inputs, Layout},
        launch,
        leftovers::Leftovers,
        outputs,
        registry::{Attempts, Entry, Stop},
        secrets,
        stage::{self, chain},
        supervise::{self, Cut, Leaving, Started},
        workspace::{Place, Places},
    },
    executor::{self, Executors},
    input_cache::InputCache,
    log::spool::{self, Logbook},
    packages::{self, Packages},
    restart::{attempt, note::LeftBehind},
    scribe::{self, Scribe},
    session::slots::{Share, Taken},
    shutdown::Shutdown,
};

/// After how long a job may be offered again whose fenced attempt is still ending here.
const STILL_ENDING_PAUSE: Duration = Duration::from_millis(100);
/// After how long a job may be offered again that the log has no room for an attempt of.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(1);
/// What an attempt adds to the log, in bytes, roughly: its claim, its start and its end.
const ATTEMPT_BYTES: u64 = 4_096;

/// What every attempt of a session needs.
pub(crate) struct Context {
    /// The log, to be patient with: an outage of minutes costs no finished work.
    pub(crate) log: Log,
    /// `JetStream`.
    pub(crate) js: async_nats::jetstream::Context,
    /// How full the log is.
    pub(crate) gauge: Arc<Gauge>,
    /// The store.
    pub(crate) files: Files,
    /// What commands are executed by.
    pub(crate) executors: Arc<Executors>,
    /// The worker.
    pub(crate) worker: WorkerId,
    /// Its session.
    pub(crate) session: SessionId,
    /// The session's attempts.
    pub(crate) attempts: Attempts,
    /// Where attempts have their directories.
    pub(crate) places: Places,
    /// What stays of earlier ones.
    pub(crate) leftovers: Leftovers,
    /// The contents of inputs that are kept.
    pub(crate) input_cache: InputCache,
    /// The packages that jobs need.
    pub(crate) packages: Packages,
    /// What goes on without this runner, when it restarts.
    pub(crate) left: LeftBehind,
    /// What opens secrets, if the worker may.
    pub(crate) secrets: Option<Key>,
    /// How much of one attempt's log may wait on disk, in bytes.
    pub(crate) spool_bytes: u64,
    /// Whether the runner is ending.
    pub(crate) shutdown: Shutdown,
    /// How long a command that is asked to end may take, where its job does not say.
    pub(crate) grace: Duration,
}

/// How far the work on a command came.
pub(crate) struct Done {
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// What it used.
    pub(crate) usage: Usage,
}

/// Why an attempt ended without anything to commit.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfinished {
    /// The log refused to hear of it.
    #[error(transparent)]
    Scribe(#[from] scribe::Error),
    /// It is not to be committed.
    #[error("the attempt was stopped")]
    Stopped(Stop),
    /// There is no room for its command.
    #[error("there is no room for it")]
    NoRoom,
    /// The runner's own end was its command's too.
    #[error("the runner's shutdown ended it")]
    Interrupted,
    /// Its command is to go on without us.
    #[error("the attempt goes on without this runner")]
    Leaving(Leaving),
}

/// Why the attempt's end is an error of its surroundings, with the sentence that the user reads.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("cannot make a directory for the job: {0}; make room on the worker's disk")]
    Place(io::Error),
    #[error(transparent)]
    Stage(#[from] stage::Error),
    #[error(transparent)]
    Secrets(#[from] secrets::Error),
    #[error(transparent)]
    Executor(#[from] executor::Error),
    #[error(transparent)]
    Packages(packages::Error),
    #[error(transparent)]
    Log(#[from] spool::Error),
    #[error(transparent)]
    Output(#[from] outputs::Error),
    #[error("cannot store the list of outputs: {}", chain(.0))]
    Manifest(store::Error),
}

impl Broken {
    /// How an attempt ends by it.
    pub(crate) fn outcome(&self) -> Outcome {
        Outcome::Error {
            message: self.to_string(),
            not_found: matches!(
                self,
                Self::Executor(executor::Error::NotFound(_)) | Self::Packages(packages::Error::Executor(executor::Error::NotFound(_)))
            ),
        }
    }
}

/// Claims a job and carries its attempt through. Everything that goes wrong ends in an event, or in a log line that says why
/// there is none.
pub(crate) async fn run(context: Arc<Context>, work: Work, job: Job, ready: Envelope<JobEvent>, share: Share) {
    let Phase::Queued { next: attempt } = job.phase else {
        return work.acknowledge().await;
    };
    let (id, namespace) = (job.id, job.namespace.clone());
    let mut entry = match context.attempts.enter(id, attempt) {
        Ok(entry) => entry,
        // It was given up, and is to be made again, perhaps by us: not before it is gone.
        Err(known) if known < attempt => {
            context.attempts.stop(id, Stop::Fenced);
            return work.refuse(STILL_ENDING_PAUSE).await;
        }
        // Our own claim, delivered again because its acknowledgement was late.
        Err(_) => return work.acknowledge().await,
    };
    // Until the claim is stored; what ends it has room beyond the limit of claims.
    let Ok(room) = context.gauge.admit(Addition::Attempts, ATTEMPT_BYTES).await else {
        debug!(job.id = %id, "did not claim job {id}: the log has room only for what ends jobs");
        return work.refuse(NO_ROOM_PAUSE).await;
    };
    let actor = Actor::Worker(context.worker.clone());
    let mut scribe = Scribe::new(context.log.clone(), context.js.clone(), actor, job, &ready);
    let claim = Command::Claim {
        worker: context.worker.clone(),
        session: context.session,
    };
    let claimed = tokio::select! {
        claimed = scribe.say(claim) => claimed,
        // Should it be stored after all, it is a closed session's, and rescheduled as such.
        _ = entry.fenced() => return,
    };
    drop(room);
    match claimed {
        Ok(sequence) => {
            context.attempts.claimed(sequence);
            work.acknowledge().await;
        }
        Err(scribe::Error::Rejected(rejection)) => {
            debug!(job.id = %id, "did not claim job {id}: {rejection}");
            return work.acknowledge().await;
        }
        Err(failed) => {
            warn!(job.id = %id, "could not claim job {id}: {}", chain(&failed));
            return;
        }
    }
    debug!(job.id = %id, "claimed job {id}, attempt {attempt}");
    let carried = tokio::select! {
        carried = carry(&context, &mut scribe, entry, attempt, share) => carried,
        never = fence::watch(&context, namespace, id, attempt) => match never {},
    };
    told(id, attempt, carried);
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
        Err(Unfinished::Scribe(scribe::Error::Rejected(rejection @ Rejection::Stale { .. }))) => {
            info!(job.id = %id, "attempt {attempt} of job {id} was given to another worker; nothing of this one counts: {rejection}");
        }
        Err(Unfinished::Scribe(failed)) => {
            error!(job.id = %id, "the end of job {id}, attempt {attempt}, is not in the log: {}", chain(&failed));
        }
    }
}

/// Runs a claimed attempt, and commits what came of it; or gives it back.
async fn carry(context: &Context, scribe: &mut Scribe, mut entry: Entry, attempt: Attempt, share: Share) -> Result<State, Unfinished> {
    let begun = Instant::now();
    let executed = Box::pin(execute(context, scribe, &mut entry, attempt, share)).await;
    conclude(context, scribe, entry, attempt, begun, executed).await
}

/// Commits what came of an attempt, or gives it back.
pub(crate) async fn conclude(
    context: &Context,
    scribe: &mut Scribe,
    entry: Entry,
    attempt: Attempt,
    begun: Instant,
    executed: Result<Executed, Unfinished>,
) -> Result<State, Unfinished> {
    let unfinished = match executed {
        Ok(executed) => return commit(context, scribe, entry, attempt, begun, executed).await,
        Err(unfinished @ (Unfinished::NoRoom | Unfinished::Interrupted)) => unfinished,
        Err(unfinished) => return Err(unfinished),
    };
    let give_back = Command::Return {
        attempt,
        session: context.session,
        interrupted: matches!(unfinished, Unfinished::Interrupted),
    };
    match say_last(scribe, entry, give_back).await? {
        State::Retrying => Err(unfinished),
        ended => Ok(ended),
    }
}

/// Commits what came of an attempt.
async fn commit(
    context: &Context,
    scribe: &mut Scribe,
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
    say_last(scribe, entry, finish).await
}

/// Says the last word on an attempt, while it is ours, and tells what the job comes to by it.
async fn say_last(scribe: &mut Scribe, mut entry: Entry, word: Command) -> Result<State, Unfinished> {
    tokio::select! {
        said = scribe.say(word) => drop(said?),
        stop = entry.fenced() => return Err(Unfinished::Stopped(stop)),
    }
    Ok(scribe.job().state())
}

pub(crate) type Executed = Result<(Done, Option<ManifestRef>), Broken>;

/// Stages, waits for room, executes and collects. The outer error means that nothing is to be committed, the inner one that the attempt
/// ends in an error.
async fn execute(
    context: &Context,
    scribe: &mut Scribe,
    entry: &mut Entry,
    attempt: Attempt,
    share: Share,
) -> Result<Executed, Unfinished> {
    let job = scribe.job().clone();
    let nothing = |done| Ok(Ok((done, None)));
    if let Some(limit) = Limit::in_total(&job, Utc::now()).filter(|limit| limit.after.is_zero()) {
        return nothing(Cut::Late(limit).before_start()?);
    }
    let files = job.spec.inputs.len() as u64 + job.spec.tree.as_ref().map_or(0, |tree| tree.files);
    let mut place = match context.places.take(files) {
        Ok(place) => place,
        Err(error) => return Ok(Err(Broken::Place(error))),
    };
    let prepared = tokio::select! {
        biased;
        prepared = prepare(stage::lay(&context.files, &context.input_cache, &place, &job.spec), share) => prepared,
        cut = supervise::cut_early(entry, &job) => Err(cut.before_start().map(|done| Ok((done, None)))),
    };
    let taken = match prepared {
        Ok((laid, taken)) => {
            place.inputs = Inputs::new(packages::with_modules(laid, &job.spec), &place.root);
            taken
        }
        Err(end) => {
            place.spoil();
            return end;
        }
    };
    let mut logbook = Logbook::new(
        &context.js,
        &context.files,
        (&job.namespace, job.id, attempt),
        &place.root,
        context.spool_bytes,
    );
    let wanted = job.spec.outputs.as_deref();
    let launched = launch::launch(context, entry, &place, &mut logbook, &job, attempt).await;
    let laid = std::mem::take(&mut place.inputs).into_layout();
    let started = match launched {
        Ok(Ok(started)) => started,
        Ok(Err(error)) => return collect(context, entry, &place, (&laid, wanted), logbook, Err(error)).await,
        // It never ran: nothing there is its.
        Err(cut) => return collect(context, entry, &place, (&laid, Some(&[])), logbook, Ok(cut.before_start()?)).await,
    };
    Box::pin(to_its_end(context, scribe, entry, taken, (place, laid, logbook), started)).await
}

/// Lays files out while room is waited for; the first of both that fails is the attempt's end.
async fn prepare(
    lay: impl Future<Output = Result<Layout, stage::Error>>,
    share: Share,
) -> Result<(Layout, Taken), Result<Executed, Unfinished>> {
    let laid = async { lay.await.map_err(|error| Ok(Err(error.into()))) };
    let taken = async { share.taken().await.ok_or(Err(Unfinished::NoRoom)) };
    tokio::try_join!(laid, taken)
}

/// Follows a command to its end and keeps what it left behind; or leaves it to the next runner.
pub(crate) async fn to_its_end(
    context: &Context,
    scribe: &mut Scribe,
    entry: &mut Entry,
    taken: Taken,
    (place, laid, mut logbook): (Place, Layout, Logbook),
    started: Started,
) -> Result<Executed, Unfinished> {
    let ran = match supervise::follow(context, scribe, entry, &mut logbook, started).await {
        Ok(ran) => ran,
        Err(Unfinished::Leaving(leaving)) => {
            let left = attempt::leave(context, entry.which(), place, laid, logbook, leaving).await;
            return Err(if left {
                Unfinished::Stopped(Stop::Leave)
            } else {
                Unfinished::Interrupted
            });
        }
        Err(unfinished) => return Err(unfinished),
    };
    // What follows waits for the store and the log; the next command need not.
    drop(taken);
    let wanted = scribe.job().spec.outputs.as_deref();
    collect(context, entry, &place, (&laid, wanted), logbook, ran).await
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_gets_no_room_is_not_laid_out_to_its_end() {
        let (give, awaited) = oneshot::channel();
        drop(give);
        let end = prepare(pending(), Share::Awaited(awaited)).await;
        assert!(matches!(end, Err(Err(Unfinished::NoRoom))));
    }

    #[tokio::test]
    async fn what_cannot_be_laid_out_does_not_wait_for_room() {
        let (_give, awaited) = oneshot::channel();
        let broken = stage::Error::Disk {
            path: "x".into(),
            source: io::ErrorKind::StorageFull.into(),
        };
        let end = prepare(ready(Err(broken)), Share::Awaited(awaited)).await;
        assert!(matches!(end, Err(Ok(Err(Broken::Stage(_))))));
    }
}
