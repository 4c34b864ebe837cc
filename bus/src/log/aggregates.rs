//! The aggregates: everything that has a history in the log, as the writer uses it.

use std::fmt;

use async_nats::jetstream;

use super::{
    append::Append,
    read::{self, WorkerHistory},
    room::begins_an_attempt,
    sys,
    writer::{Aggregate, Create, Loaded},
};
use crate::{
    batch::{self, Batch, BatchEvent},
    envelope::Envelope,
    grid::{
        image::{self, Entry, ImageEvent, ImageName},
        runtimes::{RuntimesEvent, RuntimesSet},
    },
    ids::{BatchId, JobId, Namespace, WorkerId, default_token},
    job::{self, Job, JobEvent},
    worker::{self, Worker, WorkerEvent},
};

impl Loaded<Job> {
    /// A job whose history was read (see [`read::history`]).
    #[must_use]
    pub fn of_history(history: &[job::Recorded]) -> Self {
        Self {
            correlation: history.first().map(|first| first.envelope.id),
            cause: None,
            last: history.last().map_or(0, |last| last.sequence),
            state: Job::replay(history),
        }
    }
}

impl Aggregate for Job {
    type Id = JobId;
    type Event = JobEvent;
    type Command = job::Command;
    type Rejection = job::Rejection;

    /// Events that cannot be read are skipped (see [`read::history`]).
    async fn load(js: &jetstream::Context, id: &JobId) -> Result<Loaded<Self>, read::Error> {
        Ok(Loaded::of_history(&read::history(js, *id).await?))
    }

    fn decide(state: Option<&Self>, command: &job::Command) -> Result<JobEvent, job::Rejection> {
        job::decide(state, command.clone())
    }

    fn evolve(state: Option<Self>, id: &JobId, sequence: u64, envelope: Envelope<JobEvent>) -> Option<Self> {
        let namespace = state.as_ref().map_or_else(default_token, |job| job.namespace.clone());
        let publisher = (!begins_an_attempt(&envelope.event)).then(|| envelope.actor.clone());
        let recorded = job::Recorded {
            namespace,
            job: *id,
            publisher,
            sequence,
            envelope,
        };
        Self::evolve(state, &recorded)
    }

    /// A job that does not exist yet is created in the default namespace.
    fn append(loaded: &Loaded<Self>, id: &JobId, envelope: &Envelope<JobEvent>) -> Append {
        let namespace = loaded.state.as_ref().map_or_else(default_token, |job| job.namespace.clone());
        Append::job(&namespace, *id, loaded.last, envelope)
    }

    fn needs_room(event: &JobEvent) -> bool {
        begins_an_attempt(event)
    }
}

impl Create for Job {
    fn decide_new(command: job::Command) -> Result<JobEvent, job::Rejection> {
        job::decide(None, command)
    }

    fn append_first(namespace: &Namespace, id: &JobId, envelope: &Envelope<JobEvent>) -> Append {
        Append::job(namespace, *id, 0, envelope)
    }
}

impl Aggregate for Batch {
    type Id = BatchId;
    type Event = BatchEvent;
    type Command = batch::Command;
    type Rejection = batch::Rejection;

    async fn load(js: &jetstream::Context, id: &BatchId) -> Result<Loaded<Self>, read::Error> {
        let state = read::batch(js, *id).await?;
        Ok(Loaded {
            last: state.as_ref().map_or(0, |batch| batch.sequence),
            state,
            correlation: None,
            cause: None,
        })
    }

    fn decide(state: Option<&Self>, command: &batch::Command) -> Result<BatchEvent, batch::Rejection> {
        batch::decide(state, command.clone())
    }

    fn evolve(state: Option<Self>, id: &BatchId, sequence: u64, envelope: Envelope<BatchEvent>) -> Option<Self> {
        let recorded = batch::Recorded {
            namespace: state.as_ref().map_or_else(default_token, |batch| batch.namespace.clone()),
            batch: *id,
            sequence,
            envelope,
        };
        Self::evolve(state, &recorded)
    }

    /// A batch that does not exist yet is created in the default namespace.
    fn append(loaded: &Loaded<Self>, id: &BatchId, envelope: &Envelope<BatchEvent>) -> Append {
        let namespace = loaded.state.as_ref().map_or_else(default_token, |batch| batch.namespace.clone());
        Append::batch(&namespace, *id, loaded.last, envelope)
    }

    /// Only the members of a batch need room.
    fn needs_room(_: &BatchEvent) -> bool {
        false
    }
}

impl Create for Batch {
    fn decide_new(command: batch::Command) -> Result<BatchEvent, batch::Rejection> {
        batch::decide(None, command)
    }

    fn append_first(namespace: &Namespace, id: &BatchId, envelope: &Envelope<BatchEvent>) -> Append {
        Append::batch(namespace, *id, 0, envelope)
    }
}

impl Aggregate for Worker {
    type Id = WorkerId;
    type Event = WorkerEvent;
    type Command = worker::Command;
    type Rejection = worker::Rejection;

    async fn load(js: &jetstream::Context, id: &WorkerId) -> Result<Loaded<Self>, read::Error> {
        let WorkerHistory { events, last } = read::worker(js, id).await?;
        Ok(Loaded {
            // If no event of a worker can be read, it is still known that the worker exists.
            state: Self::replay(events.iter().map(|(_, event)| event)).or_else(|| (last > 0).then(Self::default)),
            last,
            correlation: None,
            cause: None,
        })
    }

    fn decide(state: Option<&Self>, command: &worker::Command) -> Result<WorkerEvent, worker::Rejection> {
        worker::decide(state, command)
    }

    fn evolve(state: Option<Self>, _: &WorkerId, _: u64, envelope: Envelope<WorkerEvent>) -> Option<Self> {
        Some(Self::evolve(state, &envelope.event))
    }

    fn append(loaded: &Loaded<Self>, id: &WorkerId, envelope: &Envelope<WorkerEvent>) -> Append {
        Append::worker(id, Some(loaded.last), envelope)
    }

    fn needs_room(_: &WorkerEvent) -> bool {
        false
    }
}

impl Aggregate for Entry {
    type Id = ImageName;
    type Event = ImageEvent;
    type Command = image::Command;
    type Rejection = image::Rejection;

    async fn load(js: &jetstream::Context, name: &ImageName) -> Result<Loaded<Self>, read::Error> {
        let (recorded, last) = sys::image_event(js, name).await?;
        Ok(Loaded {
            state: recorded.and_then(Self::of),
            last,
            correlation: None,
            cause: None,
        })
    }

    fn decide(state: Option<&Self>, command: &image::Command) -> Result<ImageEvent, image::Rejection> {
        image::decide(state, command)
    }

    fn evolve(_: Option<Self>, name: &ImageName, sequence: u64, envelope: Envelope<ImageEvent>) -> Option<Self> {
        Self::of(image::Recorded {
            name: name.clone(),
            sequence,
            envelope,
        })
    }

    fn append(loaded: &Loaded<Self>, name: &ImageName, envelope: &Envelope<ImageEvent>) -> Append {
        Append::image(name, loaded.last, envelope)
    }

    fn needs_room(event: &ImageEvent) -> bool {
        matches!(event, ImageEvent::Pushed(_))
    }
}

/// The grid itself. There is only one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid;

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the grid's runtimes")
    }
}

/// The runtimes are already set to this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the runtimes are so already")]
pub struct SetAlready;

impl Aggregate for RuntimesSet {
    type Id = Grid;
    type Event = RuntimesEvent;
    type Command = Self;
    type Rejection = SetAlready;

    async fn load(js: &jetstream::Context, _: &Grid) -> Result<Loaded<Self>, read::Error> {
        let (set, last) = sys::runtimes(js).await?;
        Ok(Loaded {
            state: Some(set),
            last,
            correlation: None,
            cause: None,
        })
    }

    fn decide(state: Option<&Self>, wanted: &Self) -> Result<RuntimesEvent, SetAlready> {
        if state == Some(wanted) {
            return Err(SetAlready);
        }
        Ok(RuntimesEvent::Set(wanted.clone()))
    }

    fn evolve(_: Option<Self>, _: &Grid, _: u64, envelope: Envelope<RuntimesEvent>) -> Option<Self> {
        let RuntimesEvent::Set(set) = envelope.event;
        Some(set)
    }

    fn append(loaded: &Loaded<Self>, _: &Grid, envelope: &Envelope<RuntimesEvent>) -> Append {
        Append::runtimes(loaded.last, envelope)
    }

    fn needs_room(_: &RuntimesEvent) -> bool {
        false
    }
}
