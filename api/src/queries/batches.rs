//! Queries on batches and their members.

use std::collections::BTreeMap;

use bus::{
    batch::BatchMember,
    ids::{BatchId, Namespace},
    job::State,
    spec::JobSpec,
};
use chrono::{DateTime, Utc};
use model::{BatchState, BatchView, MemberView};
use sqlx::{FromRow, QueryBuilder, types::Json};
use uuid::Uuid;

use super::{Tables, jobs::JobRow, small, unavailable, unsigned};
use crate::error::ApiError;

/// Which batches to list.
#[derive(Debug)]
pub(crate) struct BatchFilter {
    pub(crate) namespace: Namespace,
    pub(crate) id: Option<BatchId>,
    pub(crate) limit: i64,
    /// Only batches that were submitted before this sequence.
    pub(crate) before: Option<i64>,
}

/// Which members of a batch to list.
#[derive(Debug)]
pub(crate) struct MemberFilter {
    pub(crate) batch: BatchId,
    pub(crate) states: Vec<State>,
    pub(crate) limit: i64,
    /// Only members after this index.
    pub(crate) after: Option<i32>,
}

#[derive(FromRow)]
struct BatchRow {
    id: Uuid,
    namespace: String,
    submitted_sequence: i64,
    name: String,
    total: i32,
    parallel: Option<i32>,
    max_failures: Option<i32>,
    retry_of: Option<Uuid>,
    submitted_at: DateTime<Utc>,
    sealed_at: Option<DateTime<Utc>>,
    stopped_at: Option<DateTime<Utc>>,
    cancelled_at: Option<DateTime<Utc>>,
    cancel_reason: Option<String>,
    counts: Option<Json<BTreeMap<String, u64>>>,
    last_ended_at: Option<DateTime<Utc>>,
}

/// A batch with the counts of its members, which are few columns of an index's rows.
const BATCHES: &str = "
    SELECT b.*, c.counts, c.last_ended_at FROM batches b LEFT JOIN LATERAL (
        SELECT json_object_agg(s.state, s.number) AS counts, max(s.ended) AS last_ended_at FROM (
            SELECT state, count(*) AS number, max(ended_at) AS ended FROM jobs WHERE batch_id = b.id GROUP BY state) s) c ON true
    WHERE b.namespace = ";

const MEMBERS: &str = "
    SELECT j.id, j.submitted_sequence, j.sequence, j.namespace, j.state, j.spec, j.submitted_at, j.started_at, j.ended_at,
           j.cancel_requested_at, j.cancel_reason, j.attempt, j.worker, j.exit_code, j.outcome, j.due_at, a.files
    FROM jobs j LEFT JOIN attempts a ON a.job_id = j.id AND a.number = j.attempt
    WHERE j.batch_id = ";

/// The spec of a batch's member.
pub(crate) struct MemberSpec {
    pub(crate) job: Uuid,
    pub(crate) spec: JobSpec,
    /// Its index in the batch.
    pub(crate) index: i32,
    /// Its size in bytes of JSON.
    pub(crate) bytes: u64,
}

#[derive(FromRow)]
struct MemberSpecRow {
    id: Uuid,
    spec: Json<JobSpec>,
    batch_index: i32,
    bytes: i64,
}

#[derive(FromRow)]
struct MemberRow {
    #[sqlx(flatten)]
    job: JobRow,
    files: Option<i64>,
}

impl Tables {
    /// A page of batches, newest first, and the cursor of the next page.
    pub(crate) async fn batches(&self, filter: &BatchFilter) -> Result<(Vec<BatchView>, Option<String>), ApiError> {
        let mut query = QueryBuilder::new(BATCHES);
        query.push_bind(filter.namespace.to_string());
        if let Some(id) = filter.id {
            query.push(" AND b.id = ").push_bind(id.uuid());
        }
        if let Some(before) = filter.before {
            query.push(" AND b.submitted_sequence < ").push_bind(before);
        }
        query.push(" ORDER BY b.submitted_sequence DESC LIMIT ").push_bind(filter.limit);
        let rows: Vec<BatchRow> = query.build_query_as().fetch_all(self.pool()?).await.map_err(unavailable)?;
        let full = usize::try_from(filter.limit).is_ok_and(|limit| rows.len() >= limit);
        let next = rows.last().filter(|_| full).map(|row| row.submitted_sequence.to_string());
        Ok((rows.into_iter().filter_map(BatchRow::view).collect(), next))
    }

    /// A page of a batch's members, in their order, and the cursor of the next page.
    pub(crate) async fn members(&self, filter: &MemberFilter) -> Result<(Vec<MemberView>, Option<u32>), ApiError> {
        let mut query = QueryBuilder::new(MEMBERS);
        query.push_bind(filter.batch.uuid());
        if !filter.states.is_empty() {
            let states: Vec<String> = filter.states.iter().map(ToString::to_string).collect();
            query.push(" AND j.state = ANY(").push_bind(states).push(")");
        }
        if let Some(after) = filter.after {
            query.push(" AND j.batch_index > ").push_bind(after);
        }
        query.push(" ORDER BY j.batch_index LIMIT ").push_bind(filter.limit);
        let rows: Vec<MemberRow> = query.build_query_as().fetch_all(self.pool()?).await.map_err(unavailable)?;
        let full = usize::try_from(filter.limit).is_ok_and(|limit| rows.len() >= limit);
        let members: Vec<MemberView> = rows.into_iter().filter_map(MemberRow::view).collect();
        let next = members.last().filter(|_| full).map(|member| member.index);
        Ok((members, next))
    }

    /// How many members a batch has; with `failed_only`, how many did not succeed.
    pub(crate) async fn count_members(&self, batch: BatchId, failed_only: bool) -> Result<u32, ApiError> {
        let mut query = QueryBuilder::new("SELECT count(*) FROM jobs WHERE batch_id = ");
        query.push_bind(batch.uuid());
        if failed_only {
            query.push(" AND state <> 'succeeded'");
        }
        let count: i64 = query.build_query_scalar().fetch_one(self.pool()?).await.map_err(unavailable)?;
        Ok(small(count))
    }

    /// The specs of a batch's members after an index, in their order; with `failed_only`, of those that did not succeed. At least one, and as
    /// many more as fit into the given number of members and bytes.
    pub(crate) async fn member_specs(
        &self,
        batch: BatchId,
        failed_only: bool,
        after: Option<i32>,
        (most, bytes): (usize, u64),
    ) -> Result<Vec<MemberSpec>, ApiError> {
        let mut query = QueryBuilder::new(
            "SELECT id, spec, batch_index, bytes FROM (
                SELECT id, spec, batch_index, bytes, sum(bytes) OVER (ORDER BY batch_index) AS so_far FROM (
                    SELECT id, spec, batch_index, octet_length(spec::text)::bigint AS bytes FROM jobs WHERE batch_id = ",
        );
        query.push_bind(batch.uuid());
        if failed_only {
            query.push(" AND state <> 'succeeded'");
        }
        if let Some(after) = after {
            query.push(" AND batch_index > ").push_bind(after);
        }
        query
            .push(" ORDER BY batch_index LIMIT ")
            .push_bind(i64::try_from(most).unwrap_or(i64::MAX));
        query
            .push(") page) page WHERE so_far - bytes < ")
            .push_bind(i64::try_from(bytes).unwrap_or(i64::MAX));
        query.push(" ORDER BY batch_index");
        let rows: Vec<MemberSpecRow> = query.build_query_as().fetch_all(self.pool()?).await.map_err(unavailable)?;
        let members = rows.into_iter().map(|row| MemberSpec {
            job: row.id,
            spec: row.spec.0,
            index: row.batch_index,
            bytes: unsigned(row.bytes),
        });
        Ok(members.collect())
    }
}

impl BatchRow {
    /// `None` for a row that the projector did not write.
    fn view(self) -> Option<BatchView> {
        let number = |number: i32| u32::try_from(number).unwrap_or(0);
        let mut view = BatchView {
            id: self.id.into(),
            namespace: self.namespace.parse().ok()?,
            name: self.name,
            state: BatchState::Running,
            total: number(self.total),
            counts: self.counts.map(|Json(counts)| counts).unwrap_or_default(),
            parallel: self.parallel.map(number),
            max_failures: self.max_failures.map(number),
            retry_of: self.retry_of.map(BatchId::from),
            submitted_at: self.submitted_at,
            ended_at: None,
            reason: self.cancel_reason,
            sequence: unsigned(self.submitted_sequence),
        };
        let there = view.counts.values().sum::<u64>();
        // A batch that was cancelled during its submission has fewer members than its total.
        let all = if self.sealed_at.is_some() { u64::from(view.total) } else { there };
        let ended = view.ended() == all;
        view.state = match (self.sealed_at, self.stopped_at, self.cancelled_at) {
            (_, _, Some(_)) if ended => BatchState::Cancelled,
            (_, _, Some(_)) => BatchState::Cancelling,
            (None, _, None) => BatchState::Submitting,
            (Some(_), _, None) if ended && view.count([State::Succeeded]) == all => BatchState::Succeeded,
            (Some(_), _, None) if ended => BatchState::Failed,
            (Some(_), Some(_), None) => BatchState::Stopping,
            (Some(_), None, None) => BatchState::Running,
        };
        view.ended_at = self.last_ended_at.filter(|_| view.state.is_end());
        Some(view)
    }
}

impl MemberRow {
    fn view(self) -> Option<MemberView> {
        let job = self.job.view()?;
        let BatchMember { index, item, of, .. } = job.batch.clone()?;
        Some(MemberView {
            index,
            item,
            of,
            outputs: self.files.map_or(0, unsigned),
            job,
        })
    }
}
