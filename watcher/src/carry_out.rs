//! Carries out commands. Each is decided once more on the events that the log holds now, and its event is appended behind them.

mod batch;
mod waiting;

use bus::{
    ids::{Attempt, EventId, JobId},
    job::{self, End, Job, LossCause, Phase},
    log::{
        connect::Bus,
        read,
        writer::{self, Loaded, Outcome, Writer},
    },
    worker::{Lost, Worker, WorkerEvent},
};
use chrono::{DateTime, Utc};
use tracing::{debug, info, warn};

#[cfg(test)]
pub(crate) use self::waiting::{Due, due};
use crate::{
    error::chain,
    observation::Observation,
    plan::{Command, Sign},
};

/// What a command changed.
#[derive(Debug)]
pub(crate) enum Effect {
    /// The session is over, by an event of this watcher at this sequence.
    Lost(u64, Observation),
    /// The attempt is not live any more, by an event of this or another writer, up to this sequence.
    Released(u64),
    /// What was due was appended, at this sequence.
    Appended(u64),
    /// Nothing is due: this is the job's last sequence, and when to look at the job again, if ever.
    NotDue(u64, Option<DateTime<Utc>>),
    /// The job waits for a slot of its batch: its last sequence, when its deadline is, and its last attempt, which is over.
    WaitsForSlot(u64, Option<DateTime<Utc>>, Option<Attempt>),
    /// These members of a batch have a slot, each for this attempt: the sequences of the first and of the last event.
    Advanced(u64, u64, Vec<(u32, Attempt)>),
    /// The batch is stopped, by an event of this watcher at this sequence, because so many members failed.
    Stopped(u64, u32),
    /// A member of a batch is ended, or has ended, or runs and is left alone; or it is absent from the log.
    MemberEnded { absent: bool },
    /// The jobs that the job depends on, the last sequence that was known of each, and whether each ended as the job requires.
    Dependencies(Vec<(JobId, u64, bool)>),
    /// Another writer was first; what is to be done now must be planned again.
    Overtaken,
    /// The command could not be carried out.
    Failed,
}

impl Effect {
    /// Up to which sequence the log is known by this.
    pub(crate) const fn sequence(&self) -> u64 {
        match self {
            Self::Lost(sequence, _) | Self::Released(sequence) | Self::Appended(sequence) | Self::NotDue(sequence, _) => *sequence,
            Self::WaitsForSlot(sequence, ..) | Self::Advanced(_, sequence, _) | Self::Stopped(sequence, _) => *sequence,
            Self::Dependencies(_) | Self::MemberEnded { .. } | Self::Overtaken | Self::Failed => 0,
        }
    }
}

/// Carries out commands.
#[derive(Debug, Clone)]
pub(crate) struct Handler {
    pub(crate) bus: Bus,
    pub(crate) writer: Writer,
}

impl Handler {
    pub(crate) async fn carry_out(self, command: Command) -> Effect {
        match command {
            Command::DeclareLost { .. } => self.declare_lost(command).await,
            Command::GiveUp {
                job,
                attempt,
                claimed,
                cause,
                session_end,
                ..
            } => self.give_up(job, attempt, claimed, cause, session_end).await,
            Command::AdvanceWindow { batch, after, members } => self.advance_window(batch, after, members).await,
            Command::StopBatch { batch, after, failures } => self.stop_batch(batch, after, failures).await,
            Command::EndMember { job, reason, running } => self.end_member(job, reason, running).await,
            Command::CheckJob { job, known, met } => self.check_job(job, known, met).await,
            Command::CheckDependencies { job, known, of } => self.check_dependencies(job, known, of).await,
        }
    }

    async fn declare_lost(&self, command: Command) -> Effect {
        let Command::DeclareLost {
            worker,
            session,
            after,
            sign,
            silent,
            last_beat,
        } = command
        else {
            return Effect::Overtaken;
        };
        let lost = WorkerEvent::Lost(Lost { session, last_beat });
        match self.writer.record::<Worker>(&worker, after, lost).await {
            Ok((event, sequence)) => {
                let why = match sign {
                    Sign::Silence => "silent",
                    Sign::Disconnect => "its connection is gone; silent",
                };
                warn!(worker.id = %worker, "worker {worker} is lost: {why} for {:.1} s (session {session})", silent.as_secs_f32());
                let lost = true;
                Effect::Lost(
                    sequence,
                    Observation::SessionEnded {
                        worker,
                        session,
                        lost,
                        event,
                    },
                )
            }
            Err(error) => not_appended(&format!("that worker {worker} is lost"), &error),
        }
    }

    async fn give_up(&self, id: JobId, attempt: Attempt, claimed: u64, cause: LossCause, session_end: Option<EventId>) -> Effect {
        let Some(history) = self.history(id, claimed).await else {
            return Effect::Failed;
        };
        let why = why(&cause);
        let command = job::Command::GiveUp { attempt, cause };
        match self.writer.write_once(&id, loaded(&history), &command, session_end).await {
            Ok(Outcome::Appended(job, sequence)) => {
                info!(job.id = %id, "{} job {id}: {why} during attempt {attempt}", verb(job.as_ref()));
                Effect::Released(sequence)
            }
            Ok(Outcome::Rejected(_, last, rejection)) => {
                debug!(job.id = %id, "attempt {attempt} of job {id} need not be given up: {rejection}");
                Effect::Released(last)
            }
            Err(error) => not_appended(&format!("that attempt {attempt} of job {id} is given up"), &error),
        }
    }

    /// A job's events, of which the one at the sequence `known` must be one; nothing where they cannot be read.
    async fn history(&self, id: JobId, known: u64) -> Option<Vec<job::Recorded>> {
        match read::history(&self.bus.js, id).await {
            // A replica that lags may have answered. Nothing is decided on a history that lacks known events.
            Ok(history) => history.last().is_some_and(|last| last.sequence >= known).then_some(history),
            Err(error) => {
                warn!(job.id = %id, "cannot read job {id} to decide on it: {}", chain(&error));
                None
            }
        }
    }
}

/// A job to decide on, from its events.
fn loaded(history: &[job::Recorded]) -> Loaded<Job> {
    let mut loaded = Loaded::of_history(history);
    // The log compares sequences within one namespace: that of the last event, should a stray one name another.
    if let (Some(job), Some(last)) = (&mut loaded.state, history.last()) {
        job.namespace.clone_from(&last.namespace);
    }
    loaded
}

/// The event that causes the next one.
fn last_event(history: &[job::Recorded]) -> Option<EventId> {
    history.last().map(|last| last.envelope.id)
}

fn not_appended(what: &str, error: &writer::Error) -> Effect {
    if error.is_conflict() {
        debug!("another writer was first, where {what} was to be appended");
        return Effect::Overtaken;
    }
    if error.is_full() {
        // The gauge warns once for all of them.
        debug!("cannot append {what} yet: {}", chain(error));
        return Effect::Failed;
    }
    warn!("cannot append {what}: {}", chain(error));
    Effect::Failed
}

/// What an event of the watcher did to a job, by the job's state after it.
fn verb(job: Option<&Job>) -> &'static str {
    match job.map(|job| &job.phase) {
        Some(Phase::Ended(End::Dead(_))) => "gave up",
        Some(Phase::Ended(End::Cancelled)) => "cancelled",
        Some(Phase::Ended(End::Expired { .. })) => "timed out",
        _ => "rescheduled",
    }
}

fn why(cause: &LossCause) -> String {
    match cause {
        LossCause::WorkerLost { worker } => format!("worker {worker} was lost"),
        LossCause::SessionEnded { worker, .. } => format!("a session of worker {worker} ended"),
        LossCause::Orphaned { worker } => format!("worker {worker} no longer knows it"),
    }
}
