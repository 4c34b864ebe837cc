//! The work queues of a session: one consumer for each class in each of its queues.

use std::time::{Duration, Instant};

use async_nats::jetstream;
use bus::{
    ids::Queue,
    log::{
        EVENTS,
        puller::{self, Patience, Pulled, Puller},
        setup,
    },
    spec::Class,
};
use tracing::{debug, info, warn};

/// How long a pull request waits on the server. Shorter than the silence after which a worker is given up: the server cannot know that a
/// cable is cut, and a message that it delivers to a dead worker's request is delivered again only after `ack_wait`.
pub(crate) const EXPIRES: Duration = Duration::from_millis(2_500);
/// How long a pull request for one job waits on the server while this worker is idle: if such a worker dies, no attempt is rescheduled,
/// and its request delays at most one new job of each class, for `ack_wait`. 300 idle workers that asked every 2.5 s took 40 % of a
/// core in nats-server, which walks all waiting requests at each new one. A lost request is noticed anyway: by a new connection, or in
/// a cluster by its missing idle heartbeats.
const IDLE_EXPIRES: Duration = Duration::from_secs(120);
/// For how long a cluster's consumers may have no leader before they are created again.
const LEADERLESS_MAX: Duration = Duration::from_secs(30);
/// The pause before consumers that are gone are created again, and how long one try may take.
const PAUSE: Duration = Duration::from_millis(500);
const TRY: Duration = Duration::from_secs(3);
/// For how long that is tried, so that running attempts need not end.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why the work queues cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A consumer.
    #[error(transparent)]
    Setup(#[from] setup::Error),
    /// A subscription.
    #[error(transparent)]
    Pull(#[from] puller::Error),
}

/// The work queues, each known by its index; those of one queue stand in the order of their priority, the most urgent first.
pub(crate) struct WorkQueues {
    js: jetstream::Context,
    queues: Vec<Queue>,
    names: Vec<String>,
    puller: Result<Puller, Broken>,
}

/// Since when the work queues are gone, why, and when to create them again.
struct Broken {
    since: Instant,
    why: String,
    next_try: Instant,
    /// Whether they are being created.
    trying: bool,
}

/// Work queues that were created again; or why they could not be.
pub(crate) struct Recreated(Result<Box<Puller>, String>);

impl WorkQueues {
    /// Creates the consumers of these queues where they do not exist, and subscribes.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) async fn connect(js: &jetstream::Context, queues: &[Queue]) -> Result<Self, Error> {
        let name = |queue| Class::ALL.map(|class| setup::work_consumer_name(queue, class));
        let names: Vec<String> = queues.iter().flat_map(name).collect();
        Ok(Self {
            puller: Ok(create(js, queues, &names).await?),
            js: js.clone(),
            queues: queues.to_vec(),
            names,
        })
    }

    /// The class of each work queue.
    pub(crate) fn classes(&self) -> impl Iterator<Item = Class> {
        self.queues.iter().flat_map(|_| Class::ALL)
    }

    /// Asks a work queue for so many messages. `idle`: no attempt runs here.
    ///
    /// # Errors
    /// If the request cannot be sent.
    pub(crate) async fn ask(&mut self, work_queue: usize, count: usize, idle: bool) -> Result<(), puller::Error> {
        let expires = if idle && count == 1 { IDLE_EXPIRES } else { EXPIRES };
        match &mut self.puller {
            Ok(puller) => puller.ask(work_queue, count, Patience::Expires(expires)).await,
            Err(_) => Ok(()),
        }
    }

    /// The next message or notice; pends while the work queues are gone. Loses nothing when dropped half-way.
    pub(crate) async fn next(&mut self) -> Result<Pulled, puller::Error> {
        match &mut self.puller {
            Ok(puller) => puller.next().await,
            Err(_) => std::future::pending().await,
        }
    }

    /// What has arrived already.
    pub(crate) fn try_next(&mut self) -> Result<Option<Pulled>, puller::Error> {
        match &mut self.puller {
            Ok(puller) => puller.try_next(),
            Err(_) => Ok(None),
        }
    }

    /// How many jobs wait in a work queue; 0 where the server does not answer.
    pub(crate) fn pending(&self, work_queue: usize) -> impl Future<Output = u64> + use<> {
        let (js, ask) = (self.js.clone(), format!("CONSUMER.INFO.{EVENTS}.{}", self.names[work_queue]));
        async move {
            let info: Result<serde_json::Value, _> = js.request(ask, &()).await;
            let count = |info: &serde_json::Value, of: &str| info[of].as_u64().unwrap_or(0);
            // A message that workers without room handed back is no longer pending, and is delivered again.
            info.map_or(0, |info| count(&info, "num_pending") + count(&info, "num_redelivered"))
        }
    }

    /// A work queue is gone: the requests to the others are given up too, and all are created again.
    pub(crate) fn broken(&mut self, work_queue: Option<usize>, words: &str) {
        let why = match work_queue {
            Some(work_queue) => format!("consumer {} is gone: {words}", self.names[work_queue]),
            None => words.to_owned(),
        };
        warn!("cannot ask for work ({why}); running attempts continue");
        let now = Instant::now();
        self.puller = Err(Broken {
            since: now,
            why,
            next_try: now + PAUSE,
            trying: false,
        });
    }

    /// Whether the work queues can be asked.
    pub(crate) const fn are_connected(&self) -> bool {
        self.puller.is_ok()
    }

    /// Creates broken work queues again, with pauses between the tries, unless they are being created.
    ///
    /// # Errors
    /// The reason, where that was tried for long enough, or where the session is idle, so that a new session costs nothing.
    pub(crate) fn recreate(&mut self, idle: bool) -> Result<Option<impl Future<Output = Recreated> + Send + use<>>, String> {
        let Err(broken) = &mut self.puller else { return Ok(None) };
        if idle || broken.since.elapsed() > PATIENCE {
            return Err(broken.why.clone());
        }
        if broken.trying || broken.next_try > Instant::now() {
            return Ok(None);
        }
        broken.trying = true;
        let (js, queues, names) = (self.js.clone(), self.queues.clone(), self.names.clone());
        Ok(Some(async move {
            Recreated(match tokio::time::timeout(TRY, create(&js, &queues, &names)).await {
                Ok(made) => made.map(Box::new).map_err(|error| crate::errors::chain(&error)),
                Err(_) => Err("no answer".to_owned()),
            })
        }))
    }

    /// Takes the result of [`Self::recreate`].
    pub(crate) fn recreated(&mut self, recreated: Recreated) {
        match (recreated.0, &mut self.puller) {
            (Ok(puller), broken @ Err(_)) => {
                info!("asking for work again");
                *broken = Ok(*puller);
            }
            (Err(why), Err(broken)) => {
                debug!("cannot create the consumers again yet: {why}");
                broken.trying = false;
                broken.next_try = Instant::now() + PAUSE;
            }
            (_, Ok(_)) => {}
        }
    }
}

async fn create(js: &jetstream::Context, queues: &[Queue], names: &[String]) -> Result<Puller, Error> {
    for queue in queues {
        setup::work_consumers(js, queue).await?;
    }
    let puller = Puller::new(js, EVENTS, names.to_vec()).await?;
    Ok(puller.waiting_for_leaders(LEADERLESS_MAX))
}
