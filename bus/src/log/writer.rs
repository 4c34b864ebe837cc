//! The one way to write to the log: load the state of an aggregate, decide, and append after its last event. If another writer was first,
//! the writer starts again.

#![allow(clippy::disallowed_methods, reason = "this is how the writer appends")]

mod once;

use std::{fmt, future::Future, sync::Arc, time::Duration};

use async_nats::jetstream;
use chrono::{DateTime, Utc};
use rand::Rng as _;
use tracing::debug;

pub use self::once::AtomicWrite;
use super::{
    append::{self, Append, Log, Pending},
    read,
    room::{Addition, Admitted, Fill, Gauge},
};
use crate::{
    envelope::{Actor, Envelope, Event},
    ids::{EventId, Namespace, WorkerId},
    worker::WorkerEvent,
};

/// The most tries of one command. Each further try means that another writer has changed the aggregate, and few events change one.
const TRIES: u32 = 10;
/// The shortest and the longest pause between two tries, so that two writers that conflicted do not conflict again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(200));

/// Something with its own history in the log: a job, a batch, a worker, an image, the runtimes.
pub trait Aggregate: Sized + Send + Sync {
    /// The type of the aggregate's id.
    type Id: fmt::Display + Sync;
    /// The type of the aggregate's events.
    type Event: Event + Send + Sync;
    /// The type of the aggregate's commands.
    type Command: Sync;
    /// Why a command is rejected.
    type Rejection: Send;

    /// Reads the aggregate's history, and folds it into its state.
    ///
    /// # Errors
    /// If the log cannot be read.
    fn load(js: &jetstream::Context, id: &Self::Id) -> impl Future<Output = Result<Loaded<Self>, read::Error>> + Send;

    /// Decides which event a command leads to. Pure.
    ///
    /// # Errors
    /// If the command is rejected.
    fn decide(state: Option<&Self>, command: &Self::Command) -> Result<Self::Event, Self::Rejection>;

    /// Folds an event that was appended at this sequence. Pure.
    fn evolve(state: Option<Self>, id: &Self::Id, sequence: u64, envelope: Envelope<Self::Event>) -> Option<Self>;

    /// The event as an append after the aggregate's last event.
    fn append(loaded: &Loaded<Self>, id: &Self::Id, envelope: &Envelope<Self::Event>) -> Append;

    /// Whether the event is only stored if the log has room for it. An event that ends something is always stored.
    fn needs_room(event: &Self::Event) -> bool;
}

/// An aggregate that a user creates in a namespace: a job, a batch.
pub trait Create: Aggregate {
    /// Decides on the command that creates one. Pure.
    ///
    /// # Errors
    /// Why nothing is created.
    fn decide_new(command: Self::Command) -> Result<Self::Event, Self::Rejection>;

    /// Where its first event is published.
    fn append_first(namespace: &Namespace, id: &Self::Id, envelope: &Envelope<Self::Event>) -> Append;
}

/// An aggregate as it was read from the log.
#[derive(Debug, Clone)]
pub struct Loaded<A> {
    /// The aggregate's state; `None` if it does not exist, or no longer exists.
    pub state: Option<A>,
    /// The sequence of the aggregate's last message, readable or not; 0 if there is none. The next event is appended after it.
    pub last: u64,
    /// The correlation id of all events of this aggregate, if they share one.
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

/// The outcome of a command.
#[derive(Debug)]
pub enum Outcome<A: Aggregate> {
    /// The event is in the log, at this sequence. With the aggregate's new state.
    Appended(Option<A>, u64),
    /// The command was rejected. With the aggregate's state, the sequence of its last event, and the reason.
    Rejected(Option<A>, u64, A::Rejection),
}

/// Why the outcome of a command is unknown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The history cannot be read.
    #[error(transparent)]
    Read(#[from] read::Error),
    /// The event cannot be appended.
    #[error(transparent)]
    Append(#[from] append::Error),
    /// The log has too little room for an event that does not end something.
    #[error("the log holds {} of its {} bytes, and what is left is for what ends jobs", fill.used, fill.max)]
    NoRoom {
        /// How full the log is.
        fill: Fill,
        /// The size of the event, in bytes.
        bytes: u64,
    },
    /// Other writers were first, at every try.
    #[error("others keep changing {id} at this moment; try again")]
    Contended {
        /// The aggregate's id.
        id: String,
    },
}

/// Writes to the log as one actor. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Writer {
    log: Log,
    gauge: Arc<Gauge>,
    actor: Actor,
    adds: Addition,
}

impl Writer {
    /// A writer for this actor. `adds` is the kind of its additions, which decides how full the log may be for them.
    #[must_use]
    pub const fn new(log: Log, gauge: Arc<Gauge>, actor: Actor, adds: Addition) -> Self {
        Self { log, gauge, actor, adds }
    }

    /// Loads an aggregate, decides on a command, and appends the event. If another writer was first, it starts again.
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
            match self.try_once(loaded, id, command).await {
                Ok(Err(rejection)) => return Ok(Decision::Rejected(rejection)),
                Ok(Ok((envelope, sequence))) => {
                    let time = envelope.time;
                    loaded.last = sequence;
                    loaded.cause = loaded.cause.map(|_| envelope.id);
                    loaded.state = A::evolve(loaded.state.take(), id, sequence, envelope);
                    return Ok(Decision::Appended { sequence, time });
                }
                Err(conflict) if conflict.is_conflict() => {
                    debug!("{conflict}; reading it again");
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
                Err(error) => return Err(error),
            }
        }
        Err(Error::Contended { id: id.to_string() })
    }

    /// Creates an aggregate: decides on the command, and sends its first event to the log. Nothing is read first, so that many creations
    /// can be under way at once; the caller has asked for room. [`Pending::stored`] fails with [`append::Error::Conflict`] where the
    /// aggregate exists.
    ///
    /// # Errors
    /// Why nothing is created.
    pub async fn create<A: Create>(
        &self,
        namespace: &Namespace,
        id: &A::Id,
        command: A::Command,
    ) -> Result<(Envelope<A::Event>, Pending), A::Rejection> {
        let envelope = Envelope::new(self.actor.clone(), A::decide_new(command)?);
        let pending = self.log.send(A::append_first(namespace, id, &envelope)).await;
        Ok((envelope, pending))
    }

    /// Appends an event of a worker that is true whatever else happened to that worker. Returns its sequence and its time.
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
