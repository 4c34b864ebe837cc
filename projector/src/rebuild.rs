//! The tables made again from the log, beside the live ones; compared with them; and swapped in.
//!
//! 1. A schema of its own gets the same tables, and the log is folded into them as always.
//! 2. The live checkpoint is locked: a running projector waits. The rest of the log up to it is folded, so that both are the
//!    fold of the same events, and must be the same rows.
//! 3. The old tables go, the new ones take their place, and the checkpoint's generation is counted up, in one transaction. A
//!    running projector notices, forgets what it remembers, and goes on.

use std::time::{Duration, Instant};

use async_nats::jetstream;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgTransaction, postgres::PgConnectOptions};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    Config, Error,
    manifests::Manifests,
    run::{Projector, lasting},
    source,
    store::Store,
};

/// Where the new tables are made.
const SCHEMA: &str = "rgrid_rebuild";
/// What is swapped and compared. The checkpoint stays, and the heartbeats go along without being compared: they are a cache.
const TABLES: [&str; 5] = ["jobs", "attempts", "artifacts", "workers", "projection_skipped"];
/// The key of the lock that only one rebuild has: "rgrid" in ASCII.
const LOCK: i64 = 0x7267_7269_6400;
/// While more events than this are to be folded, the running projector is not made to wait for them.
const SHORT: u64 = 2_000;
/// How often, and how long each time, the live tables are waited for: less than the second after which Postgres would end
/// somebody's query as deadlocked.
const SWAP_TRIES: u32 = 60;
const SWAP_WAIT: Duration = Duration::from_millis(500);

/// What a rebuild came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The sequence that the tables were compared and swapped at.
    pub sequence: u64,
    /// How many events were folded.
    pub events: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// The tables.
    pub tables: Vec<Table>,
}

/// What a rebuild came to, for one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// How many rows it has.
    pub rows: u64,
    /// How many rows were otherwise before; absent where the old tables could not be compared, because they were of another log.
    pub differing: Option<u64>,
}

impl Report {
    /// Whether the tables were exactly what the log says; nothing where they could not be compared.
    #[must_use]
    pub fn identical(&self) -> Option<bool> {
        self.tables
            .iter()
            .map(|table| table.differing.map(|differing| differing == 0))
            .try_fold(true, |all, one| Some(all && one?))
    }
}

/// Makes all tables again from the log, and says how the old ones differed. Then projects what is left of the log. A projector may run
/// meanwhile, or not.
///
/// # Errors
/// Where NATS or the database cannot be reached, and see [`Error`]. The live tables are then as they were.
pub async fn rebuild(config: Config) -> Result<Report, Error> {
    let begun = Instant::now();
    let (files, database) = (config.files()?, config.database()?);
    let bus = source::reach(&config).await?;
    let live = Store::new(&database, None);
    migrate(&live, &database).await?;
    let (first, last) = source::bounds(&bus.js).await?;
    if first > 1 {
        return Err(Error::Beheaded { first });
    }
    let projector = |store| Projector {
        store,
        manifests: Manifests::new(files.clone(), bus.js.clone()),
        js: bus.js.clone(),
        stop: CancellationToken::new(),
    };
    let mut connection = lock(&database).await?;
    let fresh = fresh(&database, &mut connection).await?;
    let target = live.checkpoint().await.map_err(failed("read the checkpoint"))?.sequence.min(last);
    let (sequence, tables) = replace(&projector(fresh), &mut connection, &bus.js, target).await?;
    projector(live).until(Some(last)).await?;
    connection.close().await.map_err(failed("leave the database"))?;
    Ok(Report {
        sequence,
        events: sequence,
        seconds: begun.elapsed().as_secs_f64(),
        tables,
    })
}

fn failed(doing: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |source| Error::Database { doing, source }
}

async fn migrate(store: &Store, database: &PgConnectOptions) -> Result<(), Error> {
    match store.migrate().await {
        Ok(()) => Ok(()),
        Err(error) => match lasting(error, database)? {
            sqlx::migrate::MigrateError::Execute(source) => Err(failed("reach the database")(source)),
            other => Err(failed("make the tables")(sqlx::Error::Migrate(Box::new(other)))),
        },
    }
}

/// A connection for what is not folding, that holds the lock of rebuilds for as long as it lives.
async fn lock(database: &PgConnectOptions) -> Result<PgConnection, Error> {
    let mut connection = PgConnection::connect_with(database).await.map_err(failed("reach the database"))?;
    let alone: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
        .bind(LOCK)
        .fetch_one(&mut connection)
        .await
        .map_err(failed("lock the rebuild"))?;
    if alone { Ok(connection) } else { Err(Error::Busy) }
}

/// The same tables, empty, in their own schema; what an earlier rebuild left there is gone.
async fn fresh(database: &PgConnectOptions, connection: &mut PgConnection) -> Result<Store, Error> {
    let statements = format!("DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; CREATE SCHEMA {SCHEMA}");
    sqlx::raw_sql(AssertSqlSafe(statements))
        .execute(connection)
        .await
        .map_err(failed("make the schema rgrid_rebuild"))?;
    let store = Store::new(database, Some(SCHEMA));
    migrate(&store, database).await?;
    Ok(store)
}

/// Folds the log into the new tables up to where the live ones are, compares, and swaps.
async fn replace(
    fresh: &Projector,
    connection: &mut PgConnection,
    js: &jetstream::Context,
    mut target: u64,
) -> Result<(u64, Vec<Table>), Error> {
    loop {
        fresh.until(Some(target)).await?;
        let mut transaction = connection.begin().await.map_err(failed("begin the swap"))?;
        let at: i64 = sqlx::query_scalar("SELECT sequence FROM projection_checkpoint FOR UPDATE")
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed("lock the checkpoint"))?;
        let at = at.unsigned_abs();
        let (_, last) = source::bounds(js).await?;
        if at.min(last) > target + SHORT {
            target = at.min(last);
            continue;
        }
        target = at.min(last).max(target);
        fresh.until(Some(target)).await?;
        let tables = compare(&mut transaction, at == target)
            .await
            .map_err(failed("compare the tables"))?;
        swap(&mut transaction, target).await?;
        transaction.commit().await.map_err(failed("swap the tables"))?;
        info!("swapped the rebuilt tables in at sequence {target}");
        return Ok((target, tables));
    }
}

/// Counts the rows, and those that differ.
async fn compare(transaction: &mut PgTransaction<'_>, comparable: bool) -> Result<Vec<Table>, sqlx::Error> {
    let mut tables = Vec::with_capacity(TABLES.len());
    for name in TABLES {
        let count = format!("SELECT count(*) FROM {SCHEMA}.{name}");
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&mut **transaction).await?;
        let differing = if comparable {
            // As text, since not every type can be compared. A changed row is in both differences, a lacking one in one of them.
            let (old, new) = (
                format!("SELECT t::text FROM {name} t"),
                format!("SELECT t::text FROM {SCHEMA}.{name} t"),
            );
            let differing = format!(
                "SELECT greatest((SELECT count(*) FROM (({old}) EXCEPT ALL ({new})) a), (SELECT count(*) FROM (({new}) EXCEPT ALL ({old})) b))"
            );
            let differing: i64 = sqlx::query_scalar(AssertSqlSafe(differing)).fetch_one(&mut **transaction).await?;
            Some(differing.unsigned_abs())
        } else {
            None
        };
        tables.push(Table {
            name: name.to_owned(),
            rows: rows.unsigned_abs(),
            differing,
        });
    }
    Ok(tables)
}

/// Puts the new tables in the place of the old ones.
async fn swap(transaction: &mut PgTransaction<'_>, sequence: u64) -> Result<(), Error> {
    alone(transaction).await?;
    let schema: String = sqlx::query_scalar("SELECT quote_ident(current_schema())")
        .fetch_one(&mut **transaction)
        .await
        .map_err(failed("find the live tables"))?;
    let mut statements = format!(
        "INSERT INTO {SCHEMA}.worker_heartbeats
             SELECT h.* FROM worker_heartbeats h WHERE EXISTS (SELECT FROM {SCHEMA}.workers w WHERE w.id = h.worker);
         UPDATE projection_checkpoint SET sequence = {sequence}, generation = generation + 1;"
    );
    // The heartbeats first: they refer to the workers.
    for name in std::iter::once("worker_heartbeats").chain(TABLES) {
        statements += &format!("DROP TABLE {schema}.{name}; ALTER TABLE {SCHEMA}.{name} SET SCHEMA {schema};");
    }
    statements += &format!("DROP SCHEMA {SCHEMA} CASCADE");
    sqlx::raw_sql(AssertSqlSafe(statements))
        .execute(&mut **transaction)
        .await
        .map(|_| ())
        .map_err(failed("swap the tables"))
}

/// Waits until nobody uses the live tables, in turns that are too short to get in anybody's way.
async fn alone(transaction: &mut PgTransaction<'_>) -> Result<(), Error> {
    let statement = format!(
        "SET LOCAL lock_timeout = {}; LOCK TABLE worker_heartbeats, {} IN ACCESS EXCLUSIVE MODE",
        SWAP_WAIT.as_millis(),
        TABLES.join(", ")
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
