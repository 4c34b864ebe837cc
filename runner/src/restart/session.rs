//! Resuming a session that the last runner of this worker left, and leaving one to the next runner.

use std::time::Duration;

use bus::{
    job::Recorded,
    log::{
        append, read,
        writer::{self, Aggregate as _, Decision},
    },
    worker::{self, Registered, Restarting, Worker, WorkerEvent},
};
use chrono::{DateTime, TimeDelta, Utc};
use tracing::{info, warn};

use crate::{
    attempt::{
        context::Context,
        leave::give_up,
        left::LeftAttempt,
        registry::{Entry, StopReason},
        writer::JobWriter,
    },
    config::Config,
    restart::note::Note,
};

/// How long appending the announcement of a restart may take.
const ANNOUNCED: Duration = Duration::from_secs(10);
/// How long attempts may take to be left, or to end.
const LEAVING: Duration = Duration::from_secs(30);
/// How often a failed read of the log is tried, and the pause between.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(500);

/// Why it is not known whether the session that the last runner left continues.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The registration could not be appended.
    #[error(transparent)]
    Append(#[from] append::Error),
    /// The log could not be read.
    #[error("cannot read whether the session that the last runner left continues")]
    Read(#[source] read::Error),
}

/// Registers the session again that the last runner left, unless it was given up meanwhile. The log decides between this runner and a
/// watcher that gives the session up. Returns the registration's sequence and its time; nothing where the session is over.
///
/// # Errors
/// If the registration cannot be appended, or the log cannot be read.
pub(crate) async fn register(context: &Context, registered: Registered) -> Result<Option<(u64, DateTime<Utc>)>, Error> {
    let resume = worker::Command::Resume(Box::new(registered));
    let mut tries = 1;
    loop {
        match write(context, &resume).await {
            Ok(Decision::Appended { sequence, time }) => return Ok(Some((sequence, time))),
            // Where other writers keep changing the worker, another runner serves it.
            Ok(Decision::Rejected(_)) | Err(writer::Error::Contended { .. } | writer::Error::NoRoom { .. }) => return Ok(None),
            Err(writer::Error::Append(error)) => return Err(error.into()),
            Err(writer::Error::Read(error)) if tries == TRIES => return Err(Error::Read(error)),
            Err(writer::Error::Read(error)) => {
                warn!("cannot read yet whether the session that the last runner left continues: {error}");
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn write(context: &Context, command: &worker::Command) -> Result<Decision<Worker>, writer::Error> {
    let mut loaded = Worker::load(&context.js, &context.worker).await?;
    context.writer.write_from(&mut loaded, &context.worker, command).await
}

/// An attempt of the last runner that this runner continues.
pub(crate) struct Resumed {
    /// What the last runner left.
    pub(crate) left: LeftAttempt,
    /// Appends its events.
    pub(crate) writer: JobWriter,
    /// Its entry among the session's attempts.
    pub(crate) entry: Entry,
}

/// Resumes the attempts that the last runner left of a session that continues. An attempt that is no longer the session's is ended.
pub(crate) async fn resume(context: &Context, attempts: Vec<LeftAttempt>) -> Vec<Resumed> {
    let mut resumed = Vec::new();
    for left in attempts {
        let job = left.job;
        let Some(history) = history(context, &left).await else {
            give_up(context, left, "its job cannot be read from the log");
            continue;
        };
        let writer = JobWriter::resume(context.writer.clone(), &history);
        let Some(writer) = writer.filter(|writer| writer.job().is_held_by(context.session, left.attempt)) else {
            give_up(context, left, "it was given to another worker, or ended");
            continue;
        };
        let Ok(entry) = context.attempts.enter(job, left.attempt) else {
            give_up(context, left, "another attempt at the job runs here");
            continue;
        };
        if writer.job().cancel_requested.is_some() {
            context.attempts.stop(job, StopReason::Cancel);
        }
        resumed.push(Resumed { left, writer, entry });
    }
    resumed
}

async fn history(context: &Context, left: &LeftAttempt) -> Option<Vec<Recorded>> {
    for _ in 0..TRIES {
        match read::history(&context.js, left.job).await {
            Ok(history) => return Some(history),
            Err(error) => warn!(job.id = %left.job, "cannot read job {} yet: {error}", left.job),
        }
        tokio::time::sleep(PAUSE).await;
    }
    None
}

/// Announces a restart, leaves the attempts that can be left, and notes them for the next runner. Returns whether any was left.
pub(crate) async fn leave(config: &Config, context: &Context) -> bool {
    if context.attempts.is_empty() {
        return false;
    }
    let patience = TimeDelta::from_std(config.restart_deadline).unwrap_or(TimeDelta::MAX);
    let Some(deadline) = Utc::now().checked_add_signed(patience) else {
        return false;
    };
    let restarting = WorkerEvent::Restarting(Restarting {
        session: context.session,
        deadline,
    });
    match tokio::time::timeout(ANNOUNCED, context.writer.announce(&context.worker, restarting)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            warn!("cannot announce the restart ({error}); the attempts here are ended and rescheduled");
            return false;
        }
        Err(_) => {
            warn!("NATS did not store the announcement of the restart in time; the attempts here are ended and rescheduled");
            return false;
        }
    }
    context.attempts.stop_all(StopReason::Leave);
    let ended = async {
        while !context.attempts.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(LEAVING, ended).await.is_err() {
        warn!("some attempts take too long to be left; they are rescheduled");
    }
    let left = context.left.close();
    if left.is_empty() {
        return false;
    }
    let count = left.len();
    let last_claim = context.attempts.snapshot().0;
    let note = Note::new((config.worker.clone(), context.session), deadline, last_claim, left);
    if let Err(error) = note.write(&config.work_dir) {
        warn!(
            "cannot write the note for the next runner in {} ({error}); the attempts that were left are ended and rescheduled",
            config.work_dir.display()
        );
        for left in note.attempts {
            give_up(context, left, "the next runner would not find it");
        }
        return false;
    }
    info!("left {count} attempts running for the next runner of this worker, which may continue them until {deadline}");
    true
}
