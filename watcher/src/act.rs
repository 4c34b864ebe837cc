//! Carrying out what is planned: each step decided once more on what the log says now, and appended behind that.

mod batch;
mod due;

use std::sync::Arc;

use bus::{
    envelope::{Actor, Envelope},
    ids::{Attempt, BatchId, EventId, JobId},
    job::{self, Job, LossCause, decide},
    log::{
        append::{self, Append, Log},
        connect::Bus,
        read,
        room::{Addition, Admitted, Gauge, begins_an_attempt},
    },
    worker::{Lost, WorkerEvent},
};
use chrono::{DateTime, Utc};
use tracing::{debug, info, warn};

#[cfg(test)]
pub(crate) use self::due::{Wish, wish};
use crate::{
    plan::{Command, Sign},
    seen::{Seen, SessionKey},
};

/// What a command is about; one is done at a time about each.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    Session(SessionKey),
    Attempt(JobId, Attempt, SessionKey),
    /// What a job waits for.
    Waiting(JobId),
    /// The window of a batch.
    Batch(BatchId),
    /// The end of a batch's member.
    Member(JobId),
}

/// What came of a command.
#[derive(Debug)]
pub(crate) enum Done {
    /// The session is over, by our word at this sequence.
    Lost(u64, Seen),
    /// The attempt is not live any more, by our word or by that of others, up to this sequence.
    Released(u64),
    /// What was due was said, at this sequence.
    Said(u64),
    /// Nothing is due: the job stands at this sequence, and is to be looked at again then, or never.
    Looked(u64, Option<DateTime<Utc>>),
    /// It waits for a slot of its batch: it stands at this sequence, and may become too old then; its last attempt is over.
    Turn(u64, Option<DateTime<Utc>>, Option<Attempt>),
    /// These members of a batch have a slot, by our word at this sequence; the last event of it, and the attempt of each.
    Advanced(u64, u64, Vec<(u32, Attempt)>),
    /// The batch is stopped, by our word at this sequence: so many had failed.
    Stopped(u64, u32),
    /// It was seen to that a member of a batch ends, or it has ended, or runs and is left alone; or it is not there.
    SeenTo { absent: bool },
    /// The jobs that it waits for, up to what sequence each was known, and whether they have ended as they must.
    Asked(Vec<(JobId, u64, bool)>),
    /// The log moved on; what is to be done now must be planned anew.
    Overtaken,
    /// It could not be done.
    Failed,
}

impl Done {
    /// Up to which sequence the log is known by this.
    pub(crate) const fn sequence(&self) -> u64 {
        match self {
            Self::Lost(sequence, _) | Self::Released(sequence) | Self::Said(sequence) | Self::Looked(sequence, _) => *sequence,
            Self::Turn(sequence, ..) | Self::Advanced(_, sequence, _) | Self::Stopped(sequence, _) => *sequence,
            Self::Asked(_) | Self::SeenTo { .. } | Self::Overtaken | Self::Failed => 0,
        }
    }
}

impl Command {
    pub(crate) fn topic(&self) -> Topic {
        match self {
            Self::Lose { worker, session, .. } => Topic::Session((worker.clone(), *session)),
            Self::GiveUp {
                job,
                attempt,
                worker,
                session,
                ..
            } => Topic::Attempt(*job, *attempt, (worker.clone(), *session)),
            Self::Advance { batch, .. } | Self::Stop { batch, .. } => Topic::Batch(*batch),
            Self::End { job, .. } => Topic::Member(*job),
            Self::Look { job, .. } | Self::Ask { job, .. } => Topic::Waiting(*job),
        }
    }
}

/// Where commands are carried out.
#[derive(Debug, Clone)]
pub(crate) struct Hands {
    pub(crate) bus: Bus,
    pub(crate) log: Log,
    /// How full the log is.
    pub(crate) gauge: Arc<Gauge>,
}

impl Hands {
    pub(crate) async fn carry_out(self, command: Command) -> Done {
        match command {
            Command::Lose { .. } => self.lose(command).await,
            Command::GiveUp {
                job,
                attempt,
                claimed,
                cause,
                because,
                ..
            } => self.give_up(job, attempt, claimed, cause, because).await,
            Command::Advance { batch, after, members } => self.advance(batch, after, members).await,
            Command::Stop { batch, after, failures } => self.stop(batch, after, failures).await,
            Command::End { job, reason, running } => self.end(job, reason, running).await,
            Command::Look { job, known, met } => self.look(job, known, met).await,
            Command::Ask { job, known, of } => self.ask(job, known, of).await,
        }
    }

    async fn lose(&self, command: Command) -> Done {
        let Command::Lose {
            worker,
            session,
            after,
            sign,
            silent,
            last_beat,
        } = command
        else {
            return Done::Overtaken;
        };
        let envelope = Envelope::new(Actor::Watcher, WorkerEvent::Lost(Lost { session, last_beat }));
        let event = envelope.id;
        match self.log.append(Append::worker(&worker, Some(after), &envelope)).await {
            Ok(sequence) => {
                let why = match sign {
                    Sign::Silence => "silent",
                    Sign::Disconnect => "its connection is gone; silent",
                };
                warn!(worker.id = %worker, "worker {worker} is lost: {why} for {:.1} s (session {session})", silent.as_secs_f32());
                let lost = true;
                Done::Lost(
                    sequence,
                    Seen::Ended {
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

    async fn give_up(&self, id: JobId, attempt: Attempt, claimed: u64, cause: LossCause, because: Option<EventId>) -> Done {
        let Some(history) = self.history(id, claimed).await else {
            return Done::Failed;
        };
        let why = why(&cause);
        let job = Job::replay(&history);
        let event = match decide(job.as_ref(), job::Command::GiveUp { attempt, cause }) {
            Ok(event) => event,
            Err(rejection) => {
                debug!(job.id = %id, "attempt {attempt} of job {id} need not be given up: {rejection}");
                return Done::Released(history.last().map_or(claimed, |last| last.sequence));
            }
        };
        let words = event_words(&event);
        match self.say(&history, event, because).await {
            Ok(sequence) => {
                info!(job.id = %id, "{words} job {id}: {why} during attempt {attempt}");
                Done::Released(sequence)
            }
            Err(error) => not_appended(&format!("that job {id} is {words}"), &error),
        }
    }

    /// A job's events, which are there at least up to what is known; nothing where they cannot be read.
    async fn history(&self, id: JobId, known: u64) -> Option<Vec<job::Recorded>> {
        match read::history(&self.bus.js, id).await {
            // A replica that lags may have answered. What it does not know yet cannot be decided on.
            Ok(history) => history.last().is_some_and(|last| last.sequence >= known).then_some(history),
            Err(error) => {
                warn!(job.id = %id, "cannot read job {id}, of which something is to be said: {}", chain(&error));
                None
            }
        }
    }

    /// Appends an event of a job behind its last one.
    async fn say(&self, history: &[job::Recorded], event: job::JobEvent, because: Option<EventId>) -> Result<u64, append::Error> {
        let (first, last) = (history.first(), history.last());
        let envelope = Envelope {
            causation_id: because,
            correlation_id: first.map(|first| first.envelope.id),
            ..Envelope::new(Actor::Watcher, event)
        };
        let Some(last) = last else { return Ok(0) };
        let append = Append::job(&last.namespace, last.job, last.sequence, &envelope);
        let _room = if begins_an_attempt(&envelope.event) {
            Some(self.room(append.weight()).await?)
        } else {
            None
        };
        self.log.append(append).await
    }

    /// Room for what lets attempts begin. The last part of the log is for what ends jobs.
    async fn room(&self, bytes: u64) -> Result<Admitted, append::Error> {
        let admitted = self.gauge.admit(Addition::Attempts, bytes).await;
        admitted.map_err(|fill| append::Error::Full {
            reason: format!(
                "it holds {} of its {} bytes, and what is left is for what ends jobs",
                fill.used, fill.max
            ),
        })
    }
}

fn not_appended(what: &str, error: &append::Error) -> Done {
    if matches!(error, append::Error::Conflict { .. }) {
        debug!("somebody was first where {what} was to be said");
        return Done::Overtaken;
    }
    if matches!(error, append::Error::Full { .. }) {
        // Once is enough for all of them: the gauge says it.
        debug!("cannot say {what} yet: {}", chain(error));
        return Done::Failed;
    }
    warn!("cannot say {what}: {}", chain(error));
    Done::Failed
}

fn event_words(event: &job::JobEvent) -> &'static str {
    match event {
        job::JobEvent::Died(_) => "gave up",
        job::JobEvent::Cancelled(_) => "cancelled",
        job::JobEvent::Released(_) => "released",
        job::JobEvent::Expired(_) => "timed out",
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

/// An error and its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
