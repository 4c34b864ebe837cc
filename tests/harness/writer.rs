//! Saying things in the log by hand, as API, runner and watcher do.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use bus::{
    envelope::{Actor, Envelope},
    ids::{Attempt, JobId, Namespace, SessionId, WorkerId, default_token},
    job::{Command, Job, JobEvent, Outcome, Usage, decide},
    spec::JobSpec,
    stream::{
        append::{Append, Log},
        connect::Bus,
        read, setup,
    },
    worker::{Beat, Left, Registered, WorkerEvent},
};
use chrono::Utc;

/// A connection that speaks for anybody.
#[derive(Debug, Clone)]
pub struct Writer {
    /// The connection.
    pub bus: Bus,
    /// The log over it.
    pub log: Log,
}

/// A job that does nothing.
#[must_use]
pub fn spec() -> JobSpec {
    JobSpec::new(vec!["true".to_owned()])
}

/// The namespace of every job that a writer submits.
#[must_use]
pub fn namespace() -> Namespace {
    default_token()
}

impl Writer {
    /// Connects, and makes the streams.
    pub async fn connect(url: &str) -> Result<Self> {
        let bus = Bus::connect(url, "test").await?;
        setup::streams(&bus.js, 1).await?;
        let log = Log::new(bus.js.clone(), Duration::from_secs(20));
        Ok(Self { bus, log })
    }

    /// Submits a job that does nothing.
    pub async fn submit(&self) -> Result<JobId> {
        let id = JobId::new();
        let command = Command::Submit { spec: Box::new(spec()) };
        self.say(id, &Actor::Api, command).await?;
        Ok(id)
    }

    /// Loads a job, decides, appends; what is decided against, or overtaken, is an error. Returns the event's sequence.
    pub async fn say(&self, id: JobId, actor: &Actor, command: Command) -> Result<u64> {
        let job = self.job(id).await?;
        let event = decide(job.as_ref(), command)?;
        let after = job.map_or(0, |job| job.sequence);
        self.append(id, after, actor, event).await
    }

    /// Appends an event without deciding on it.
    pub async fn append(&self, id: JobId, after: u64, actor: &Actor, event: JobEvent) -> Result<u64> {
        let envelope = Envelope::new(actor.clone(), event);
        Ok(self.log.append(Append::job(&namespace(), id, after, &envelope)).await?)
    }

    /// A job as its events tell it now.
    pub async fn job(&self, id: JobId) -> Result<Option<Job>> {
        Ok(read::job(&self.bus.js, id).await?)
    }

    /// The types of a job's events, oldest first.
    pub async fn types(&self, id: JobId) -> Result<Vec<&'static str>> {
        use bus::envelope::Event as _;
        let history = read::history(&self.bus.js, id).await?;
        Ok(history.iter().map(|recorded| recorded.envelope.event.kind()).collect())
    }
}

/// A worker that does nothing but speak.
#[derive(Debug, Clone)]
pub struct Worker {
    writer: Writer,
    /// Its name.
    pub id: WorkerId,
    /// Its session.
    pub session: SessionId,
}

impl Worker {
    /// Begins a session.
    pub async fn register(writer: &Writer, name: &str) -> Result<Self> {
        let (id, session) = (name.parse::<WorkerId>()?, SessionId::new());
        let registered = WorkerEvent::Registered(Registered {
            session,
            cpu_milli: 1_000,
            memory_bytes: 1 << 30,
            queues: vec![default_token()],
            executors: Vec::new(),
            labels: BTreeMap::new(),
            versions: BTreeMap::new(),
            host: "test".to_owned(),
            pid: 1,
            self_fence_ms: None,
        });
        let writer = writer.clone();
        let worker = Self { writer, id, session };
        worker.say(registered).await?;
        Ok(worker)
    }

    /// The same one, over another connection.
    #[must_use]
    pub fn over(&self, bus: Bus) -> Self {
        let log = Log::new(bus.js.clone(), Duration::from_secs(20));
        Self {
            writer: Writer { bus, log },
            id: self.id.clone(),
            session: self.session,
        }
    }

    /// Ends the session in good order.
    pub async fn leave(&self) -> Result<u64> {
        self.say(WorkerEvent::Left(Left { session: self.session })).await
    }

    async fn say(&self, event: WorkerEvent) -> Result<u64> {
        let envelope = Envelope::new(self.actor(), event);
        Ok(self.writer.log.append(Append::worker(&self.id, None, &envelope)).await?)
    }

    /// Who speaks, when it speaks.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor::Worker(self.id.clone())
    }

    /// Claims a job; returns the claim's sequence.
    pub async fn claim(&self, job: JobId) -> Result<u64> {
        let (worker, session) = (self.id.clone(), self.session);
        self.writer.say(job, &self.actor(), Command::Claim { worker, session }).await
    }

    /// Ends its attempt well.
    pub async fn finish(&self, job: JobId, attempt: Attempt) -> Result<u64> {
        self.writer.say(job, &self.actor(), self.finish_command(attempt)).await
    }

    /// The command by which its attempt ends well.
    #[must_use]
    pub fn finish_command(&self, attempt: Attempt) -> Command {
        Command::Finish {
            attempt,
            session: self.session,
            outcome: Outcome::Succeeded,
            manifest: None,
            usage: Usage::default(),
        }
    }

    /// Beats once, as a runner does.
    pub async fn beat(&self, last_claim: u64, attempts: &[(JobId, Attempt)]) -> Result<()> {
        let beat = Beat {
            session: self.session,
            time: Utc::now(),
            last_claim,
            cpu_milli_free: 1_000,
            memory_bytes_free: 1 << 30,
            load: 0.5,
            attempts: attempts.to_vec(),
            next_ms: None,
            leftovers: Vec::new(),
        };
        let message = async_nats::jetstream::message::PublishMessage::build()
            .payload(serde_json::to_vec(&beat)?.into())
            .ttl(Duration::from_secs(5));
        let subject = bus::subjects::beat(&self.id);
        let stored = self.writer.bus.js.send_publish(subject, message).await?;
        stored.await.context("a heartbeat was not stored")?;
        Ok(())
    }
}
