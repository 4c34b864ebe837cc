//! The control signals of a session: events of its worker, and cancellations of jobs that may be its own.

use async_nats::{Message, Subscriber, jetstream};
use bus::{
    envelope::Actor,
    ids::{JobId, SessionId, WorkerId},
    job::JobEvent,
    log::{
        puller,
        read::{self, Fact},
    },
    subjects,
    worker::{Cordoned, Worker, WorkerEvent},
};
use futures::StreamExt as _;
use tracing::debug;

use crate::{
    attempt::{context::Context, fence},
    session::ending::Ending,
};

/// A stored event that concerns a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Signal {
    /// The session is over.
    SessionEnds(Ending),
    /// An operator cordoned the worker, or uncordoned it.
    Cordon(Option<Cordoned>),
    /// A user, or the watcher for a batch that fails fast, cancels a job, which may run here.
    Cancel(JobId),
}

/// The subscriptions by which a session receives its control signals.
pub(crate) struct ControlSignals {
    worker_facts: Subscriber,
    api_facts: Subscriber,
    watcher_facts: Subscriber,
    worker: WorkerId,
    session: SessionId,
}

impl ControlSignals {
    /// Subscribes.
    ///
    /// # Errors
    /// If the subscriptions cannot be made.
    pub(crate) async fn subscribe(js: &jetstream::Context, worker: &WorkerId, session: SessionId) -> Result<Self, puller::Error> {
        let client = js.client();
        let follow = async |subject| client.subscribe(subject).await.map_err(puller::Error::Subscribe);
        Ok(Self {
            worker_facts: follow(subjects::worker_facts(worker)).await?,
            api_facts: follow(subjects::facts_by(&Actor::Api)).await?,
            watcher_facts: follow(subjects::facts_by(&Actor::Watcher)).await?,
            worker: worker.clone(),
            session,
        })
    }

    /// The next signal. Loses nothing when dropped half-way.
    pub(crate) async fn next(&mut self) -> Signal {
        loop {
            let message = tokio::select! {
                Some(message) = self.worker_facts.next() => message,
                Some(message) = self.api_facts.next() => message,
                Some(message) = self.watcher_facts.next() => message,
                else => std::future::pending().await,
            };
            if let Some(signal) = self.read(&message) {
                return signal;
            }
        }
    }

    fn read(&self, message: &Message) -> Option<Signal> {
        match read::decode(&message.subject, 0, &message.payload) {
            Ok(Some(Fact::Worker(recorded))) if recorded.worker == self.worker => signal_of(recorded.envelope.event, self.session),
            Ok(Some(Fact::Job(recorded))) => match recorded.envelope.event {
                JobEvent::CancelRequested(_) => Some(Signal::Cancel(recorded.job)),
                _ => None,
            },
            Ok(_) => None,
            Err(error) => {
                debug!("an event that this program cannot read: {error}");
                None
            }
        }
    }
}

/// The signal of a worker's event for one of its sessions.
fn signal_of(event: WorkerEvent, session: SessionId) -> Option<Signal> {
    match event {
        WorkerEvent::Lost(lost) if lost.session == session => Some(Signal::SessionEnds(Ending::Lost)),
        WorkerEvent::Registered(other) if other.session != session => Some(Signal::SessionEnds(Ending::Replaced(other.session))),
        WorkerEvent::Cordoned(cordoned) => Some(Signal::Cordon(Some(cordoned))),
        WorkerEvent::Uncordoned(_) => Some(Signal::Cordon(None)),
        WorkerEvent::Lost(_)
        | WorkerEvent::Registered(_)
        | WorkerEvent::Left(_)
        | WorkerEvent::Restarting(_)
        | WorkerEvent::Equipped(_) => None,
    }
}

/// The worker's cordon by its events, and how the session ended, if an event after `since` ended it.
pub(crate) fn worker_state(events: &[(u64, WorkerEvent)], session: SessionId, since: u64) -> (Option<Cordoned>, Option<Ending>) {
    let cordon = Worker::replay(events.iter().map(|(_, event)| event)).and_then(|worker| worker.cordon);
    let ending = events
        .iter()
        .filter(|(sequence, _)| *sequence > since)
        .find_map(|(_, event)| match signal_of(event.clone(), session) {
            Some(Signal::SessionEnds(ending)) => Some(ending),
            _ => None,
        });
    (cordon, ending)
}

/// Reads the events of the worker and of the session's attempts after a reconnect, and stops each attempt that is no longer the
/// session's. Returns the worker's cordon, and how the session ended, if it did.
///
/// # Errors
/// If the log cannot be read now.
pub(crate) async fn catch_up(context: &Context, registered: u64) -> Result<(Option<Cordoned>, Option<Ending>), read::Error> {
    let history = read::worker(&context.js, &context.worker).await?;
    let state = worker_state(&history.events, context.session, registered);
    if state.1.is_none() {
        for (job, attempt) in context.attempts.snapshot().1 {
            fence::check(context, job, attempt).await?;
        }
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use bus::worker::{Lost, Uncordoned};

    use super::*;

    #[test]
    fn events_give_the_cordon_and_the_end_of_this_session_only() {
        let (ours, other) = (SessionId::new(), SessionId::new());
        let lost = |session| WorkerEvent::Lost(Lost { session, last_beat: None });
        let cordoned = Cordoned::default();
        let mut events = vec![(1, lost(other)), (3, WorkerEvent::Cordoned(cordoned.clone()))];
        assert_eq!(worker_state(&events, ours, 2), (Some(cordoned), None));
        events.push((5, WorkerEvent::Uncordoned(Uncordoned {})));
        events.push((6, lost(ours)));
        assert_eq!(worker_state(&events, ours, 2), (None, Some(Ending::Lost)));
        assert_eq!(worker_state(&events, ours, 6), (None, None), "that was before");
    }
}
