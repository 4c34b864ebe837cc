//! What a session hears while it serves: of its worker, and of jobs that may be its own.

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

/// What concerns a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Word {
    /// It is over.
    Ends(Ending),
    /// An operator wants no new work here; or does again.
    Cordon(Option<Cordoned>),
    /// A user, or the watcher of a batch that fails fast, wants the end of a job, which may be one of ours.
    Cancel(JobId),
}

/// Facts, as they are stored.
pub(crate) struct Facts {
    of_worker: Subscriber,
    of_api: Subscriber,
    of_watcher: Subscriber,
    worker: WorkerId,
    session: SessionId,
}

impl Facts {
    /// Listens from now on.
    ///
    /// # Errors
    /// If the subscriptions cannot be made.
    pub(crate) async fn listen(js: &jetstream::Context, worker: &WorkerId, session: SessionId) -> Result<Self, puller::Error> {
        let client = js.client();
        let subscribe = async |subject| client.subscribe(subject).await.map_err(puller::Error::Subscribe);
        Ok(Self {
            of_worker: subscribe(subjects::worker_facts(worker)).await?,
            of_api: subscribe(subjects::facts_by(&Actor::Api)).await?,
            of_watcher: subscribe(subjects::facts_by(&Actor::Watcher)).await?,
            worker: worker.clone(),
            session,
        })
    }

    /// The next word. Loses nothing when dropped half-way.
    pub(crate) async fn next(&mut self) -> Word {
        loop {
            let message = tokio::select! {
                Some(message) = self.of_worker.next() => message,
                Some(message) = self.of_api.next() => message,
                Some(message) = self.of_watcher.next() => message,
                else => std::future::pending().await,
            };
            if let Some(word) = self.read(&message) {
                return word;
            }
        }
    }

    fn read(&self, message: &Message) -> Option<Word> {
        match read::decode(&message.subject, 0, &message.payload) {
            Ok(Some(Fact::Worker(recorded))) if recorded.worker == self.worker => of_worker(recorded.envelope.event, self.session),
            Ok(Some(Fact::Job(recorded))) => match recorded.envelope.event {
                JobEvent::CancelRequested(_) => Some(Word::Cancel(recorded.job)),
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

/// What an event of the worker means for one of its sessions.
fn of_worker(event: WorkerEvent, session: SessionId) -> Option<Word> {
    match event {
        WorkerEvent::Lost(lost) if lost.session == session => Some(Word::Ends(Ending::Lost)),
        WorkerEvent::Registered(other) if other.session != session => Some(Word::Ends(Ending::Replaced(other.session))),
        WorkerEvent::Cordoned(cordoned) => Some(Word::Cordon(Some(cordoned))),
        WorkerEvent::Uncordoned(_) => Some(Word::Cordon(None)),
        WorkerEvent::Lost(_)
        | WorkerEvent::Registered(_)
        | WorkerEvent::Left(_)
        | WorkerEvent::Restarting(_)
        | WorkerEvent::Equipped(_) => None,
    }
}

/// What a worker's events that came after `since` mean for a session: the cordon as it stands, and the session's end, if it is over.
pub(crate) fn standing(events: &[(u64, WorkerEvent)], session: SessionId, since: u64) -> (Option<Cordoned>, Option<Ending>) {
    let cordon = Worker::replay(events.iter().map(|(_, event)| event)).and_then(|worker| worker.cordon);
    let ending = events
        .iter()
        .filter(|(sequence, _)| *sequence > since)
        .find_map(|(_, event)| match of_worker(event.clone(), session) {
            Some(Word::Ends(ending)) => Some(ending),
            _ => None,
        });
    (cordon, ending)
}

/// Reads what was said of a session and of its attempts while nobody could tell us, and stops what is not ours any more. Tells the
/// cordon as it stands, and the session's end, if it is over.
///
/// # Errors
/// If the log does not tell now.
pub(crate) async fn catch_up(context: &Context, registered: u64) -> Result<(Option<Cordoned>, Option<Ending>), read::Error> {
    let history = read::worker(&context.js, &context.worker).await?;
    let standing = standing(&history.events, context.session, registered);
    if standing.1.is_none() {
        for (job, attempt) in context.attempts.snapshot().1 {
            fence::check(context, job, attempt).await?;
        }
    }
    Ok(standing)
}

#[cfg(test)]
mod tests {
    use bus::worker::{Lost, Uncordoned};

    use super::*;

    #[test]
    fn a_history_tells_the_cordon_and_the_end_of_a_session_and_of_no_other() {
        let (ours, other) = (SessionId::new(), SessionId::new());
        let lost = |session| WorkerEvent::Lost(Lost { session, last_beat: None });
        let cordoned = Cordoned::default();
        let mut events = vec![(1, lost(other)), (3, WorkerEvent::Cordoned(cordoned.clone()))];
        assert_eq!(standing(&events, ours, 2), (Some(cordoned), None));
        events.push((5, WorkerEvent::Uncordoned(Uncordoned {})));
        events.push((6, lost(ours)));
        assert_eq!(standing(&events, ours, 2), (None, Some(Ending::Lost)));
        assert_eq!(standing(&events, ours, 6), (None, None), "that was before");
    }
}
