//! Queries on jobs.

use std::collections::BTreeMap;

use bus::{
    ids::{Attempt, Digest, JobId, Namespace},
    job::State,
    spec::JobSpec,
};
use chrono::{DateTime, Utc};
use model::{AttemptOutcome, JobView};
use sqlx::{FromRow, Postgres, QueryBuilder, types::Json};
use uuid::Uuid;

use super::{Tables, unavailable, unsigned};
use crate::error::ApiError;

/// Which jobs to list.
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

/// Which jobs to revive.
#[derive(Debug)]
pub(crate) struct Revivable {
    pub(crate) namespace: Namespace,
    pub(crate) queue: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    /// Jobs whose attempts are used up.
    pub(crate) dead: bool,
    /// Jobs that exceeded their queue timeout.
    pub(crate) expired: bool,
    pub(crate) limit: i64,
    /// Only jobs that were submitted before this sequence.
    pub(crate) before: Option<i64>,
}

#[derive(FromRow)]
pub(super) struct JobRow {
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

pub(super) const JOB_COLUMNS: &str = "SELECT id, submitted_sequence, sequence, namespace, state, spec, submitted_at, started_at, ended_at, \
     cancel_requested_at, cancel_reason, attempt, worker, exit_code, outcome, due_at FROM jobs WHERE namespace = ";

impl Tables {
    /// Jobs, newest first.
    pub(crate) async fn jobs(&self, filter: &Filter) -> Result<Page, ApiError> {
        let mut query = select(filter);
        let rows: Vec<JobRow> = query.build_query_as().fetch_all(self.pool()?).await.map_err(unavailable)?;
        let full = usize::try_from(filter.limit).is_ok_and(|limit| rows.len() > limit);
        let keep = rows.len() - usize::from(full);
        let next = rows
            .get(keep.wrapping_sub(1))
            .filter(|_| full)
            .map(|row| row.submitted_sequence.to_string());
        let jobs = rows.into_iter().take(keep).filter_map(JobRow::view).collect();
        Ok((jobs, next))
    }

    /// A page of jobs that have not ended, newest first, and the cursor of the next page.
    pub(crate) async fn not_ended(&self, filter: &Filter) -> Result<(Vec<JobId>, Option<i64>), ApiError> {
        let mut query = QueryBuilder::new("SELECT id, submitted_sequence FROM jobs WHERE ended_at IS NULL AND namespace = ");
        push_not_ended_filter(&mut query, filter);
        query.push(" ORDER BY submitted_sequence DESC LIMIT ").push_bind(filter.limit);
        let rows: Vec<(Uuid, i64)> = query.build_query_as().fetch_all(self.pool()?).await.map_err(unavailable)?;
        let full = usize::try_from(filter.limit).is_ok_and(|limit| rows.len() >= limit);
        let next = rows.last().filter(|_| full).map(|(_, sequence)| *sequence);
        Ok((rows.into_iter().map(|(id, _)| id.into()).collect(), next))
    }

    /// How many jobs have not ended.
    pub(crate) async fn count_not_ended(&self, filter: &Filter) -> Result<u64, ApiError> {
        let mut query = QueryBuilder::new("SELECT count(*) FROM jobs WHERE ended_at IS NULL AND namespace = ");
        push_not_ended_filter(&mut query, filter);
        let count: i64 = query.build_query_scalar().fetch_one(self.pool()?).await.map_err(unavailable)?;
        Ok(unsigned(count))
    }

    /// A page of jobs that can be revived, newest first, and the cursor of the next page.
    pub(crate) async fn revivable(&self, which: &Revivable) -> Result<(Vec<JobId>, Option<i64>), ApiError> {
        let mut query = QueryBuilder::new("SELECT id, submitted_sequence FROM jobs WHERE namespace = ");
        push_revivable_filter(&mut query, which);
        query.push(" ORDER BY submitted_sequence DESC LIMIT ").push_bind(which.limit);
        let rows: Vec<(Uuid, i64)> = query.build_query_as().fetch_all(self.pool()?).await.map_err(unavailable)?;
        let full = usize::try_from(which.limit).is_ok_and(|limit| rows.len() >= limit);
        let next = rows.last().filter(|_| full).map(|(_, sequence)| *sequence);
        Ok((rows.into_iter().map(|(id, _)| id.into()).collect(), next))
    }

    /// The newest succeeded jobs with this reuse key.
    pub(crate) async fn succeeded_with_key(&self, key: &Digest, limit: i64) -> Result<Vec<JobId>, ApiError> {
        let rows: Vec<Uuid> = sqlx::query_scalar(
            "SELECT id FROM jobs WHERE reuse_key = $1 AND ended_at IS NOT NULL AND failure IS NULL ORDER BY submitted_sequence DESC LIMIT $2",
        )
        .bind(key.as_bytes().to_vec())
        .bind(limit)
        .fetch_all(self.pool()?)
        .await
        .map_err(unavailable)?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    /// How many jobs can be revived.
    pub(crate) async fn count_revivable(&self, which: &Revivable) -> Result<u64, ApiError> {
        let mut query = QueryBuilder::new("SELECT count(*) FROM jobs WHERE namespace = ");
        push_revivable_filter(&mut query, which);
        let count: i64 = query.build_query_scalar().fetch_one(self.pool()?).await.map_err(unavailable)?;
        Ok(unsigned(count))
    }
}

/// Adds the conditions of a filter to a statement that ends with the namespace.
fn push_revivable_filter(query: &mut QueryBuilder<Postgres>, which: &Revivable) {
    query.push_bind(which.namespace.to_string());
    // Not a job that exceeded its timeout while it ran.
    let expired = "failure = 'timed_out' AND outcome->>'kind' = 'expired'";
    query.push(match (which.dead, which.expired) {
        (true, true) => format!(" AND (failure = 'dead' OR {expired})"),
        (true, false) => " AND failure = 'dead'".to_owned(),
        (false, _) => format!(" AND {expired}"),
    });
    for (column, value) in [("queue", &which.queue), ("name", &which.name)] {
        if let Some(value) = value {
            query.push(format_args!(" AND {column} = ")).push_bind(value.clone());
        }
    }
    if !which.labels.is_empty() {
        query.push(" AND labels @> ").push_bind(Json(which.labels.clone()));
    }
    if let Some(before) = which.before {
        query.push(" AND submitted_sequence < ").push_bind(before);
    }
}

/// The statement for a filter. It selects one job more than the limit, to find out whether there are more.
fn select(filter: &Filter) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new("");
    let limit = filter.limit + 1;
    // One page of the worker's jobs that have not ended and one of those that have, each from an index: an OR would read all jobs.
    let parts: &[&str] = match filter.worker {
        None => &[""],
        Some(_) => &["ended_at IS NULL AND worker", "ended_on"],
    };
    query.push(if parts.len() > 1 { "(" } else { "" });
    for (place, of_worker) in parts.iter().enumerate() {
        query.push(if place == 0 { "" } else { ") UNION ALL (" });
        query.push(JOB_COLUMNS);
        push_filter(&mut query, filter);
        if let Some(worker) = &filter.worker {
            query.push(format_args!(" AND {of_worker} = ")).push_bind(worker.clone());
        }
        query.push(" ORDER BY submitted_sequence DESC LIMIT ").push_bind(limit);
    }
    if parts.len() > 1 {
        query.push(") ORDER BY submitted_sequence DESC LIMIT ").push_bind(limit);
    }
    query
}

/// Adds the conditions of a filter to a statement on jobs that have not ended.
fn push_not_ended_filter(query: &mut QueryBuilder<Postgres>, filter: &Filter) {
    push_filter(query, filter);
    if let Some(worker) = &filter.worker {
        query.push(" AND worker = ").push_bind(worker.clone());
    }
}

/// Adds the conditions of a filter, except the worker.
fn push_filter(query: &mut QueryBuilder<Postgres>, filter: &Filter) {
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
    for (column, value) in [("queue", &filter.queue), ("name", &filter.name)] {
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
}

impl JobRow {
    /// `None` for a row that the projector did not write.
    pub(super) fn view(self) -> Option<JobView> {
        let Json(spec) = self.spec;
        let attempt = u32::try_from(self.attempt).ok().filter(|attempt| *attempt > 0);
        let reason = self.cancel_reason.as_deref();
        let state = self.state.parse().ok()?;
        let waits_for = match (state, &spec.start) {
            (State::Held, Some(start)) => start.after.clone(),
            (_, _) => Vec::new(),
        };
        Some(JobView {
            id: self.id.into(),
            namespace: self.namespace.parse().ok()?,
            name: spec.display_name().to_owned(),
            state,
            runtime: spec.runtime.as_ref().map(ToString::to_string),
            command: spec.command,
            image: spec.image,
            queue: spec.queue,
            priority: spec.priority,
            labels: spec.labels,
            origin: spec.origin,
            resources: spec.resources,
            timeout_ms: spec.timeout_ms,
            queue_timeout_ms: spec.queue_timeout_ms,
            total_timeout_ms: spec.total_timeout_ms,
            retry: spec.retry,
            failures: 0,
            waits_for,
            submitted_at: self.submitted_at,
            due_at: self.due_at,
            started_at: self.started_at,
            ended_at: self.ended_at,
            cancel_requested: self.cancel_requested_at.is_some(),
            attempt: attempt.map(Attempt),
            worker: self.worker.and_then(|worker| worker.parse().ok()),
            attempts: Vec::new(),
            exit_code: self.exit_code,
            message: self.outcome.and_then(|Json(outcome)| model::message_of(&outcome, reason)),
            batch: spec.batch,
            sequence: unsigned(self.sequence),
        })
    }
}
