//! The lanes that a session takes work from: one consumer for each class in each of its queues.

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

/// How long an ask waits on the server. Shorter than the silence by which a worker is given up: the broker cannot know that a cable
/// is cut, and what it hands to a dead one's ask comes back only after `ack_wait`.
pub(crate) const EXPIRES: Duration = Duration::from_millis(2_500);
/// How long an ask for one job waits on the server where nothing runs here: no work is rescheduled because such a worker dies, and
/// at most one new job of each class is held up by its ask, for `ack_wait`. 300 idle workers that asked each 2.5 s took 40 % of a
/// core in nats-server, which goes through all asks that wait at each new one. An ask that is forgotten is noticed anyway: by a new
/// connection, or in a cluster by its missing signs of life.
const IDLE_EXPIRES: Duration = Duration::from_secs(120);
/// For how long the work of a cluster may have no leader before the consumers are made again.
const LEADERLESS_MAX: Duration = Duration::from_secs(30);
/// The pause before consumers that are gone are made again, and how long one try may take.
const PAUSE: Duration = Duration::from_millis(500);
const TRY: Duration = Duration::from_secs(3);
/// For how long that is tried: what runs is not to end for it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why there are no lanes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A consumer.
    #[error(transparent)]
    Setup(#[from] setup::Error),
    /// A subscription.
    #[error(transparent)]
    Pull(#[from] puller::Error),
}

/// Where work comes from. Lanes are spoken of by their index, each queue's the most urgent first.
pub(crate) struct Lanes {
    js: jetstream::Context,
    queues: Vec<Queue>,
    names: Vec<String>,
    puller: Result<Puller, Broken>,
}

/// Since when there are no lanes, why, and when to make them again.
struct Broken {
    since: Instant,
    why: String,
    next_try: Instant,
    /// Whether they are being made.
    trying: bool,
}

/// Lanes that were made anew; or why they could not be.
pub(crate) struct Remade(Result<Box<Puller>, String>);

impl Lanes {
    /// Makes the consumers of these queues, where they are not there yet.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) async fn open(js: &jetstream::Context, queues: &[Queue]) -> Result<Self, Error> {
        let name = |queue| Class::ALL.map(|class| setup::work_consumer_name(queue, class));
        let names: Vec<String> = queues.iter().flat_map(name).collect();
        Ok(Self {
            puller: Ok(make(js, queues, &names).await?),
            js: js.clone(),
            queues: queues.to_vec(),
            names,
        })
    }

    /// The class of each lane.
    pub(crate) fn classes(&self) -> impl Iterator<Item = Class> {
        self.queues.iter().flat_map(|_| Class::ALL)
    }

    /// Asks a lane for so many messages. `idle` says that nothing runs here.
    ///
    /// # Errors
    /// If that cannot be sent.
    pub(crate) async fn ask(&mut self, lane: usize, count: usize, idle: bool) -> Result<(), puller::Error> {
        let expires = if idle && count == 1 { IDLE_EXPIRES } else { EXPIRES };
        match &mut self.puller {
            Ok(puller) => puller.ask(lane, count, Patience::Expires(expires)).await,
            Err(_) => Ok(()),
        }
    }

    /// What comes next; never, while there are no lanes. Loses nothing when dropped half-way.
    pub(crate) async fn next(&mut self) -> Result<Pulled, puller::Error> {
        match &mut self.puller {
            Ok(puller) => puller.next().await,
            Err(_) => std::future::pending().await,
        }
    }

    /// What has come already.
    pub(crate) fn try_next(&mut self) -> Result<Option<Pulled>, puller::Error> {
        match &mut self.puller {
            Ok(puller) => puller.try_next(),
            Err(_) => Ok(None),
        }
    }

    /// How much work waits in a lane; none where the broker does not say.
    pub(crate) fn pending(&self, lane: usize) -> impl Future<Output = u64> + use<> {
        let (js, ask) = (self.js.clone(), format!("CONSUMER.INFO.{EVENTS}.{}", self.names[lane]));
        async move {
            let info: Result<serde_json::Value, _> = js.request(ask, &()).await;
            let count = |info: &serde_json::Value, of: &str| info[of].as_u64().unwrap_or(0);
            // What was refused by all who have too little room is pending no more, and comes again.
            info.map_or(0, |info| count(&info, "num_pending") + count(&info, "num_redelivered"))
        }
    }

    /// A lane is not there any more: what is asked of the others is given up too, and they are all made again.
    pub(crate) fn broke(&mut self, lane: Option<usize>, words: &str) {
        let why = match lane {
            Some(lane) => format!("consumer {} is gone: {words}", self.names[lane]),
            None => words.to_owned(),
        };
        warn!("cannot ask for work ({why}); what runs goes on");
        let now = Instant::now();
        self.puller = Err(Broken {
            since: now,
            why,
            next_try: now + PAUSE,
            trying: false,
        });
    }

    /// Whether there is somebody to ask.
    pub(crate) const fn are_there(&self) -> bool {
        self.puller.is_ok()
    }

    /// Makes lanes that broke again, now and then, and not while they are being made.
    ///
    /// # Errors
    /// In words, where that was tried for long enough; or where the session is idle, and a new one costs nothing.
    pub(crate) fn mend(&mut self, idle: bool) -> Result<Option<impl Future<Output = Remade> + Send + use<>>, String> {
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
            Remade(match tokio::time::timeout(TRY, make(&js, &queues, &names)).await {
                Ok(made) => made.map(Box::new).map_err(|error| crate::errors::chain(&error)),
                Err(_) => Err("no answer".to_owned()),
            })
        }))
    }

    /// Takes lanes that were made anew.
    pub(crate) fn remade(&mut self, remade: Remade) {
        match (remade.0, &mut self.puller) {
            (Ok(puller), broken @ Err(_)) => {
                info!("asking for work again");
                *broken = Ok(*puller);
            }
            (Err(why), Err(broken)) => {
                debug!("cannot make the consumers again yet: {why}");
                broken.trying = false;
                broken.next_try = Instant::now() + PAUSE;
            }
            (_, Ok(_)) => {}
        }
    }
}

async fn make(js: &jetstream::Context, queues: &[Queue], names: &[String]) -> Result<Puller, Error> {
    for queue in queues {
        setup::work_consumers(js, queue).await?;
    }
    let puller = Puller::new(js, EVENTS, names.to_vec()).await?;
    Ok(puller.waiting_for_leaders(LEADERLESS_MAX))
}
