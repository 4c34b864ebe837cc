//! The fence on the attempt's side: a runner learns soon that another attempt replaced its own.
//!
//! A session receives the event of its own loss at once. One attempt of a live session can be given up too (an orphan, a job that another
//! process ended), and that event is published on the job's own subject. A subscription there costs two messages to the server: too
//! much for an attempt of a millisecond, and little for a long one.

use std::{convert::Infallible, time::Duration};

use bus::{
    ids::{Attempt, JobId, Namespace},
    job::{Job, JobEvent},
    log::read::{self, Fact},
    subjects,
};
use futures::StreamExt as _;
use tracing::debug;

use crate::attempt::{context::Context, registry::StopReason};

/// The age from which on an attempt subscribes to its job's events. The commit of a shorter attempt is rejected instead.
const LISTEN_AFTER: Duration = Duration::from_millis(500);
/// How often the log is read as well: a lagging replica may have answered, and the server may drop a message.
const CHECK_PERIOD: Duration = Duration::from_secs(10);
/// The pause before a failed step is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// Watches one attempt, for as long as it is polled, and stops it when it is no longer the job's current attempt.
pub(crate) async fn watch(context: &Context, namespace: Namespace, job: JobId, attempt: Attempt) -> Infallible {
    tokio::time::sleep(LISTEN_AFTER).await;
    loop {
        let subject = subjects::job_facts(&namespace, job);
        match context.js.client().subscribe(subject).await {
            Ok(facts) => listen(context, facts, job, attempt).await,
            Err(error) => debug!(job.id = %job, "cannot subscribe to the events of job {job} yet: {error}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Ends with the subscription.
async fn listen(context: &Context, mut facts: async_nats::Subscriber, job: JobId, attempt: Attempt) {
    loop {
        let next_check = match check(context, job, attempt).await {
            Ok(()) => CHECK_PERIOD,
            Err(error) => {
                debug!(job.id = %job, "cannot read job {job} yet: {error}");
                PAUSE
            }
        };
        let next_check = tokio::time::sleep(next_check);
        tokio::pin!(next_check);
        loop {
            tokio::select! {
                fact = facts.next() => match fact {
                    Some(fact) => if let Some(stop) = stop_reason_by(&fact.subject, &fact.payload, attempt) {
                        context.attempts.stop(job, stop);
                    },
                    None => return,
                },
                () = &mut next_check => break,
            }
        }
    }
}

/// Why an event of the job stops an attempt; nothing where it does not.
fn stop_reason_by(subject: &str, payload: &[u8], attempt: Attempt) -> Option<StopReason> {
    let Ok(Some(Fact::Job(recorded))) = read::decode(subject, 0, payload) else {
        return None;
    };
    match &recorded.envelope.event {
        JobEvent::Rescheduled(event) if event.attempt >= attempt => Some(StopReason::Fenced),
        JobEvent::Died(event) if event.attempt >= attempt => Some(StopReason::Fenced),
        JobEvent::Claimed(event) if event.attempt > attempt => Some(StopReason::Fenced),
        JobEvent::Cancelled(_) => Some(StopReason::Fenced),
        JobEvent::CancelRequested(_) => Some(StopReason::Cancel),
        _ => None,
    }
}

/// Reads a job from the log, and stops the attempt if it is not the current one or is to be cancelled.
///
/// # Errors
/// If the log cannot be read now.
pub(crate) async fn check(context: &Context, id: JobId, attempt: Attempt) -> Result<(), read::Error> {
    if let Some(stop) = read::job(&context.js, id)
        .await?
        .and_then(|job| stop_reason(&job, attempt, context.session))
    {
        context.attempts.stop(id, stop);
    }
    Ok(())
}

/// Why an attempt of this session must stop, by the job's state; nothing where it continues, or is not claimed yet.
fn stop_reason(job: &Job, attempt: Attempt, session: bus::ids::SessionId) -> Option<StopReason> {
    if job.is_held_by(session, attempt) {
        return job.cancel_requested.as_ref().map(|_| StopReason::Cancel);
    }
    job.attempts
        .iter()
        .any(|known| known.number >= attempt)
        .then_some(StopReason::Fenced)
}
