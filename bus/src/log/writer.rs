//! The one way to write to the log: load what the events of an aggregate add up to, decide, append behind its last event; and where
//! another writer was first, all of that again.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use async_nats::jetstream;
use chrono::{DateTime, Utc};
use rand::Rng as _;
use tracing::debug;

use super::{
    append::{self, Append, Log},
    read,
    room::{Addition, Admitted, Fill, Gauge},
};
use crate::{
    envelope::{Actor, Envelope, Event},
    ids::{EventId, WorkerId},
    worker::WorkerEvent,
};

/// How often another writer may be first. Each time, the aggregate has moved on, and few events move one.
const TRIES: u32 = 10;
/// The shortest and the longest pause between two tries: writers that meet once are not to meet again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(200));

/// What has a history of its own in the log: a job, a batch, a worker, an image, the table of runtimes.
pub trait Aggregate: Sized + Send + Sync {
    /// Which one of its kind.
    type Id: fmt::Display + Sync;
    /// What can happen to it.
    type Event: Event + Send + Sync;
    /// What can be asked of it.
    type Command: Sync;
    /// Why a command changes nothing.
    type Rejection: Send;

    /// Reads its history, and what that adds up to.
    ///
    /// # Errors
    /// If the log cannot be read.
    fn load(js: &jetstream::Context, id: &Self::Id) -> impl Future<Output = Result<Loaded<Self>, read::Error>> + Send;

    /// Decides what a command comes to. Pure.
    ///
    /// # Errors
    /// Why it changes nothing.
    fn decide(state: Option<&Self>, command: &Self::Command) -> Result<Self::Event, Self::Rejection>;

    /// Folds an event that was appended at this sequence. Pure.
    fn evolve(state: Option<Self>, id: &Self::Id, sequence: u64, envelope: Envelope<Self::Event>) -> Option<Self>;

    /// Where an event goes, behind the last one.
    fn append(loaded: &Loaded<Self>, id: &Self::Id, envelope: &Envelope<Self::Event>) -> Append;

    /// Whether an event is stored only where the log has room to spare. What ends something always is.
    fn needs_room(event: &Self::Event) -> bool;
}

/// An aggregate as the log tells it.
#[derive(Debug, Clone)]
pub struct Loaded<A> {
    /// What its events add up to; nothing where there is none of this id, or no more.
    pub state: Option<A>,
    /// The sequence of its last message, read or not, behind which the next is appended; 0: there is none.
    pub last: u64,
    /// The event that correlates all others, where they have one in common.
    pub correlation: Option<EventId>,
    /// The event that causes the next one, where the caller knows it; then each appended event causes the one after it.
    pub cause: Option<EventId>,
}

/// What a command did to an aggregate that the caller had loaded.
#[derive(Debug)]
pub enum Decision<A: Aggregate> {
    /// Its event is in the log.
    Appended {
        /// Where.
        sequence: u64,
        /// The time that the event bears.
        time: DateTime<Utc>,
    },
    /// It changes nothing.
    Rejected(A::Rejection),
}

/// What came of a command.
#[derive(Debug)]
pub enum Outcome<A: Aggregate> {
    /// It is in the log, at this sequence; the aggregate as it is now.
    Appended(Option<A>, u64),
    /// It changes nothing; the aggregate as it stands with the sequence of its last event, and why.
    Rejected(Option<A>, u64, A::Rejection),
}

/// Why it is not known what came of a command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The history cannot be read.
    #[error(transparent)]
    Read(#[from] read::Error),
    /// The event cannot be appended.
    #[error(transparent)]
    Append(#[from] append::Error),
    /// The log has no room for what is not the end of something.
    #[error("the log holds {} of its {} bytes, and what is left is for what ends jobs", fill.used, fill.max)]
    NoRoom {
        /// How full it is.
        fill: Fill,
        /// What was to be added, in bytes.
        bytes: u64,
    },
    /// Others were first, each time.
    #[error("others keep changing {id} at this moment; try again")]
    Contended {
        /// What.
        id: String,
    },
}

/// Writes to the log in somebody's name. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Writer {
    log: Log,
    gauge: Arc<Gauge>,
    actor: Actor,
    adds: Addition,
}

impl Writer {
    /// Writes in this actor's name, who adds to the log what may take this part of it.
    #[must_use]
    pub const fn new(log: Log, gauge: Arc<Gauge>, actor: Actor, adds: Addition) -> Self {
        Self { log, gauge, actor, adds }
    }

    /// Loads an aggregate, decides on a command, and appends what that comes to; again where another writer was first.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn write<A: Aggregate>(&self, id: &A::Id, command: &A::Command) -> Result<Outcome<A>, Error> {
        let mut loaded = A::load(self.log.js(), id).await?;
        Ok(match self.write_from(&mut loaded, id, command).await? {
            Decision::Appended { sequence, .. } => Outcome::Appended(loaded.state, sequence),
            Decision::Rejected(rejection) => Outcome::Rejected(loaded.state, loaded.last, rejection),
        })
    }

    /// Decides on a command by an aggregate that the caller has loaded, and appends what that comes to behind the aggregate's last event.
    /// The log is read only where another writer was first. `loaded` is the aggregate as it is then, also where this fails.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn write_from<A: Aggregate>(&self, loaded: &mut Loaded<A>, id: &A::Id, command: &A::Command) -> Result<Decision<A>, Error> {
        let mut pause = PAUSE.0;
        for _ in 0..TRIES {
            let event = match A::decide(loaded.state.as_ref(), command) {
                Ok(event) => event,
                Err(rejection) => return Ok(Decision::Rejected(rejection)),
            };
            let mut envelope = Envelope::new(self.actor.clone(), event);
            envelope.correlation_id = loaded.correlation;
            envelope.causation_id = loaded.cause;
            let append = A::append(loaded, id, &envelope);
            let _room = if A::needs_room(&envelope.event) {
                Some(self.admit(append.weight()).await?)
            } else {
                None
            };
            match self.log.append(append).await {
                Ok(sequence) => {
                    let time = envelope.time;
                    loaded.last = sequence;
                    loaded.cause = loaded.cause.map(|_| envelope.id);
                    loaded.state = A::evolve(loaded.state.take(), id, sequence, envelope);
                    return Ok(Decision::Appended { sequence, time });
                }
                Err(append::Error::Conflict { filter, expected }) => {
                    debug!("another writer moved {filter} past sequence {expected}; reading it again");
                    let jitter = rand::rng().random_range(0.5..1.0);
                    tokio::time::sleep(pause.mul_f32(jitter)).await;
                    pause = (pause * 2).min(PAUSE.1);
                    let now = A::load(self.log.js(), id).await?;
                    *loaded = Loaded {
                        correlation: loaded.correlation.or(now.correlation),
                        cause: loaded.cause,
                        ..now
                    };
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Contended { id: id.to_string() })
    }

    /// Appends an event of a worker that is true whatever else happened to that worker, and returns its sequence.
    ///
    /// # Errors
    /// If the event is not stored.
    pub async fn announce(&self, worker: &WorkerId, event: WorkerEvent) -> Result<(u64, DateTime<Utc>), append::Error> {
        let envelope = Envelope::new(self.actor.clone(), event);
        let sequence = self.log.append(Append::worker(worker, None, &envelope)).await?;
        Ok((sequence, envelope.time))
    }

    async fn admit(&self, bytes: u64) -> Result<Admitted, Error> {
        let admitted = self.gauge.admit(self.adds, bytes).await;
        admitted.map_err(|fill| Error::NoRoom { fill, bytes })
    }
}
