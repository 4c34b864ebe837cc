//! Reads what the fold needs from the tables.

use bus::{
    ids::{Attempt, JobId, SessionId},
    job::{AttemptRecord, End, Job, Outcome, Phase, State},
    spec::ExecutorKind,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize as _, de::IntoDeserializer as _};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Checkpoint, Store};
use crate::{
    project::empty_spec,
    rows::{Cordon, LostOutcome, WorkerRow},
};

const JOBS: &str = "
    SELECT j.id, j.namespace, j.submitted_at, j.sequence, j.state, j.cancel_requested_at, j.cancel_reason, j.attempt, j.ended_at, j.due_at,
           j.outcome::text AS outcome, a.worker, a.session, a.executor, a.environment, a.claimed_at, a.started_at
    FROM jobs j LEFT JOIN attempts a ON a.job_id = j.id AND a.number = j.attempt
    WHERE j.id = ANY($1)";

const WORKERS: &str = "
    SELECT id, session, state, cpu_milli, memory_bytes, queues, executors, labels::text AS labels, versions::text AS versions,
           host, pid, registered_at, ended_at, restarting_until, cordoned_at, cordon_reason, cordon_drain, cordon_deadline, sequence,
           equipment::text AS equipment
    FROM workers";

#[derive(FromRow)]
struct JobColumns {
    id: Uuid,
    namespace: String,
    submitted_at: DateTime<Utc>,
    sequence: i64,
    state: String,
    cancel_requested_at: Option<DateTime<Utc>>,
    cancel_reason: Option<String>,
    attempt: i32,
    ended_at: Option<DateTime<Utc>>,
    due_at: Option<DateTime<Utc>>,
    outcome: Option<String>,
    worker: Option<String>,
    session: Option<Uuid>,
    executor: Option<String>,
    environment: Option<String>,
    claimed_at: Option<DateTime<Utc>>,
    started_at: Option<DateTime<Utc>>,
}

#[derive(FromRow)]
struct WorkerColumns {
    id: String,
    session: Uuid,
    state: String,
    cpu_milli: i64,
    memory_bytes: i64,
    queues: Vec<String>,
    executors: Vec<String>,
    labels: String,
    versions: String,
    host: String,
    pid: i64,
    registered_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    restarting_until: Option<DateTime<Utc>>,
    equipment: Option<String>,
    cordoned_at: Option<DateTime<Utc>>,
    cordon_reason: Option<String>,
    cordon_drain: bool,
    cordon_deadline: Option<DateTime<Utc>>,
    sequence: i64,
}

impl Store {
    /// The checkpoint of the tables.
    pub(crate) async fn checkpoint(&self) -> Result<Checkpoint, sqlx::Error> {
        let (sequence, generation): (i64, i64) = sqlx::query_as("SELECT sequence, generation FROM projection_checkpoint")
            .fetch_one(&self.pool)
            .await?;
        Ok(Checkpoint {
            sequence: sequence.unsigned_abs(),
            generation,
        })
    }

    /// Those of these jobs that exist, with what later events need: without their specifications and their earlier attempts.
    pub(crate) async fn jobs(&self, ids: &[JobId]) -> Result<Vec<Job>, sqlx::Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
        let rows: Vec<JobColumns> = sqlx::query_as(JOBS).bind(ids).fetch_all(&self.pool).await?;
        rows.into_iter().map(job).collect()
    }

    /// Every worker.
    pub(crate) async fn workers(&self) -> Result<Vec<WorkerRow>, sqlx::Error> {
        let rows: Vec<WorkerColumns> = sqlx::query_as(WORKERS).fetch_all(&self.pool).await?;
        rows.into_iter().map(worker).collect()
    }
}

/// A column holds a value that no projector wrote.
fn foreign<E: Into<Box<dyn std::error::Error + Send + Sync>>>(error: E) -> sqlx::Error {
    sqlx::Error::Decode(error.into())
}

fn job(row: JobColumns) -> Result<Job, sqlx::Error> {
    let attempt = Attempt(row.attempt.unsigned_abs());
    let phase = match (row.state.parse::<State>().map_err(foreign)?, row.outcome) {
        (State::Held, _) => Phase::Held { until: row.due_at },
        (State::Queued, _) => Phase::Queued { next: attempt.next() },
        (State::Retrying, _) => Phase::Retrying {
            next: attempt.next(),
            due: row.due_at,
        },
        (State::Claimed, _) => Phase::Claimed { attempt },
        (State::Running, _) => Phase::Running { attempt },
        (State::Dead, Some(outcome)) => {
            let LostOutcome::Lost { cause } = serde_json::from_str(&outcome).map_err(foreign)? else {
                return Err(foreign(format!("job {} is dead of something else than a loss", row.id)));
            };
            Phase::Ended(End::Dead(cause))
        }
        (State::TimedOut, Some(outcome)) => match serde_json::from_str(&outcome) {
            Ok(LostOutcome::Expired { clock, limit_ms }) => Phase::Ended(End::Expired { clock, limit_ms }),
            Ok(LostOutcome::Returned | LostOutcome::Interrupted | LostOutcome::Lost { .. }) | Err(_) => {
                Phase::Ended(End::Finished(serde_json::from_str(&outcome).map_err(foreign)?))
            }
        },
        (_, Some(outcome)) => Phase::Ended(End::Finished(serde_json::from_str::<Outcome>(&outcome).map_err(foreign)?)),
        (state, None) => return Err(foreign(format!("job {} is {state} without an outcome", row.id))),
    };
    let mut job = Job {
        id: row.id.into(),
        namespace: row.namespace.parse().map_err(foreign)?,
        spec: empty_spec(),
        submitted_at: row.submitted_at,
        cancel_requested: row.cancel_requested_at.map(|at| (at, row.cancel_reason)),
        phase,
        // Only decisions need the next four, and the projector makes none.
        ready_at: row.submitted_at,
        deadline: None,
        failures: 0,
        losses: 0,
        attempts: Vec::new(),
        ended_at: row.ended_at,
        sequence: row.sequence.unsigned_abs(),
    };
    if let (Some(worker), Some(session), Some(claimed_at)) = (row.worker, row.session, row.claimed_at) {
        job.attempts.push(AttemptRecord {
            number: attempt,
            worker: worker.parse().map_err(foreign)?,
            session: SessionId::from(session),
            claimed_at,
            started_at: row.started_at,
            executor: row.executor.map(|text| executor(&text)).transpose()?,
            environment: row.environment,
            // An ended attempt is never written again, so its end is not read.
            ended_at: None,
            end: None,
        });
    }
    Ok(job)
}

fn executor(text: &str) -> Result<ExecutorKind, sqlx::Error> {
    let deserializer: serde::de::value::StrDeserializer<'_, serde::de::value::Error> = text.into_deserializer();
    ExecutorKind::deserialize(deserializer).map_err(foreign)
}

fn worker(row: WorkerColumns) -> Result<WorkerRow, sqlx::Error> {
    let states = [WorkerRow::LIVE, WorkerRow::LOST, WorkerRow::LEFT];
    let state = states.into_iter().find(|state| *state == row.state);
    Ok(WorkerRow {
        state: state.ok_or_else(|| foreign(format!("worker {} is {}", row.id, row.state)))?,
        id: row.id.parse().map_err(foreign)?,
        session: SessionId::from(row.session),
        cpu_milli: u32::try_from(row.cpu_milli).map_err(foreign)?,
        memory_bytes: row.memory_bytes.unsigned_abs(),
        queues: row.queues,
        executors: row.executors,
        labels: row.labels,
        versions: row.versions,
        host: row.host,
        pid: u32::try_from(row.pid).map_err(foreign)?,
        registered_at: row.registered_at,
        ended_at: row.ended_at,
        restarting_until: row.restarting_until,
        equipment: row.equipment,
        cordon: row.cordoned_at.map(|at| Cordon {
            at,
            reason: row.cordon_reason,
            drain: row.cordon_drain,
            deadline: row.cordon_deadline,
        }),
        sequence: row.sequence.unsigned_abs(),
    })
}
