//! Saying things in the log by hand, as API, runner and watcher do.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use bus::{
    envelope::{Actor, Envelope},
    ids::{Attempt, JobId, Namespace, SessionId, WorkerId, default_token},
    job::{Command, Job, JobEvent, Outcome, Usage},
    log::{
        append::{Append, Log},
        connect::Bus,
        read,
        room::{Addition, Gauge},
        setup, writer,
    },
    spec::JobSpec,
    worker::{CurrentEquipment, Equipped, Heartbeat, Left, Registered, WorkerEvent},
};
use chrono::{DateTime, SubsecRound as _, Utc};

/// A connection that speaks for anybody.
#[derive(Debug, Clone)]
pub struct Writer {
    /// The connection.
    pub bus: Bus,
    /// The log over it.
    pub log: Log,
    gauge: Arc<Gauge>,
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
        Ok(Self::over(bus))
    }

    /// Writes over a connection whose streams are there.
    #[must_use]
    pub fn over(bus: Bus) -> Self {
        let log = Log::new(bus.js.clone(), Duration::from_secs(20));
        let gauge = Gauge::new(bus.js.clone());
        Self { bus, log, gauge }
    }

    /// Submits a job that does nothing.
    pub async fn submit(&self) -> Result<JobId> {
        let id = JobId::new();
        let command = Command::Submit { spec: Box::new(spec()) };
        self.say(id, &Actor::Api, command).await?;
        Ok(id)
    }

    /// Loads a job, decides, appends, again where another writer was first; what is decided against is an error. Returns the event's
    /// sequence.
    pub async fn say(&self, id: JobId, actor: &Actor, command: Command) -> Result<u64> {
        let writer = writer::Writer::new(self.log.clone(), Arc::clone(&self.gauge), actor.clone(), Addition::Jobs);
        match writer.write::<Job>(&id, &command).await? {
            writer::Outcome::Appended(_, sequence) => Ok(sequence),
            writer::Outcome::Rejected(_, _, rejection) => Err(rejection.into()),
        }
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
    /// When that was registered.
    pub registered_at: DateTime<Utc>,
}

impl Worker {
    /// Begins a session.
    pub async fn register(writer: &Writer, name: &str) -> Result<Self> {
        let worker = Self::unregistered(writer, name)?;
        worker.registers().await?;
        Ok(worker)
    }

    /// One of which the log knows nothing yet.
    pub fn unregistered(writer: &Writer, name: &str) -> Result<Self> {
        Ok(Self {
            writer: writer.clone(),
            id: name.parse()?,
            session: SessionId::new(),
            registered_at: Utc::now().trunc_subsecs(6),
        })
    }

    /// Registers the session; returns the event's sequence.
    pub async fn registers(&self) -> Result<u64> {
        let registered = WorkerEvent::Registered(Registered {
            session: self.session,
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
        let envelope = Envelope {
            time: self.registered_at,
            ..Envelope::new(self.actor(), registered)
        };
        Ok(self.writer.log.append(Append::worker(&self.id, None, &envelope)).await?)
    }

    /// Registers the session again, as its runner does after a restart.
    pub async fn registers_again(&mut self) -> Result<u64> {
        self.registered_at = Utc::now().trunc_subsecs(6);
        self.registers().await
    }

    /// Says that it has this image.
    pub async fn equips(&self, image: &str) -> Result<()> {
        let current = CurrentEquipment {
            registered_at: self.registered_at,
            equipped: self.equipped(image),
        };
        let subject = bus::subjects::equipment(&self.id);
        let stored = self.writer.bus.js.publish(subject, serde_json::to_vec(&current)?.into()).await?;
        stored.await.context("what a worker has was not stored")?;
        Ok(())
    }

    /// Says so in the log, as runners of earlier versions did.
    pub async fn equips_in_the_log(&self, image: &str) -> Result<u64> {
        self.say(WorkerEvent::Equipped(self.equipped(image))).await
    }

    fn equipped(&self, image: &str) -> Equipped {
        Equipped {
            session: self.session,
            runtimes: BTreeMap::new(),
            images: [(image.to_owned(), "sha256:0".to_owned())].into(),
            platform: Some("linux/amd64".to_owned()),
        }
    }

    /// The same one, over another connection.
    #[must_use]
    pub fn over(&self, bus: Bus) -> Self {
        Self {
            writer: Writer::over(bus),
            id: self.id.clone(),
            session: self.session,
            registered_at: self.registered_at,
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
        let ready = self.writer.job(job).await?.and_then(|job| job.ready_attempt());
        let claim = self.claim_command(ready.unwrap_or(Attempt::FIRST));
        self.writer.say(job, &self.actor(), claim).await
    }

    /// The command by which it claims an attempt.
    #[must_use]
    pub fn claim_command(&self, attempt: Attempt) -> Command {
        Command::Claim {
            attempt,
            worker: self.id.clone(),
            session: self.session,
        }
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
        let beat = Heartbeat {
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
