//! A log, a database, and what the one must say of the other.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use bus::{
    batch::Batch,
    ids::{BatchId, JobId},
    job::{AttemptEnd, AttemptRecord, End, Job, Phase, Recorded},
    log::{
        EVENTS,
        follow::Follower,
        read::{self, Fact},
    },
};
use chrono::{DateTime, SubsecRound as _, Utc};
use grid_tests::{nats::NatsServer, postgres::Postgres, writer::Writer};
use serde_json::{Value, json};
use sqlx::{FromRow, PgPool};
use tempfile::TempDir;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use super::batches::{self, BatchRow};

/// How long anything may take on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct World {
    pub(super) writer: Writer,
    pub(super) pool: PgPool,
    pub(super) config: projector::Config,
    pub(super) tasks: TaskTracker,
    _files: TempDir,
    _nats: NatsServer,
}

/// A projector that runs beside the test.
pub(super) struct Running {
    stop: CancellationToken,
    task: JoinHandle<Result<(), projector::Error>>,
}

impl Running {
    /// Stops it in good order.
    pub(super) async fn stop(self) -> Result<()> {
        self.stop.cancel();
        Ok(timeout(PATIENCE, self.task).await???)
    }

    /// Ends it wherever it is; its connections break.
    pub(super) async fn kill(self) -> Result<()> {
        self.task.abort();
        match self.task.await {
            Err(error) if error.is_cancelled() => Ok(()),
            other => other?.context("it had stopped by itself"),
        }
    }
}

impl World {
    pub(super) async fn start() -> Result<Self> {
        Self::with(&Postgres::start().await?).await
    }

    pub(super) async fn with(postgres: &Postgres) -> Result<Self> {
        let nats = NatsServer::start().await?;
        let files = TempDir::with_prefix("rgrid-files-")?;
        let config = projector::Config {
            nats: nats.url().to_owned(),
            replicas: 1,
            database_url: postgres.url().to_owned(),
            store: format!("file://{}", files.path().display()),
        };
        Ok(Self {
            writer: Writer::connect(nats.url()).await?,
            pool: postgres.pool().await?,
            config,
            tasks: TaskTracker::new(),
            _files: files,
            _nats: nats,
        })
    }

    pub(super) fn projector(&self) -> Running {
        let stop = CancellationToken::new();
        let task = self.tasks.spawn(projector::run(self.config.clone(), stop.clone()));
        Running { stop, task }
    }

    /// The last sequence in the log.
    pub(super) async fn last(&self) -> Result<u64> {
        Ok(self.writer.bus.js.get_stream(EVENTS).await?.cached_info().state.last_sequence)
    }

    /// How far the tables are; 0 while there are none.
    pub(super) async fn checkpoint(&self) -> u64 {
        let sequence: Result<i64, _> = sqlx::query_scalar("SELECT sequence FROM projection_checkpoint")
            .fetch_one(&self.pool)
            .await;
        sequence.unwrap_or(0).unsigned_abs()
    }

    /// Waits until the tables hold the whole log.
    pub(super) async fn projected(&self) -> Result<()> {
        let last = self.last().await?;
        eventually("the projection of the log", async || self.checkpoint().await >= last).await
    }

    /// Everything in the log that can be read, oldest first.
    async fn events(&self) -> Result<Vec<Fact>> {
        let last = self.last().await?;
        let mut follower = Follower::new(&self.writer.bus.js, EVENTS, Vec::new(), 0);
        let mut events = Vec::new();
        loop {
            let message = timeout(PATIENCE, follower.next()).await?;
            if let Ok(Some(fact)) = read::decode(&message.subject, message.sequence, &message.payload) {
                events.push(fact);
            }
            if message.sequence >= last {
                return Ok(events);
            }
        }
    }

    /// That the tables hold exactly what `Job::replay` makes of the log, and nothing else. Returns how many jobs that are.
    pub(super) async fn check(&self) -> Result<usize> {
        let mut histories = BTreeMap::<JobId, Vec<Recorded>>::new();
        let mut batches = BTreeMap::<BatchId, Option<Batch>>::new();
        for fact in self.events().await? {
            match fact {
                Fact::Job(recorded) => histories.entry(recorded.job).or_default().push(*recorded),
                Fact::Batch(recorded) => {
                    let batch = batches.entry(recorded.batch).or_default();
                    *batch = Batch::evolve(batch.take(), &recorded);
                }
                _ => {}
            }
        }
        let jobs: Vec<Job> = histories.values().filter_map(Job::replay).collect();
        let mut wanted: Vec<JobColumns> = jobs.iter().map(JobColumns::of).collect();
        let mut found: Vec<JobColumns> = sqlx::query_as("SELECT * FROM jobs").fetch_all(&self.pool).await?;
        wanted.sort_by_key(|row| row.id);
        found.sort_by_key(|row| row.id);
        same("jobs", &wanted, &found)?;
        let attempts = jobs
            .iter()
            .flat_map(|job| job.attempts.iter().map(|attempt| AttemptColumns::of(job, attempt)));
        let mut wanted: Vec<AttemptColumns> = attempts.collect();
        let mut found: Vec<AttemptColumns> = sqlx::query_as("SELECT * FROM attempts").fetch_all(&self.pool).await?;
        wanted.sort_by_key(|row| (row.job_id, row.number));
        found.sort_by_key(|row| (row.job_id, row.number));
        same("attempts", &wanted, &found)?;
        let mut wanted: Vec<String> = batches.values().flatten().map(batches::wanted).collect::<Result<_>>()?;
        let found: Vec<BatchRow> = sqlx::query_as("SELECT * FROM batches").fetch_all(&self.pool).await?;
        let mut found: Vec<String> = found.iter().map(BatchRow::says).collect();
        wanted.sort_unstable();
        found.sort_unstable();
        same("batches", &wanted, &found)?;
        Ok(jobs.len())
    }
}

fn same<R: PartialEq + std::fmt::Debug>(table: &str, wanted: &[R], found: &[R]) -> Result<()> {
    for (wanted, found) in wanted.iter().zip(found) {
        ensure!(
            wanted == found,
            "{table} differ:\n  the log says {wanted:?}\n  the table says {found:?}"
        );
    }
    ensure!(
        wanted.len() == found.len(),
        "{} {table} in the log, {} in the table",
        wanted.len(),
        found.len()
    );
    Ok(())
}

/// Waits for a fact.
pub(super) async fn eventually(what: &str, fact: impl AsyncFn() -> bool) -> Result<()> {
    timeout(PATIENCE, async {
        while !fact().await {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .with_context(|| format!("waited {PATIENCE:?} for {what}"))
}

/// What of a row follows from the job.
#[derive(Debug, PartialEq, FromRow)]
struct JobColumns {
    id: Uuid,
    sequence: i64,
    namespace: String,
    queue: String,
    name: String,
    state: String,
    failure: Option<String>,
    labels: Option<Value>,
    spec: Value,
    submitted_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    ended_at: Option<DateTime<Utc>>,
    due_at: Option<DateTime<Utc>>,
    cancel_requested_at: Option<DateTime<Utc>>,
    cancel_reason: Option<String>,
    attempt: i32,
    worker: Option<String>,
    exit_code: Option<i32>,
    outcome: Option<Value>,
    batch_id: Option<Uuid>,
    batch_index: Option<i32>,
}

#[derive(Debug, PartialEq, FromRow)]
struct AttemptColumns {
    job_id: Uuid,
    number: i32,
    worker: String,
    session: Uuid,
    executor: Option<String>,
    environment: Option<String>,
    claimed_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    ended_at: Option<DateTime<Utc>>,
    outcome: Option<Value>,
    wall_ms: Option<i64>,
    manifest_sha256: Option<Vec<u8>>,
    files: Option<i64>,
    stdout_bytes: Option<i64>,
}

impl JobColumns {
    fn of(job: &Job) -> Self {
        let last = job.attempts.last();
        let (exit_code, outcome) = match &job.phase {
            Phase::Ended(End::Finished(outcome)) => (Some(outcome.exit_code()), Some(json!(outcome))),
            Phase::Ended(End::Cancelled) => (Some(130), Some(json!({ "kind": "cancelled" }))),
            Phase::Ended(End::Dead(cause)) => (None, Some(json!({ "kind": "lost", "cause": cause }))),
            Phase::Ended(End::Expired { clock, limit_ms }) => {
                (Some(124), Some(json!({ "kind": "expired", "clock": clock, "limit_ms": limit_ms })))
            }
            Phase::Held { .. } | Phase::Queued { .. } | Phase::Claimed { .. } | Phase::Running { .. } | Phase::Retrying { .. } => {
                (None, None)
            }
        };
        let due_at = job.ready_not_before();
        let state = job.state().to_string();
        Self {
            id: job.id.uuid(),
            sequence: job.sequence.cast_signed(),
            namespace: job.namespace.to_string(),
            queue: job.spec.queue.to_string(),
            name: job.spec.display_name().to_owned(),
            failure: (job.state().is_end() && state != "succeeded").then(|| state.clone()),
            state,
            labels: (!job.spec.labels.is_empty()).then(|| json!(job.spec.labels)),
            spec: json!(job.spec),
            submitted_at: job.submitted_at.trunc_subsecs(6),
            started_at: last.and_then(|last| last.started_at),
            ended_at: job.ended_at,
            due_at: due_at.map(|at| at.trunc_subsecs(6)),
            cancel_requested_at: job.cancel_requested.as_ref().map(|(at, _)| *at),
            cancel_reason: job.cancel_requested.as_ref().and_then(|(_, reason)| reason.clone()),
            attempt: last.map_or(0, |last| last.number.0.cast_signed()),
            worker: last.map(|last| last.worker.to_string()),
            exit_code,
            outcome,
            batch_id: job.spec.batch.as_ref().map(|member| member.batch.uuid()),
            batch_index: job.spec.batch.as_ref().map(|member| member.index.cast_signed()),
        }
    }
}

impl AttemptColumns {
    fn of(job: &Job, attempt: &AttemptRecord) -> Self {
        let (outcome, finished) = match &attempt.end {
            None => (None, None),
            Some(AttemptEnd::Finished(finished)) => (Some(json!(finished.outcome)), Some(finished)),
            Some(AttemptEnd::Returned) => (Some(json!({ "kind": "returned" })), None),
            Some(AttemptEnd::Interrupted) => (Some(json!({ "kind": "interrupted" })), None),
            Some(AttemptEnd::Lost(cause)) => (Some(json!({ "kind": "lost", "cause": cause })), None),
            Some(AttemptEnd::Cancelled) => (Some(json!({ "kind": "cancelled" })), None),
        };
        let manifest = finished.and_then(|finished| finished.manifest.as_ref());
        Self {
            job_id: job.id.uuid(),
            number: attempt.number.0.cast_signed(),
            worker: attempt.worker.to_string(),
            session: attempt.session.uuid(),
            executor: attempt.executor.map(|executor| executor.to_string()),
            environment: attempt.environment.clone(),
            claimed_at: attempt.claimed_at,
            started_at: attempt.started_at,
            ended_at: attempt.ended_at,
            outcome,
            wall_ms: finished.map(|finished| finished.usage.wall_ms.cast_signed()),
            manifest_sha256: manifest.map(|manifest| manifest.sha256.as_bytes().to_vec()),
            files: manifest.map(|manifest| manifest.files.cast_signed()),
            stdout_bytes: manifest.map(|manifest| manifest.stdout_bytes.cast_signed()),
        }
    }
}
