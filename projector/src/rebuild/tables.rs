//! Creates and indexes the new tables, and swaps them with the old ones.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection, PgTransaction};
use tracing::warn;

use super::{SCHEMA, Table, failed};
use crate::Error;

/// The tables that are swapped and not compared: caches.
const HEARTBEATS: &str = "worker_heartbeats";
const EQUIPMENT: &str = "worker_equipment";
/// The tables that are swapped and compared. The checkpoint's table stays.
pub(super) const TABLES: [&str; 6] = ["jobs", "batches", "attempts", "artifacts", "workers", "projection_skipped"];
/// The schema to which the old tables are moved, until they are dropped.
const REPLACED: &str = "rgrid_replaced";
/// How long to wait for a vacuum, in milliseconds: Postgres ends an automatic one after another session has waited for it for a second.
const CALM_MS: u32 = 3_000;

/// All tables to swap. The heartbeats come first: they refer to the workers, and this order avoids a deadlock with readers of both.
fn swapped() -> impl Iterator<Item = &'static str> {
    [HEARTBEATS, EQUIPMENT].into_iter().chain(TABLES)
}

/// Drops what a rebuild no longer needs, or an earlier one left.
pub(super) async fn clear(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let statements = format!("DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; DROP SCHEMA IF EXISTS {REPLACED} CASCADE");
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(connection).await?;
    Ok(())
}

/// The same, ignoring errors: the next rebuild tries again.
pub(super) async fn clear_up(connection: &mut PgConnection) {
    if let Err(error) = clear(connection).await {
        warn!("the schemas {SCHEMA} and {REPLACED} are left until the next rebuild, and may be dropped: {error}");
    }
}

/// Drops the readers' indexes of the new tables, and returns the statements that create them again. Without indexes, rows are written
/// twice as fast, and creating an index once over all rows is faster than updating it with each row.
pub(super) async fn without_indexes(connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    let found: Vec<(String, String)> = sqlx::query_as(
        "SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid)
         FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
         WHERE c.relnamespace = $1::regnamespace AND NOT i.indisunique AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid)
         ORDER BY 1",
    )
    .bind(SCHEMA)
    .fetch_all(&mut *connection)
    .await?;
    let mut definitions = Vec::with_capacity(found.len());
    for (name, definition) in found {
        sqlx::raw_sql(AssertSqlSafe(format!("DROP INDEX {name}")))
            .execute(&mut *connection)
            .await?;
        definitions.push(definition);
    }
    Ok(definitions)
}

/// Creates the indexes, and gathers statistics for the planner.
pub(super) async fn finish(connection: &mut PgConnection, indexes: Vec<String>) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("SET maintenance_work_mem = '256MB'")
        .execute(&mut *connection)
        .await?;
    for statement in indexes {
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *connection).await?;
    }
    for name in TABLES {
        let statement = format!("ANALYZE {SCHEMA}.{name}");
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Counts the rows of the live tables.
pub(super) async fn count(connection: &mut PgConnection, tables: &mut [Table]) -> Result<(), sqlx::Error> {
    for table in tables {
        let count = format!("SELECT count(*) FROM {}", table.name);
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&mut *connection).await?;
        table.rows = rows.unsigned_abs();
    }
    Ok(())
}

/// Keeps vacuums from the old and the new tables for this transaction; returns false if a vacuum does not end. Readers and writers are not
/// blocked.
pub(super) async fn calm(transaction: &mut PgTransaction<'_>) -> Result<bool, sqlx::Error> {
    let present = present(transaction).await?;
    let new = swapped().map(|name| format!("{SCHEMA}.{name}"));
    let all: Vec<String> = present.iter().map(|name| (*name).to_owned()).chain(new).collect();
    let statement = format!(
        "SET LOCAL lock_timeout = {CALM_MS}; LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE; SET LOCAL lock_timeout = 0",
        all.join(", ")
    );
    locked(transaction, statement).await
}

/// Replaces the old tables by the new ones. If other sessions use the old ones for longer than `patience`, returns false, and the
/// transaction must be rolled back.
pub(super) async fn swap(transaction: &mut PgTransaction<'_>, patience: Duration, sequence: u64) -> Result<bool, Error> {
    let present = present(transaction).await.map_err(failed("find the live tables"))?;
    if !alone(transaction, &present, patience).await.map_err(failed("lock the tables"))? {
        return Ok(false);
    }
    let schema: String = sqlx::query_scalar("SELECT quote_ident(current_schema())")
        .fetch_one(&mut **transaction)
        .await
        .map_err(failed("find the live tables"))?;
    let mut statements = format!("UPDATE projection_checkpoint SET sequence = {sequence}, generation = generation + 1;");
    if present.contains(&HEARTBEATS) {
        statements += &format!(
            "INSERT INTO {SCHEMA}.{HEARTBEATS}
                 SELECT h.* FROM {HEARTBEATS} h WHERE EXISTS (SELECT FROM {SCHEMA}.workers w WHERE w.id = h.worker);"
        );
    }
    if present.contains(&EQUIPMENT) {
        // A running projector may have written newer rows than those of the new table, and would not write them again.
        statements += &format!(
            "INSERT INTO {SCHEMA}.{EQUIPMENT} AS filled SELECT * FROM {EQUIPMENT}
                 ON CONFLICT (worker) DO UPDATE SET (session, registered_at, said_at, equipment)
                     = (EXCLUDED.session, EXCLUDED.registered_at, EXCLUDED.said_at, EXCLUDED.equipment)
                 WHERE EXCLUDED.said_at > filled.said_at;"
        );
    }
    // The old tables are only moved here, while readers wait: dropping a million rows takes time.
    statements += &format!("CREATE SCHEMA {REPLACED};");
    for name in swapped() {
        if present.contains(&name) {
            statements += &format!("ALTER TABLE {name} SET SCHEMA {REPLACED};");
        }
        statements += &format!("ALTER TABLE {SCHEMA}.{name} SET SCHEMA {schema};");
    }
    sqlx::raw_sql(AssertSqlSafe(statements))
        .execute(&mut **transaction)
        .await
        .map_err(failed("swap the tables"))?;
    Ok(true)
}

/// The live tables that exist; an operator may have dropped one.
async fn present(transaction: &mut PgTransaction<'_>) -> Result<Vec<&'static str>, sqlx::Error> {
    let mut present = Vec::new();
    for name in swapped() {
        let there: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
            .bind(name)
            .fetch_one(&mut **transaction)
            .await?;
        present.extend(there.then_some(name));
    }
    Ok(present)
}

/// Locks the live tables for this transaction alone; returns false if other sessions used them all the time.
async fn alone(transaction: &mut PgTransaction<'_>, present: &[&str], patience: Duration) -> Result<bool, sqlx::Error> {
    if present.is_empty() {
        return Ok(true);
    }
    let statement = format!(
        "SET LOCAL lock_timeout = {}; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE",
        patience.as_millis(),
        present.join(", ")
    );
    locked(transaction, statement).await
}

/// Locks; returns false if the lock was not available in time.
async fn locked(transaction: &mut PgTransaction<'_>, statement: String) -> Result<bool, sqlx::Error> {
    match sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut **transaction).await {
        Ok(_) => Ok(true),
        // SQLSTATE: lock not available.
        Err(error) if error.as_database_error().and_then(|answer| answer.code()).as_deref() == Some("55P03") => Ok(false),
        Err(error) => Err(error),
    }
}
