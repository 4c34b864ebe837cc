//! The fence, from the attempt's side: learning soon that it is not ours any more.
//!
//! A session that is lost hears of it at once. One attempt of a session that lives can be given up too (an orphan, a job that was
//! ended by somebody else), and the word of that stands under the job's own subject. To listen there costs two messages to the
//! broker, too much for an attempt of a millisecond, and nothing for one that lasts.

use std::{convert::Infallible, time::Duration};

use bus::{
    ids::{Attempt, JobId, Namespace},
    job::{Job, JobEvent},
    log::read::{self, Fact},
    subjects,
};
use futures::StreamExt as _;
use tracing::debug;

use crate::attempt::{context::Context, registry::Stop};

/// From what age on an attempt listens for itself. What is shorter learns its fate from its commit.
const LASTING: Duration = Duration::from_millis(500);
/// How often the log is read all the same: a replica that lags may have answered, and a broker may drop a message.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// The pause before what failed is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// Watches over one attempt, for as long as it is polled, and stops it when it is not ours any more.
pub(crate) async fn watch(context: &Context, namespace: Namespace, job: JobId, attempt: Attempt) -> Infallible {
    tokio::time::sleep(LASTING).await;
    loop {
        let subject = subjects::job_facts(&namespace, job);
        match context.js.client().subscribe(subject).await {
            Ok(facts) => listen(context, facts, job, attempt).await,
            Err(error) => debug!(job.id = %job, "cannot listen for the fate of job {job} yet: {error}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Ends with the subscription.
async fn listen(context: &Context, mut facts: async_nats::Subscriber, job: JobId, attempt: Attempt) {
    loop {
        let look_again = match check(context, job, attempt).await {
            Ok(()) => LOOK_AGAIN,
            Err(error) => {
                debug!(job.id = %job, "cannot read job {job} yet: {error}");
                PAUSE
            }
        };
        let look_again = tokio::time::sleep(look_again);
        tokio::pin!(look_again);
        loop {
            tokio::select! {
                fact = facts.next() => match fact {
                    Some(fact) => if let Some(stop) = concerns(&fact.subject, &fact.payload, attempt) {
                        context.attempts.stop(job, stop);
                    },
                    None => return,
                },
                () = &mut look_again => break,
            }
        }
    }
}

/// What a fact of the job means for an attempt at it.
fn concerns(subject: &str, payload: &[u8], attempt: Attempt) -> Option<Stop> {
    let Ok(Some(Fact::Job(recorded))) = read::decode(subject, 0, payload) else {
        return None;
    };
    match &recorded.envelope.event {
        JobEvent::Rescheduled(event) if event.attempt >= attempt => Some(Stop::Fenced),
        JobEvent::Died(event) if event.attempt >= attempt => Some(Stop::Fenced),
        JobEvent::Claimed(event) if event.attempt > attempt => Some(Stop::Fenced),
        JobEvent::Cancelled(_) => Some(Stop::Fenced),
        JobEvent::CancelRequested(_) => Some(Stop::Cancel),
        _ => None,
    }
}

/// Reads a job from the log, and stops the attempt if that is not the live one or is to be cancelled.
///
/// # Errors
/// If the log cannot be read now.
pub(crate) async fn check(context: &Context, id: JobId, attempt: Attempt) -> Result<(), read::Error> {
    if let Some(stop) = read::job(&context.js, id)
        .await?
        .and_then(|job| verdict(&job, attempt, context.session))
    {
        context.attempts.stop(id, stop);
    }
    Ok(())
}

/// What a job as it stands means for an attempt of this session; nothing where that goes on, or is not claimed yet.
fn verdict(job: &Job, attempt: Attempt, session: bus::ids::SessionId) -> Option<Stop> {
    if job.is_held_by(session, attempt) {
        return job.cancel_requested.as_ref().map(|_| Stop::Cancel);
    }
    job.attempts.iter().any(|known| known.number >= attempt).then_some(Stop::Fenced)
}
