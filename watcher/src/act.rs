//! Carrying out what is planned: each step decided once more on what the log says now, and appended behind that.

use bus::{
    envelope::{Actor, Envelope},
    ids::{Attempt, EventId, JobId},
    job::{self, Job, LossCause, decide},
    stream::{
        append::{self, Append, Log},
        connect::Bus,
        read,
    },
    worker::{Lost, WorkerEvent},
};
use tracing::{debug, info, warn};

use crate::{
    plan::{Command, Sign},
    seen::Seen,
    state::Key,
};

/// What a command is about; one is done at a time about each.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    Session(Key),
    Attempt(JobId, Attempt, Key),
}

/// What came of a command.
#[derive(Debug)]
pub(crate) enum Done {
    /// The session is over, by our word at this sequence.
    Lost(u64, Seen),
    /// The attempt is not live any more, by our word or by that of others.
    Released,
    /// The log moved on; what is to be done now must be planned anew.
    Overtaken,
    /// It could not be done.
    Failed,
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
        }
    }
}

/// Where commands are carried out.
#[derive(Debug, Clone)]
pub(crate) struct Hands {
    pub(crate) bus: Bus,
    pub(crate) log: Log,
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
        let history = match read::history(&self.bus.js, id).await {
            Ok(history) => history,
            Err(error) => {
                warn!(job.id = %id, "cannot read job {id}, whose attempt {attempt} is to be given up: {}", chain(&error));
                return Done::Failed;
            }
        };
        let (first, last) = match (history.first(), history.last()) {
            (Some(first), Some(last)) if last.sequence >= claimed => (first, last),
            // A replica that lags may have answered. What it does not know yet cannot be decided on.
            _ => return Done::Failed,
        };
        let why = why(&cause);
        let job = Job::replay(&history);
        let event = match decide(job.as_ref(), job::Command::GiveUp { attempt, cause }) {
            Ok(event) => event,
            Err(rejection) => {
                debug!(job.id = %id, "attempt {attempt} of job {id} need not be given up: {rejection}");
                return Done::Released;
            }
        };
        let Some(job) = job else { return Done::Released };
        let (kind, envelope) = (event_word(&event), said(event, first.envelope.id, because));
        match self.log.append(Append::job(&job.namespace, id, last.sequence, &envelope)).await {
            Ok(_) => {
                info!(job.id = %id, "{kind} job {id}: {why} during attempt {attempt}");
                Done::Released
            }
            Err(error) => not_appended(&format!("that job {id} is {kind}"), &error),
        }
    }
}

fn said(event: job::JobEvent, correlation: EventId, because: Option<EventId>) -> Envelope<job::JobEvent> {
    Envelope {
        causation_id: because,
        correlation_id: Some(correlation),
        ..Envelope::new(Actor::Watcher, event)
    }
}

fn not_appended(what: &str, error: &append::Error) -> Done {
    if matches!(error, append::Error::Conflict { .. }) {
        debug!("somebody was first where {what} was to be said");
        return Done::Overtaken;
    }
    warn!("cannot say {what}: {}", chain(error));
    Done::Failed
}

fn event_word(event: &job::JobEvent) -> &'static str {
    match event {
        job::JobEvent::Died(_) => "gave up",
        job::JobEvent::Cancelled(_) => "cancelled",
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
