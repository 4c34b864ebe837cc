//! The tables made again from the log, beside the live ones; compared with them; and swapped in.
//!
//! 1. A schema of its own gets the same tables, and the log is folded into them as always.
//! 2. The live checkpoint is locked: a running projector waits. The rest of the log up to it is folded, so that both are the
//!    fold of the same events, and must be the same rows.
//! 3. The old tables go, the new ones take their place, and the checkpoint's generation is counted up, in one transaction. A
//!    running projector notices, forgets what it remembers, and goes on.

mod tables;

use std::time::Instant;

use async_nats::jetstream;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, postgres::PgConnectOptions};
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
/// The key of the lock that only one rebuild has: "rgrid" in ASCII.
const LOCK: i64 = 0x7267_7269_6400;
/// While more events than this are to be folded, the running projector is not made to wait for them.
const SHORT: u64 = 2_000;

/// What a rebuild came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The sequence that the tables were compared and swapped at: where the old ones were.
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
    /// How many rows it has now.
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
    let (sequence, mut compared) = replace(&projector(fresh), &mut connection, &bus.js, target).await?;
    projector(live).until(Some(last)).await?;
    tables::count(&mut connection, &mut compared)
        .await
        .map_err(failed("count the rows"))?;
    connection.close().await.map_err(failed("leave the database"))?;
    Ok(Report {
        sequence,
        events: sequence.max(last),
        seconds: begun.elapsed().as_secs_f64(),
        tables: compared,
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
        let present = tables::present(&mut transaction).await.map_err(failed("find the live tables"))?;
        let compared = tables::compare(&mut transaction, &present, at == target).await;
        let compared = compared.map_err(failed("compare the tables"))?;
        tables::swap(&mut transaction, &present, target).await?;
        transaction.commit().await.map_err(failed("swap the tables"))?;
        info!("swapped the rebuilt tables in at sequence {target}");
        return Ok((target, compared));
    }
}
