//! The old tables and the new ones: compared, and swapped.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgTransaction};

use super::{SCHEMA, Table, failed};
use crate::Error;

/// Swapped, and not compared: a cache.
const HEARTBEATS: &str = "worker_heartbeats";
/// What is swapped and compared. The checkpoint stays.
const TABLES: [&str; 6] = ["jobs", "batches", "attempts", "artifacts", "workers", "projection_skipped"];
/// How often, and how long each time, the live tables are waited for: less than the second after which Postgres would end
/// somebody's query as deadlocked.
const SWAP_TRIES: u32 = 60;
const SWAP_WAIT: Duration = Duration::from_millis(500);

/// Those of the live tables that are there; somebody may have dropped one.
pub(super) async fn present(transaction: &mut PgTransaction<'_>) -> Result<Vec<&'static str>, sqlx::Error> {
    let mut present = Vec::new();
    // The heartbeats first: they refer to the workers, and readers of both do not meet us crosswise.
    for name in std::iter::once(HEARTBEATS).chain(TABLES) {
        let there: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
            .bind(name)
            .fetch_one(&mut **transaction)
            .await?;
        present.extend(there.then_some(name));
    }
    Ok(present)
}

/// Counts the rows that differ.
pub(super) async fn compare(transaction: &mut PgTransaction<'_>, present: &[&str], comparable: bool) -> Result<Vec<Table>, sqlx::Error> {
    let mut tables = Vec::with_capacity(TABLES.len());
    for name in TABLES {
        // As text, since not every type can be compared. A changed row is in both differences, a lacking one in one of them.
        let new = format!("SELECT t::text FROM {SCHEMA}.{name} t");
        let old = if present.contains(&name) {
            format!("SELECT t::text FROM {name} t")
        } else {
            format!("{new} WHERE false")
        };
        let differing = format!(
            "SELECT greatest((SELECT count(*) FROM (({old}) EXCEPT ALL ({new})) a), (SELECT count(*) FROM (({new}) EXCEPT ALL ({old})) b))"
        );
        let differing = if comparable {
            let differing: i64 = sqlx::query_scalar(AssertSqlSafe(differing)).fetch_one(&mut **transaction).await?;
            Some(differing.unsigned_abs())
        } else {
            None
        };
        tables.push(Table {
            name: name.to_owned(),
            rows: 0,
            differing,
        });
    }
    Ok(tables)
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

/// Puts the new tables in the place of the old ones.
pub(super) async fn swap(transaction: &mut PgTransaction<'_>, present: &[&str], sequence: u64) -> Result<(), Error> {
    alone(transaction, present).await?;
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
    for name in std::iter::once(HEARTBEATS).chain(TABLES) {
        statements += &format!("DROP TABLE IF EXISTS {schema}.{name} CASCADE; ALTER TABLE {SCHEMA}.{name} SET SCHEMA {schema};");
    }
    statements += &format!("DROP SCHEMA {SCHEMA} CASCADE");
    sqlx::raw_sql(AssertSqlSafe(statements))
        .execute(&mut **transaction)
        .await
        .map(|_| ())
        .map_err(failed("swap the tables"))
}

/// Waits until nobody uses the live tables, in turns that are too short to get in anybody's way.
async fn alone(transaction: &mut PgTransaction<'_>, present: &[&str]) -> Result<(), Error> {
    if present.is_empty() {
        return Ok(());
    }
    let statement = format!(
        "SET LOCAL lock_timeout = {}; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE",
        SWAP_WAIT.as_millis(),
        present.join(", ")
    );
    let begun = Instant::now();
    for _ in 0..SWAP_TRIES {
        let mut savepoint = transaction.begin().await.map_err(failed("begin the swap"))?;
        match sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(&mut *savepoint).await {
            Ok(_) => return savepoint.commit().await.map_err(failed("lock the tables")),
            // SQLSTATE: the lock was not to be had in time.
            Err(error) if error.as_database_error().and_then(|answer| answer.code()).as_deref() == Some("55P03") => {
                savepoint.rollback().await.map_err(failed("lock the tables"))?;
                tokio::time::sleep(SWAP_WAIT / 5).await;
            }
            Err(error) => return Err(failed("lock the tables")(error)),
        }
    }
    Err(Error::InUse {
        seconds: begun.elapsed().as_secs(),
    })
}
