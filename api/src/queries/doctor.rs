//! Queries of `rgrid doctor`: jobs that wait or went wrong.

use bus::{ids::JobId, job::LossCause};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Tables, unavailable, unsigned};
use crate::error::ApiError;

/// Jobs that have not ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Jobs that workers have claimed.
    pub(crate) running: u64,
    /// Jobs that wait, for any reason.
    pub(crate) waiting: u64,
}

/// Messages of the log that the projector skipped.
#[derive(Debug)]
pub(crate) struct Skipped {
    pub(crate) count: u64,
    /// The last one: its sequence, its subject, and what is wrong with it.
    pub(crate) last: Option<(i64, String, String)>,
}

/// Jobs whose attempts are used up.
#[derive(Debug)]
pub(crate) struct Dead {
    pub(crate) count: u64,
    /// When the last one died.
    pub(crate) last: Option<DateTime<Utc>>,
    /// Their most frequent causes.
    pub(crate) causes: Vec<(LossCause, i64)>,
}

impl Tables {
    /// How many jobs have not ended.
    pub(crate) async fn live_jobs(&self) -> Result<Counts, ApiError> {
        const SQL: &str = "SELECT count(*) FILTER (WHERE state IN ('claimed', 'running')), \
             count(*) FILTER (WHERE state NOT IN ('claimed', 'running')) FROM jobs WHERE ended_at IS NULL";
        let (running, waiting): (i64, i64) = sqlx::query_as(SQL).fetch_one(self.pool()?).await.map_err(unavailable)?;
        Ok(Counts {
            running: unsigned(running),
            waiting: unsigned(waiting),
        })
    }

    /// Each queue with jobs that wait for a worker: how many, and since when the oldest was submitted.
    pub(crate) async fn queued(&self) -> Result<Vec<(String, u64, DateTime<Utc>)>, ApiError> {
        const SQL: &str = "SELECT queue, count(*), min(submitted_at) FROM jobs WHERE ended_at IS NULL AND state = 'queued' \
             GROUP BY queue ORDER BY queue LIMIT 100";
        let rows: Vec<(String, i64, DateTime<Utc>)> = sqlx::query_as(SQL).fetch_all(self.pool()?).await.map_err(unavailable)?;
        Ok(rows
            .into_iter()
            .map(|(queue, jobs, since)| (queue, unsigned(jobs), since))
            .collect())
    }

    /// The messages of the log that could not be decoded.
    pub(crate) async fn skipped(&self) -> Result<Skipped, ApiError> {
        let pool = self.pool()?;
        let last = sqlx::query_as("SELECT sequence, subject, reason FROM projection_skipped ORDER BY sequence DESC LIMIT 1")
            .fetch_optional(pool)
            .await
            .map_err(unavailable)?;
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM projection_skipped")
            .fetch_one(pool)
            .await
            .map_err(unavailable)?;
        Ok(Skipped {
            count: unsigned(count),
            last,
        })
    }

    /// The dead jobs, and their causes.
    pub(crate) async fn dead(&self) -> Result<Dead, ApiError> {
        const CAUSES: &str = "SELECT (outcome->'cause')::text, count(*), max(ended_at) FROM jobs WHERE failure = 'dead' \
             GROUP BY 1 ORDER BY 2 DESC";
        let rows: Vec<(Option<String>, i64, Option<DateTime<Utc>>)> =
            sqlx::query_as(CAUSES).fetch_all(self.pool()?).await.map_err(unavailable)?;
        let cause = |(text, jobs, _): &(Option<String>, i64, _)| Some((serde_json::from_str(text.as_deref()?).ok()?, *jobs));
        Ok(Dead {
            count: rows.iter().map(|(_, jobs, _)| unsigned(*jobs)).sum(),
            last: rows.iter().filter_map(|(_, _, last)| *last).max(),
            causes: rows.iter().filter_map(cause).take(3).collect(),
        })
    }

    /// Jobs that have not ended and lost two attempts or more: id, name, lost attempts.
    pub(crate) async fn losing(&self) -> Result<Vec<(JobId, String, u64)>, ApiError> {
        const SQL: &str = "SELECT j.id, j.name, count(*) FROM jobs j JOIN attempts a ON a.job_id = j.id \
             WHERE j.ended_at IS NULL AND j.attempt >= 2 AND a.outcome->>'kind' = 'lost' \
             AND coalesce(a.outcome->'cause'->>'orderly', 'false') <> 'true' \
             GROUP BY j.id, j.name HAVING count(*) >= 2 ORDER BY 3 DESC LIMIT 10";
        let rows: Vec<(Uuid, String, i64)> = sqlx::query_as(SQL).fetch_all(self.pool()?).await.map_err(unavailable)?;
        Ok(rows
            .into_iter()
            .map(|(id, name, losses)| (id.into(), name, unsigned(losses)))
            .collect())
    }
}
