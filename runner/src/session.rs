//! One session of a runner: pulls what fits, runs it, and listens for what concerns it.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::{Subscriber, jetstream::Message};
use bus::{
    envelope::{Actor, Envelope},
    ids::{Queue, SessionId, WorkerId},
    job::{Job, JobEvent},
    spec::Class,
    stream::{
        EVENTS,
        puller::{self, Patience, Pulled, Puller},
        read::{self, Fact},
        setup,
        work::Work,
    },
    subjects,
    worker::WorkerEvent,
};
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, error, warn};

use crate::{
    attempt::{self, Context},
    dispatcher::{Dispatcher, HELD, Response, Room, Verdict},
    presence::Free,
    sessions::Stop,
};

/// How long an ask waits on the server. Shorter than the silence by which a worker is given up: the broker cannot know that a cable
/// is cut, and what it hands to a dead one's ask comes back only after `ack_wait`.
const EXPIRES: Duration = Duration::from_millis(2_500);
/// After how long work that does not fit now may be offered again, to us or to another worker.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(20);
/// The same for work that this machine can never hold, or this program cannot read: somebody else must.
const NOT_OURS_PAUSE: Duration = Duration::from_secs(5);

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The runner was told to stop; its attempts may still be running.
    Stopped,
    /// The watcher declared it lost; its attempts belong to others now.
    Lost,
    /// Another runner serves the worker.
    Replaced(SessionId),
    /// The broker lost the consumers, or the connection.
    Broken(String),
}

/// A session that serves its queues.
pub(crate) struct Session {
    context: Arc<Context>,
    dispatcher: Dispatcher,
    lanes: Vec<String>,
    puller: Puller,
    facts: Facts,
    free: Free,
    freed: (mpsc::UnboundedSender<Freed>, mpsc::UnboundedReceiver<Freed>),
    /// Work that waits here for room, the oldest first.
    held: VecDeque<Offer>,
    tracker: TaskTracker,
    /// How often the connection was made; facts that were said while it was not are read again.
    connects: u64,
}

/// What concerns the session, as it happens.
struct Facts {
    of_worker: Subscriber,
    of_api: Subscriber,
}

impl Session {
    /// Gets ready to serve these queues with this much room.
    ///
    /// # Errors
    /// If the consumers or subscriptions cannot be made.
    pub(crate) async fn begin(
        context: Arc<Context>,
        queues: &[Queue],
        total: Room,
        free: Free,
        tracker: TaskTracker,
    ) -> Result<Self, BeginError> {
        for queue in queues {
            setup::work_consumers(&context.js, queue).await?;
        }
        let lanes: Vec<(String, Class)> = queues
            .iter()
            .flat_map(|queue| Class::ALL.map(|class| (setup::work_consumer_name(queue, class), class)))
            .collect();
        let dispatcher = Dispatcher::new(total, lanes.iter().map(|(_, class)| *class));
        let lanes: Vec<String> = lanes.into_iter().map(|(name, _)| name).collect();
        let client = context.js.client();
        let facts = Facts {
            of_worker: client
                .subscribe(subjects::worker_facts(&context.worker))
                .await
                .map_err(puller::Error::Subscribe)?,
            of_api: client
                .subscribe(subjects::facts_by(&Actor::Api))
                .await
                .map_err(puller::Error::Subscribe)?,
        };
        let puller = Puller::new(&context.js, EVENTS, lanes.clone()).await?;
        let connects = connects(&context);
        Ok(Self {
            connects,
            context,
            dispatcher,
            lanes,
            puller,
            facts,
            free,
            freed: mpsc::unbounded_channel(),
            held: VecDeque::new(),
            tracker,
        })
    }

    /// Serves until something ends the session. Attempts go on in the tracker's tasks.
    pub(crate) async fn serve(&mut self, stop: &CancellationToken) -> Ending {
        loop {
            if let Some(ending) = self.catch_up().await {
                return ending;
            }
            self.start_held();
            let again = match self.dispatch().await {
                Ok(again) => again,
                Err(error) => return Ending::Broken(error.to_string()),
            };
            *self.free.lock() = self.dispatcher.free();
            let held_until = self.held.front().map(|offer| offer.since + HELD);
            let again = again
                .into_iter()
                .chain(held_until)
                .min()
                .unwrap_or_else(|| Instant::now() + EXPIRES);
            let again = tokio::time::sleep_until(again.into());
            tokio::select! {
                () = stop.cancelled() => return Ending::Stopped,
                Some(freed) = self.freed.1.recv() => {
                    self.dispatcher.released(freed.room, freed.took);
                    while let Ok(freed) = self.freed.1.try_recv() {
                        self.dispatcher.released(freed.room, freed.took);
                    }
                }
                pulled = self.puller.next() => if let Some(ending) = self.take_all(pulled) { return ending },
                Some(message) = self.facts.of_worker.next() => {
                    if let Some(ending) = concerns(&message.subject, &message.payload, &self.context.worker, self.context.session) {
                        return ending;
                    }
                }
                Some(message) = self.facts.of_api.next() => self.listen(&message),
                () = again => {}
            }
        }
    }

    /// Carries out what the dispatcher wants.
    async fn dispatch(&mut self) -> Result<Option<Instant>, puller::Error> {
        let (responses, again) = self.dispatcher.plan(Instant::now());
        for response in responses {
            match response {
                Response::Ask { lane, count } => self.puller.ask(lane, count, Patience::Expires(EXPIRES)).await?,
                Response::LookUp { lane } => {
                    let waiting = pending(&self.context.js, &self.lanes[lane]).await;
                    self.dispatcher.waiting(lane, waiting);
                }
            }
        }
        Ok(again)
    }

    /// Takes what was pulled, and whatever else has come already, before anything new is asked for.
    fn take_all(&mut self, pulled: Result<Pulled, puller::Error>) -> Option<Ending> {
        let mut next = pulled.map(Some);
        loop {
            match next {
                Ok(None) => return None,
                Ok(Some(pulled)) => {
                    if let Some(ending) = self.take(pulled) {
                        return Some(ending);
                    }
                }
                Err(error) => return Some(Ending::Broken(error.to_string())),
            }
            next = self.puller.try_next();
        }
    }

    fn take(&mut self, pulled: Pulled) -> Option<Ending> {
        match pulled {
            Pulled::Message(lane, message) => self.offered(lane, *message),
            Pulled::Ended(lane, undelivered) => self.dispatcher.ended(lane, undelivered),
            Pulled::Gone(lane, words) => return Some(Ending::Broken(format!("consumer {} is gone: {words}", self.lanes[lane]))),
        }
        None
    }

    /// Work was offered: becomes an attempt where it fits, and goes back where it does not.
    fn offered(&mut self, lane: usize, message: Message) {
        let work = Work::new(message, &self.tracker);
        let recorded = match work.recorded() {
            Ok(Some(recorded)) => recorded,
            Ok(None) => {
                self.dispatcher.discarded(lane);
                self.tracker.spawn(work.taken());
                return;
            }
            Err(error) => {
                // Told once, not at every delivery.
                if work.deliveries() == 1 {
                    error!(
                        "cannot read a job, and leave it to a worker that can: {}",
                        crate::stage::chain(&error)
                    );
                }
                self.dispatcher.discarded(lane);
                self.tracker.spawn(work.refuse(NOT_OURS_PAUSE));
                return;
            }
        };
        let Some(job) = Job::from_ready(&recorded) else {
            self.dispatcher.discarded(lane);
            self.tracker.spawn(work.taken());
            return;
        };
        let room = Room::of(&job.spec.resources);
        let id = job.id;
        let verdict = self.dispatcher.delivered(lane, room);
        let offer = Offer {
            work,
            job,
            ready: recorded.envelope,
            room,
            since: Instant::now(),
        };
        match verdict {
            Verdict::Run => self.start(offer),
            Verdict::Hold => self.held.push_back(offer),
            Verdict::NoRoom => drop(self.tracker.spawn(offer.work.refuse(NO_ROOM_PAUSE))),
            Verdict::TooBig => {
                if offer.work.deliveries() == 1 {
                    warn!(job.id = %id, "job {id} asks for more than this machine has; leaving it to another worker");
                }
                self.tracker.spawn(offer.work.refuse(NOT_OURS_PAUSE));
            }
        }
    }

    /// Makes an attempt of work whose room is taken.
    fn start(&self, offer: Offer) {
        let context = Arc::clone(&self.context);
        let taken = Taken {
            room: offer.room,
            since: Instant::now(),
            to: self.freed.0.clone(),
        };
        self.tracker
            .spawn(async move { Box::pin(attempt::run(context, offer.work, offer.job, offer.ready, taken)).await });
    }

    /// Starts held work that has room now, and hands back what was held for too long.
    fn start_held(&mut self) {
        while let Some(offer) = self.held.pop_front() {
            if self.dispatcher.held_fits(offer.room) {
                self.start(offer);
            } else if offer.since.elapsed() >= HELD {
                // Dropped, the work goes back by its guard.
                self.dispatcher.handed_back();
            } else {
                return self.held.push_front(offer);
            }
        }
    }

    /// After a reconnect, reads what was said of us and of our attempts while nobody could tell us.
    async fn catch_up(&mut self) -> Option<Ending> {
        let connects = connects(&self.context);
        if std::mem::replace(&mut self.connects, connects) == connects {
            return None;
        }
        let (worker, session) = (&self.context.worker, self.context.session);
        let said = read::back_to(&self.context.js, EVENTS, &subjects::worker(worker), 0)
            .await
            .unwrap_or_default();
        let ending = said
            .iter()
            .rev()
            .find_map(|stored| concerns(&stored.subject, &stored.payload, worker, session));
        for (id, attempt) in self.context.attempts.snapshot().1 {
            match read::job(&self.context.js, id).await {
                Ok(Some(job))
                    if job
                        .live_attempt()
                        .is_some_and(|live| live.number == attempt && live.session == session) =>
                {
                    if job.cancel_requested.is_some() {
                        self.context.attempts.stop(id, Stop::Cancel);
                    }
                }
                Ok(Some(job)) if job.attempts.iter().any(|known| known.number == attempt) => self.context.attempts.stop(id, Stop::Fenced),
                // Not claimed yet, or not to be read now: the claim or the commit will tell.
                Ok(_) | Err(_) => {}
            }
        }
        ending
    }

    /// A fact of some job, said by the API: a cancel may be meant for one of ours.
    fn listen(&self, message: &async_nats::Message) {
        match read::decode(&message.subject, 0, &message.payload) {
            Ok(Some(Fact::Job(recorded))) => {
                if let JobEvent::CancelRequested(_) = recorded.envelope.event {
                    self.context.attempts.stop(recorded.job, Stop::Cancel);
                }
            }
            Ok(_) => {}
            Err(error) => debug!("an event that this program cannot read: {error}"),
        }
    }
}

/// Work that was offered, and what is known of it.
struct Offer {
    work: Work,
    job: Job,
    ready: Envelope<JobEvent>,
    room: Room,
    since: Instant,
}

/// What an attempt gives back.
struct Freed {
    room: Room,
    took: Duration,
}

/// The room that an attempt takes up; dropped when its command is gone, and however its task ends.
pub(crate) struct Taken {
    room: Room,
    since: Instant,
    to: mpsc::UnboundedSender<Freed>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        // A session that is over needs no room.
        let _ = self.to.send(Freed {
            room: self.room,
            took: self.since.elapsed(),
        });
    }
}

/// Whether a fact of our worker ends our session.
fn concerns(subject: &str, payload: &[u8], worker: &WorkerId, session: SessionId) -> Option<Ending> {
    let Ok(Some(Fact::Worker(recorded))) = read::decode(subject, 0, payload) else {
        return None;
    };
    if recorded.worker != *worker {
        return None;
    }
    match recorded.envelope.event {
        WorkerEvent::Lost(lost) if lost.session == session => Some(Ending::Lost),
        WorkerEvent::Registered(other) if other.session != session => Some(Ending::Replaced(other.session)),
        WorkerEvent::Lost(_)
        | WorkerEvent::Registered(_)
        | WorkerEvent::Left(_)
        | WorkerEvent::Restarting(_)
        | WorkerEvent::Cordoned(_)
        | WorkerEvent::Uncordoned(_) => None,
    }
}

fn connects(context: &Context) -> u64 {
    context.js.client().statistics().connects.load(std::sync::atomic::Ordering::Relaxed)
}

/// How much work waits in a lane; none where the broker does not say.
async fn pending(js: &async_nats::jetstream::Context, consumer: &str) -> u64 {
    let info: Result<serde_json::Value, _> = js.request(format!("CONSUMER.INFO.{EVENTS}.{consumer}"), &()).await;
    info.ok().and_then(|info| info["num_pending"].as_u64()).unwrap_or(0)
}

/// Why a session could not begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BeginError {
    /// A consumer.
    #[error(transparent)]
    Setup(#[from] setup::Error),
    /// A subscription.
    #[error(transparent)]
    Pull(#[from] puller::Error),
}
