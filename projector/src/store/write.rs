//! Writes the changes of a batch in a few statements, together with the checkpoint.

use sqlx::PgConnection;

use super::{Checkpoint, Error, Store};
use crate::{
    project::Changes,
    rows::{ArtifactRow, AttemptRow, JobState, NewJob, Skipped, WorkerRow, bigint, integer},
};

/// The first statement: it waits for another writer, and then changes no row if the checkpoint has moved.
const MOVE_CHECKPOINT: &str = "UPDATE projection_checkpoint SET sequence = $3 WHERE sequence = $1 AND generation = $2";

const INSERT_JOBS: &str = "
    INSERT INTO jobs (id, submitted_sequence, sequence, namespace, queue, name, state, failure, labels, spec, submitted_at, started_at,
                      ended_at, cancel_requested_at, cancel_reason, attempt, worker, exit_code, outcome, due_at, batch_id, batch_index,
                      reuse_key)
    SELECT id, submitted_sequence, sequence, namespace, queue, name, state, failure, labels::jsonb, spec::json, submitted_at, started_at,
           ended_at, cancel_requested_at, cancel_reason, attempt, worker, exit_code, outcome::json, due_at, batch_id, batch_index,
           reuse_key
    FROM UNNEST($1::uuid[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[],
                $11::timestamptz[], $12::timestamptz[], $13::timestamptz[], $14::timestamptz[], $15::text[], $16::integer[], $17::text[],
                $18::integer[], $19::text[], $20::timestamptz[], $21::uuid[], $22::integer[], $23::bytea[])
      AS u (id, submitted_sequence, sequence, namespace, queue, name, state, failure, labels, spec, submitted_at, started_at, ended_at,
            cancel_requested_at, cancel_reason, attempt, worker, exit_code, outcome, due_at, batch_id, batch_index, reuse_key)";

const UPDATE_JOBS: &str = "
    UPDATE jobs SET sequence = u.sequence, state = u.state, failure = u.failure, started_at = u.started_at, ended_at = u.ended_at,
                    cancel_requested_at = u.cancel_requested_at, cancel_reason = u.cancel_reason, attempt = u.attempt, worker = u.worker,
                    exit_code = u.exit_code, outcome = u.outcome::json, due_at = u.due_at
    FROM UNNEST($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::timestamptz[], $8::text[],
                $9::integer[], $10::text[], $11::integer[], $12::text[], $13::timestamptz[])
      AS u (id, sequence, state, failure, started_at, ended_at, cancel_requested_at, cancel_reason, attempt, worker, exit_code, outcome, due_at)
    WHERE jobs.id = u.id";

const INSERT_ATTEMPTS: &str = "
    INSERT INTO attempts (job_id, number, worker, session, executor, environment, claimed_at, started_at, ended_at, outcome, wall_ms, cpu_ms,
                          memory_bytes, manifest_sha256, files, bytes, stdout_bytes, stderr_bytes)
    SELECT job_id, number, worker, session, executor, environment, claimed_at, started_at, ended_at, outcome::json, wall_ms, cpu_ms,
           memory_bytes, manifest_sha256, files, bytes, stdout_bytes, stderr_bytes
    FROM UNNEST($1::uuid[], $2::integer[], $3::text[], $4::uuid[], $5::text[], $6::text[], $7::timestamptz[], $8::timestamptz[],
                $9::timestamptz[], $10::text[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bytea[], $15::bigint[], $16::bigint[],
                $17::bigint[], $18::bigint[])
      AS u (job_id, number, worker, session, executor, environment, claimed_at, started_at, ended_at, outcome, wall_ms, cpu_ms,
            memory_bytes, manifest_sha256, files, bytes, stdout_bytes, stderr_bytes)";

const UPDATE_ATTEMPTS: &str = "
    UPDATE attempts SET executor = u.executor, environment = u.environment, started_at = u.started_at, ended_at = u.ended_at,
                        outcome = u.outcome::json, wall_ms = u.wall_ms, cpu_ms = u.cpu_ms, memory_bytes = u.memory_bytes,
                        manifest_sha256 = u.manifest_sha256, files = u.files, bytes = u.bytes, stdout_bytes = u.stdout_bytes,
                        stderr_bytes = u.stderr_bytes
    FROM UNNEST($1::uuid[], $2::integer[], $3::text[], $4::uuid[], $5::text[], $6::text[], $7::timestamptz[], $8::timestamptz[],
                $9::timestamptz[], $10::text[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bytea[], $15::bigint[], $16::bigint[],
                $17::bigint[], $18::bigint[])
      AS u (job_id, number, worker, session, executor, environment, claimed_at, started_at, ended_at, outcome, wall_ms, cpu_ms,
            memory_bytes, manifest_sha256, files, bytes, stdout_bytes, stderr_bytes)
    WHERE attempts.job_id = u.job_id AND attempts.number = u.number";

const UPSERT_WORKER: &str = "
    INSERT INTO workers (id, session, state, cpu_milli, memory_bytes, queues, executors, labels, versions, host, pid, registered_at, ended_at,
                         sequence, restarting_until, cordoned_at, cordon_reason, cordon_drain, cordon_deadline, equipment)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8::text::jsonb, $9::text::jsonb, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20::text::jsonb)
    ON CONFLICT (id) DO UPDATE SET
        session = EXCLUDED.session, state = EXCLUDED.state, cpu_milli = EXCLUDED.cpu_milli, memory_bytes = EXCLUDED.memory_bytes,
        queues = EXCLUDED.queues, executors = EXCLUDED.executors, labels = EXCLUDED.labels, versions = EXCLUDED.versions,
        host = EXCLUDED.host, pid = EXCLUDED.pid, registered_at = EXCLUDED.registered_at, ended_at = EXCLUDED.ended_at,
        sequence = EXCLUDED.sequence, restarting_until = EXCLUDED.restarting_until, cordoned_at = EXCLUDED.cordoned_at,
        cordon_reason = EXCLUDED.cordon_reason, cordon_drain = EXCLUDED.cordon_drain, cordon_deadline = EXCLUDED.cordon_deadline,
        equipment = EXCLUDED.equipment";

const INSERT_ARTIFACTS: &str = "
    INSERT INTO artifacts (job_id, attempt, position, path, sha256, size, executable)
    SELECT * FROM UNNEST($1::uuid[], $2::integer[], $3::integer[], $4::text[], $5::bytea[], $6::bigint[], $7::boolean[])";

const INSERT_SKIPPED: &str = "
    INSERT INTO projection_skipped (sequence, subject, reason)
    SELECT * FROM UNNEST($1::bigint[], $2::text[], $3::text[]) ON CONFLICT DO NOTHING";

impl Store {
    /// Writes the changes and moves the checkpoint, in one transaction.
    pub(crate) async fn write(&self, at: Checkpoint, changes: &Changes, artifacts: &[ArtifactRow]) -> Result<Checkpoint, Error> {
        let mut transaction = self.pool.begin().await?;
        let moved = sqlx::query(MOVE_CHECKPOINT)
            .bind(bigint(at.sequence))
            .bind(at.generation)
            .bind(bigint(changes.to))
            .execute(&mut *transaction)
            .await?;
        if moved.rows_affected() != 1 {
            return Err(Error::Overtaken { expected: at.sequence });
        }
        rows(&mut transaction, changes, artifacts).await.map_err(Error::writing)?;
        transaction.commit().await?;
        Ok(Checkpoint {
            sequence: changes.to,
            ..at
        })
    }
}

async fn rows(connection: &mut PgConnection, changes: &Changes, artifacts: &[ArtifactRow]) -> Result<(), sqlx::Error> {
    insert_jobs(connection, &changes.new_jobs).await?;
    update_jobs(connection, &changes.jobs).await?;
    attempts(connection, INSERT_ATTEMPTS, &changes.new_attempts).await?;
    attempts(connection, UPDATE_ATTEMPTS, &changes.attempts).await?;
    for batch in &changes.batches {
        batch.write(connection).await?;
    }
    for worker in &changes.workers {
        upsert_worker(connection, worker).await?;
    }
    insert_artifacts(connection, artifacts).await?;
    insert_skipped(connection, &changes.skipped).await
}

/// One column of these rows.
fn column<'a, R, T>(rows: &'a [R], value: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

async fn insert_jobs(connection: &mut PgConnection, rows: &[NewJob]) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(INSERT_JOBS)
        .bind(column(rows, |row| row.state.id.uuid()))
        .bind(column(rows, |row| bigint(row.submitted_sequence)))
        .bind(column(rows, |row| bigint(row.state.sequence)))
        .bind(column(rows, |row| row.namespace.as_str()))
        .bind(column(rows, |row| row.queue.as_str()))
        .bind(column(rows, |row| row.name.as_str()))
        .bind(column(rows, |row| row.state.state.as_str()))
        .bind(column(rows, |row| row.state.failure()))
        .bind(column(rows, |row| row.labels.as_deref()))
        .bind(column(rows, |row| row.spec.as_str()))
        .bind(column(rows, |row| row.submitted_at))
        .bind(column(rows, |row| row.state.started_at))
        .bind(column(rows, |row| row.state.ended_at))
        .bind(column(rows, |row| row.state.cancel_requested_at))
        .bind(column(rows, |row| row.state.cancel_reason.as_deref()))
        .bind(column(rows, |row| integer(row.state.attempt)))
        .bind(column(rows, |row| row.state.worker.as_ref().map(|worker| worker.as_str())))
        .bind(column(rows, |row| row.state.exit_code))
        .bind(column(rows, |row| row.state.outcome.as_deref()))
        .bind(column(rows, |row| row.state.due_at))
        .bind(column(rows, |row| row.batch.map(|(batch, _)| batch.uuid())))
        .bind(column(rows, |row| row.batch.map(|(_, index)| integer(index))))
        .bind(column(rows, |row| row.reuse_key.map(|key| key.as_bytes().to_vec())))
        .execute(connection)
        .await?;
    Ok(())
}

async fn update_jobs(connection: &mut PgConnection, rows: &[JobState]) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(UPDATE_JOBS)
        .bind(column(rows, |row| row.id.uuid()))
        .bind(column(rows, |row| bigint(row.sequence)))
        .bind(column(rows, |row| row.state.as_str()))
        .bind(column(rows, JobState::failure))
        .bind(column(rows, |row| row.started_at))
        .bind(column(rows, |row| row.ended_at))
        .bind(column(rows, |row| row.cancel_requested_at))
        .bind(column(rows, |row| row.cancel_reason.as_deref()))
        .bind(column(rows, |row| integer(row.attempt)))
        .bind(column(rows, |row| row.worker.as_ref().map(|worker| worker.as_str())))
        .bind(column(rows, |row| row.exit_code))
        .bind(column(rows, |row| row.outcome.as_deref()))
        .bind(column(rows, |row| row.due_at))
        .execute(connection)
        .await?;
    Ok(())
}

async fn attempts(connection: &mut PgConnection, statement: &'static str, rows: &[AttemptRow]) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let sum = |value: fn(&bus::job::ManifestRef) -> u64| column(rows, |row| row.manifest.as_ref().map(|manifest| bigint(value(manifest))));
    let executors: Vec<Option<String>> = column(rows, |row| row.executor.map(|executor| executor.to_string()));
    sqlx::query(statement)
        .bind(column(rows, |row| row.job.uuid()))
        .bind(column(rows, |row| integer(row.number)))
        .bind(column(rows, |row| row.worker.as_str()))
        .bind(column(rows, |row| row.session.uuid()))
        .bind(executors)
        .bind(column(rows, |row| row.environment.as_deref()))
        .bind(column(rows, |row| row.claimed_at))
        .bind(column(rows, |row| row.started_at))
        .bind(column(rows, |row| row.ended_at))
        .bind(column(rows, |row| row.outcome.as_deref()))
        .bind(column(rows, |row| row.usage.map(|usage| bigint(usage.wall_ms))))
        .bind(column(rows, |row| row.usage.and_then(|usage| usage.cpu_ms).map(bigint)))
        .bind(column(rows, |row| row.usage.and_then(|usage| usage.memory_bytes).map(bigint)))
        .bind(column(rows, |row| {
            row.manifest.as_ref().map(|manifest| manifest.sha256.as_bytes().as_slice())
        }))
        .bind(sum(|manifest| manifest.files))
        .bind(sum(|manifest| manifest.bytes))
        .bind(sum(|manifest| manifest.stdout_bytes))
        .bind(sum(|manifest| manifest.stderr_bytes))
        .execute(connection)
        .await?;
    Ok(())
}

async fn upsert_worker(connection: &mut PgConnection, row: &WorkerRow) -> Result<(), sqlx::Error> {
    sqlx::query(UPSERT_WORKER)
        .bind(row.id.as_str())
        .bind(row.session.uuid())
        .bind(row.state)
        .bind(i64::from(row.cpu_milli))
        .bind(bigint(row.memory_bytes))
        .bind(&row.queues)
        .bind(&row.executors)
        .bind(&row.labels)
        .bind(&row.versions)
        .bind(&row.host)
        .bind(i64::from(row.pid))
        .bind(row.registered_at)
        .bind(row.ended_at)
        .bind(bigint(row.sequence))
        .bind(row.restarting_until)
        .bind(row.cordon.as_ref().map(|cordon| cordon.at))
        .bind(row.cordon.as_ref().and_then(|cordon| cordon.reason.as_deref()))
        .bind(row.cordon.as_ref().is_some_and(|cordon| cordon.drain))
        .bind(row.cordon.as_ref().and_then(|cordon| cordon.deadline))
        .bind(row.equipment.as_deref())
        .execute(connection)
        .await?;
    Ok(())
}

async fn insert_artifacts(connection: &mut PgConnection, rows: &[ArtifactRow]) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(INSERT_ARTIFACTS)
        .bind(column(rows, |row| row.job.uuid()))
        .bind(column(rows, |row| integer(row.attempt.0)))
        .bind(column(rows, |row| row.position))
        .bind(column(rows, |row| row.path.as_str()))
        .bind(column(rows, |row| row.sha256.as_bytes().as_slice()))
        .bind(column(rows, |row| bigint(row.size)))
        .bind(column(rows, |row| row.executable))
        .execute(connection)
        .await?;
    Ok(())
}

async fn insert_skipped(connection: &mut PgConnection, rows: &[Skipped]) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(INSERT_SKIPPED)
        .bind(column(rows, |row| bigint(row.sequence)))
        .bind(column(rows, |row| row.subject.as_str()))
        .bind(column(rows, |row| row.reason.as_str()))
        .execute(connection)
        .await?;
    Ok(())
}
