//! All that is read from Postgres.

use std::{collections::BTreeMap, time::Duration};

use bus::{
    ids::{Attempt, JobId, Namespace},
    job::State,
    spec::JobSpec,
};
use chrono::{DateTime, Utc};
use sqlx::{
    FromRow, PgPool, Postgres, QueryBuilder,
    postgres::{PgConnectOptions, PgPoolOptions},
    types::Json,
};
use tracing::debug;
use uuid::Uuid;

use crate::{
    error::{Kind, Problem, chain},
    view::{self, AttemptOutcome, JobView, Running, WorkerView},
};

/// Connections that are kept for reading; none while nobody reads.
const CONNECTIONS: u32 = 4;
/// How long a reader waits for one.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a statement may take, in milliseconds.
const STATEMENT_TIMEOUT_MS: &str = "10000";

/// The read models; perhaps not there.
#[derive(Debug, Clone)]
pub(crate) struct Tables(Option<PgPool>);

/// Which jobs are asked for.
#[derive(Debug)]
pub(crate) struct Filter {
    pub(crate) namespace: Namespace,
    pub(crate) states: Vec<State>,
    pub(crate) queue: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) worker: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) limit: i64,
    /// Only jobs that were submitted before this sequence.
    pub(crate) before: Option<i64>,
}

/// A page of jobs, and the cursor of the next one.
pub(crate) type Page = (Vec<JobView>, Option<String>);

#[derive(FromRow)]
struct JobRow {
    id: Uuid,
    submitted_sequence: i64,
    sequence: i64,
    namespace: String,
    state: String,
    spec: Json<JobSpec>,
    submitted_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    ended_at: Option<DateTime<Utc>>,
    cancel_requested_at: Option<DateTime<Utc>>,
    cancel_reason: Option<String>,
    attempt: i32,
    worker: Option<String>,
    exit_code: Option<i32>,
    outcome: Option<Json<AttemptOutcome>>,
    due_at: Option<DateTime<Utc>>,
}

const JOB_COLUMNS: &str = "SELECT id, submitted_sequence, sequence, namespace, state, spec, submitted_at, started_at, ended_at, \
     cancel_requested_at, cancel_reason, attempt, worker, exit_code, outcome, due_at FROM jobs WHERE namespace = ";

#[derive(FromRow)]
struct WorkerRow {
    id: String,
    session: Uuid,
    state: String,
    cpu_milli: i64,
    memory_bytes: i64,
    queues: Vec<String>,
    executors: Vec<String>,
    labels: Json<BTreeMap<String, String>>,
    versions: Json<BTreeMap<String, String>>,
    host: String,
    registered_at: DateTime<Utc>,
    last_beat: Option<DateTime<Utc>>,
    cpu_milli_free: Option<i64>,
    memory_bytes_free: Option<i64>,
    load: Option<f32>,
    attempts: Option<Json<Vec<(JobId, Attempt)>>>,
}

/// A beat of an earlier session says nothing of this one.
const WORKERS: &str = "SELECT w.id, w.session, w.state, w.cpu_milli, w.memory_bytes, w.queues, w.executors, w.labels, w.versions, \
     w.host, w.registered_at, h.last_beat, h.cpu_milli_free, h.memory_bytes_free, h.load, h.attempts \
     FROM workers w LEFT JOIN worker_heartbeats h ON h.worker = w.id AND h.session = w.session ORDER BY w.id";

impl Tables {
    /// The tables at this URL; connected to when they are first asked for.
    pub(crate) fn at(url: Option<&str>) -> Result<Self, sqlx::Error> {
        let Some(url) = url else { return Ok(Self(None)) };
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(sqlx::Error::Configuration("the URL does not begin with postgres://".into()));
        }
        let options: PgConnectOptions = url.parse()?;
        let options = options
            .application_name("rgrid api")
            .options([("statement_timeout", STATEMENT_TIMEOUT_MS)]);
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .min_connections(0)
            .acquire_timeout(PATIENCE)
            .idle_timeout(Duration::from_secs(60))
            .connect_lazy_with(options);
        Ok(Self(Some(pool)))
    }

    fn pool(&self) -> Result<&PgPool, Problem> {
        self.0.as_ref().ok_or_else(|| {
            let detail = "this API was started without Postgres, and cannot list; start it with --database-url";
            Problem::new(Kind::Unavailable, detail)
        })
    }

    /// Whether Postgres answers.
    pub(crate) async fn answer(&self) -> bool {
        let Some(pool) = &self.0 else { return false };
        let asked = sqlx::query("SELECT 1").execute(pool);
        matches!(tokio::time::timeout(Duration::from_millis(500), asked).await, Ok(Ok(_)))
    }

    /// The last event that the tables hold.
    pub(crate) async fn sequence(&self) -> Result<u64, Problem> {
        let sequence: Option<i64> = sqlx::query_scalar("SELECT sequence FROM projection_checkpoint")
            .fetch_optional(self.pool()?)
            .await
            .map_err(away)?;
        Ok(unsigned(sequence.unwrap_or(0)))
    }

    /// Every worker, by name.
    pub(crate) async fn workers(&self) -> Result<Vec<WorkerView>, Problem> {
        let rows: Vec<WorkerRow> = sqlx::query_as(WORKERS).fetch_all(self.pool()?).await.map_err(away)?;
        Ok(rows.into_iter().filter_map(WorkerRow::view).collect())
    }

    /// Jobs, newest first.
    pub(crate) async fn jobs(&self, filter: &Filter) -> Result<Page, Problem> {
        let mut query = select(filter);
        let rows: Vec<JobRow> = query.build_query_as().fetch_all(self.pool()?).await.map_err(away)?;
        let full = usize::try_from(filter.limit).is_ok_and(|limit| rows.len() > limit);
        let keep = rows.len() - usize::from(full);
        let next = rows
            .get(keep.wrapping_sub(1))
            .filter(|_| full)
            .map(|row| row.submitted_sequence.to_string());
        let jobs = rows.into_iter().take(keep).filter_map(JobRow::view).collect();
        Ok((jobs, next))
    }
}

/// The statement for a filter. It asks for one job more than is wanted, to learn whether there are more.
fn select(filter: &Filter) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new(JOB_COLUMNS);
    query.push_bind(filter.namespace.to_string());
    if !filter.states.is_empty() {
        query.push(" AND (");
        for (place, state) in filter.states.iter().enumerate() {
            query.push(if place == 0 { "" } else { " OR " });
            match state {
                State::Held | State::Queued | State::Claimed | State::Running | State::Retrying => {
                    query.push("(ended_at IS NULL AND state = ").push_bind(state.as_str())
                }
                State::Succeeded => query.push("(state = ").push_bind(state.as_str()),
                State::Failed | State::TimedOut | State::OutOfMemory | State::Cancelled | State::Dead => {
                    query.push("(failure = ").push_bind(state.as_str())
                }
            };
            query.push(")");
        }
        query.push(")");
    }
    for (column, value) in [("queue", &filter.queue), ("name", &filter.name), ("worker", &filter.worker)] {
        if let Some(value) = value {
            query.push(format_args!(" AND {column} = ")).push_bind(value.clone());
        }
    }
    if !filter.labels.is_empty() {
        query.push(" AND labels @> ").push_bind(Json(filter.labels.clone()));
    }
    if let Some(before) = filter.before {
        query.push(" AND submitted_sequence < ").push_bind(before);
    }
    query.push(" ORDER BY submitted_sequence DESC LIMIT ").push_bind(filter.limit + 1);
    query
}

fn away(error: sqlx::Error) -> Problem {
    // An operator sees it in the projector's log too; here it is one request's trouble.
    debug!("Postgres: {}", chain(&error));
    let detail = match error {
        sqlx::Error::PoolTimedOut | sqlx::Error::Io(_) | sqlx::Error::PoolClosed => {
            "Postgres does not answer, so nothing can be listed; submitting, single jobs, logs and files go on without it".to_owned()
        }
        other => format!(
            "Postgres could not answer: {}; is the projector running, which makes the tables?",
            chain(&other)
        ),
    };
    Problem::new(Kind::Unavailable, detail)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn small(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl JobRow {
    /// Nothing for a row that no projector of ours writes.
    fn view(self) -> Option<JobView> {
        let Json(spec) = self.spec;
        let attempt = u32::try_from(self.attempt).ok().filter(|attempt| *attempt > 0);
        let reason = self.cancel_reason.as_deref();
        let attempts = usize::try_from(self.attempt).unwrap_or(0);
        Some(JobView {
            id: self.id.into(),
            namespace: self.namespace.parse().ok()?,
            name: spec.display_name().to_owned(),
            state: self.state.parse().ok()?,
            runtime: spec.runtime.as_ref().map(ToString::to_string),
            command: spec.command,
            image: spec.image,
            queue: spec.queue,
            priority: spec.priority,
            labels: spec.labels,
            resources: spec.resources,
            timeout_ms: spec.timeout_ms,
            submitted_at: self.submitted_at,
            due_at: self.due_at,
            started_at: self.started_at,
            ended_at: self.ended_at,
            cancel_requested: self.cancel_requested_at.is_some(),
            attempt: attempt.map(Attempt),
            worker: self.worker.and_then(|worker| worker.parse().ok()),
            attempts: Vec::new(),
            exit_code: self.exit_code,
            message: self.outcome.and_then(|Json(outcome)| view::message_of(&outcome, reason, attempts)),
            sequence: unsigned(self.sequence),
        })
    }
}

impl WorkerRow {
    /// Nothing for a row that no projector of ours writes.
    fn view(self) -> Option<WorkerView> {
        let executor = |text: String| serde_json::from_value(serde_json::Value::String(text)).ok();
        let running = self.attempts.map_or_else(Vec::new, |Json(attempts)| attempts);
        Some(WorkerView {
            id: self.id.parse().ok()?,
            session: self.session.into(),
            state: self.state,
            cpu_milli: small(self.cpu_milli),
            memory_bytes: unsigned(self.memory_bytes),
            queues: self.queues.iter().filter_map(|queue| queue.parse().ok()).collect(),
            executors: self.executors.into_iter().filter_map(executor).collect(),
            labels: self.labels.0,
            versions: self.versions.0,
            host: self.host,
            registered_at: self.registered_at,
            last_beat: self.last_beat,
            running: running.into_iter().map(|(job, attempt)| Running { job, attempt }).collect(),
            load: self.load,
            cpu_milli_free: self.cpu_milli_free.map(small),
            memory_bytes_free: self.memory_bytes_free.map(unsigned),
        })
    }
}
