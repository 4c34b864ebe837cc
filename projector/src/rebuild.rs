//! Makes new tables from the log beside the live ones, compares them, and swaps them in. Decision 0013 gives the reasons.
//!
//! 1. A separate schema gets the same tables, without the readers' indexes. The log is folded into them in large batches, up to the
//!    checkpoint of the live tables.
//! 2. A snapshot of the live tables is read. The new tables are folded up to its checkpoint, and every row is compared.
//! 3. The indexes are created, and statistics gathered. The tables that are not a fold of the log, but caches, are filled.
//! 4. Events since then are folded, and the rows that they touched are compared with another snapshot, until few events are left.
//! 5. The live checkpoint is locked, so that a running projector waits. The last events are folded and compared, the new tables replace the
//!    old ones, and the checkpoint's generation is increased, in one transaction. A running projector notices that, drops its memory, and
//!    continues. If other sessions read the old tables for too long, the lock is released, and this step is tried again.

mod compare;
mod connection;
mod tables;

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::{
    compare::{Differences, Touched},
    connection::{connect, lock},
};
use crate::{
    Config, Error, inventory,
    manifests::Manifests,
    project::Item,
    run::{Projector, permanent},
    source::{self, Mode},
    store::Store,
};

/// The schema of the new tables.
const SCHEMA: &str = "rgrid_rebuild";
/// At most this many events are folded while a running projector waits.
const SHORT: u64 = 4_000;
/// How long a swap waits for the live tables, at first and at most: less than the second after which Postgres would end another query as
/// deadlocked. Queries that come meanwhile wait as well, so the pause before the next try is twice as long.
const SWAP_PATIENCE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// After how long the swap is given up.
const SWAP_MAX: Duration = Duration::from_secs(60);

/// The result of a rebuild.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The checkpoint at the swap: that of the old tables, or the end of the log if no projector was running.
    pub sequence: u64,
    /// How many events were folded.
    pub events: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// For how long the live tables could not change, in seconds: the longest time that a running projector waited.
    pub held_seconds: f64,
    /// The tables.
    pub tables: Vec<Table>,
}

/// The result of a rebuild for one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// How many rows it has now.
    pub rows: u64,
    /// How many rows differed; absent if the old tables could not be compared, because they were of another log.
    pub differing: Option<u64>,
}

impl Report {
    /// Whether the old tables were exactly the fold of the log; nothing if they could not be compared.
    #[must_use]
    pub fn identical(&self) -> Option<bool> {
        self.tables
            .iter()
            .map(|table| table.differing.map(|differing| differing == 0))
            .try_fold(true, |all, one| Some(all && one?))
    }
}

/// Rebuilds all tables from the log, and reports how the old ones differed. Then projects the rest of the log. A projector may run
/// meanwhile.
///
/// # Errors
/// If NATS or the database cannot be reached; see also [`Error`]. The live tables are unchanged then.
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
    let projector = |store, mode| Projector {
        store,
        manifests: Manifests::new(files.clone(), bus.js.clone()),
        js: bus.js.clone(),
        mode,
        stop: CancellationToken::new(),
    };
    let mut connection = connect(&database).await?;
    lock(&mut connection).await?;
    let empty_tables = empty_tables(&database, &mut connection).await?;
    let mut rebuild = Rebuild {
        fresh: NewTables {
            projector: projector(empty_tables, Mode::Bulk),
            at: 0,
            touched: None,
        },
        new: connect(&database).await?,
        live: connection,
        differences: Differences::default(),
        comparing: Comparing::Everything,
        stalled: Duration::ZERO,
    };
    let replaced = Box::pin(rebuild.replace()).await;
    let mut connection = rebuild.live;
    tables::clear_up(&mut connection).await;
    let mut report = replaced?;
    projector(live, Mode::Live).until(Some(last), &mut |_| {}).await?;
    tables::count(&mut connection, &mut report.tables)
        .await
        .map_err(failed("count the rows"))?;
    connection.close().await.map_err(failed("leave the database"))?;
    report.events = report.sequence.max(last);
    report.seconds = begun.elapsed().as_secs_f64();
    Ok(report)
}

fn failed(doing: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |source| Error::Database { doing, source }
}

async fn migrate(store: &Store, database: &PgConnectOptions) -> Result<(), Error> {
    match store.migrate().await {
        Ok(()) => Ok(()),
        Err(error) => match permanent(error, database)? {
            sqlx::migrate::MigrateError::Execute(source) => Err(failed("reach the database")(source)),
            other => Err(failed("make the tables")(sqlx::Error::Migrate(Box::new(other)))),
        },
    }
}

/// Creates empty tables in the schema of rebuilds, after removing what an earlier rebuild left there.
async fn empty_tables(database: &PgConnectOptions, connection: &mut PgConnection) -> Result<Store, Error> {
    tables::clear(connection)
        .await
        .map_err(failed("remove what an earlier rebuild left"))?;
    sqlx::raw_sql(AssertSqlSafe(format!("CREATE SCHEMA {SCHEMA}")))
        .execute(connection)
        .await
        .map_err(failed("make the schema rgrid_rebuild"))?;
    let store = Store::new(database, Some(SCHEMA));
    migrate(&store, database).await?;
    Ok(store)
}

/// What is still to be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparing {
    /// All rows.
    Everything,
    /// The rows that were touched since the last comparison.
    Touched,
    /// None: the old tables are of another log.
    Never,
    /// No more: they were compared, and the new tables are ahead of them since.
    Over,
}

/// The new tables.
#[derive(Debug)]
struct NewTables {
    projector: Projector,
    /// Their checkpoint.
    at: u64,
    /// The rows that were touched since the last comparison, if they are to be compared.
    touched: Option<Touched>,
}

impl NewTables {
    /// Folds up to this event.
    async fn fold(&mut self, target: u64) -> Result<(), Error> {
        if target <= self.at {
            return Ok(());
        }
        let touched = &mut self.touched;
        let mut seen = |items: &[Item]| {
            if let Some(touched) = touched {
                touched.add(items);
            }
        };
        self.projector.until(Some(target), &mut seen).await?;
        self.at = target;
        Ok(())
    }

    /// The last sequence of the log.
    async fn last(&self) -> Result<u64, Error> {
        Ok(source::bounds(&self.projector.js).await?.1)
    }
}

/// A rebuild under way.
#[derive(Debug)]
struct Rebuild {
    fresh: NewTables,
    /// Reads the live tables, and swaps them. It holds the lock of rebuilds.
    live: PgConnection,
    /// Reads the new tables, and makes their indexes.
    new: PgConnection,
    differences: Differences,
    comparing: Comparing,
    /// The longest time for which the live tables could not change.
    stalled: Duration,
}

/// The result of a try to swap.
enum Swap {
    /// It is done.
    Done,
    /// Too many events were left to fold.
    Behind,
    /// Other sessions used the live tables all the time.
    InUse,
}

impl Rebuild {
    /// Folds, compares and swaps.
    async fn replace(&mut self) -> Result<Report, Error> {
        let indexes = tables::without_indexes(&mut self.new).await.map_err(failed("make the tables"))?;
        self.catch_up().await?;
        self.compare().await?;
        self.fold_to_the_end().await?;
        tables::finish(&mut self.new, indexes).await.map_err(failed("make the indexes"))?;
        let Projector { js, store, .. } = &self.fresh.projector;
        inventory::fill(js, store).await;
        self.swap_with_retries().await?;
        info!("swapped the rebuilt tables in at sequence {}", self.fresh.at);
        let comparable = self.comparing != Comparing::Never;
        let counted = self.differences.counts().map(|(name, differing)| Table {
            name: name.to_owned(),
            rows: 0,
            differing: comparable.then_some(differing),
        });
        Ok(Report {
            sequence: self.fresh.at,
            events: 0,
            seconds: 0.0,
            held_seconds: self.stalled.as_secs_f64(),
            tables: counted.collect(),
        })
    }

    /// Folds until the live tables are at most a few events ahead.
    async fn catch_up(&mut self) -> Result<(), Error> {
        loop {
            // In this order: the events of the live tables were in the log before.
            let live_at = position(&mut self.live, "").await?;
            let last = self.fresh.last().await?;
            if live_at > last {
                self.comparing = Comparing::Never;
                return self.fresh.fold(last).await;
            }
            if live_at <= self.fresh.at + SHORT {
                return Ok(());
            }
            self.fresh.fold(live_at).await?;
        }
    }

    /// Compares with a snapshot of the live tables, which blocks no other session.
    async fn compare(&mut self) -> Result<(), Error> {
        if matches!(self.comparing, Comparing::Never | Comparing::Over) {
            return Ok(());
        }
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        let mut snapshot = self.live.begin_with(begin).await.map_err(failed("read the live tables"))?;
        let live_at = position(&mut snapshot, "").await?;
        self.fresh.fold(live_at).await?;
        compare(&mut self.differences, &mut snapshot, &mut self.new, &mut self.fresh).await?;
        self.comparing = Comparing::Touched;
        snapshot.commit().await.map_err(failed("read the live tables"))
    }

    /// Folds the log up to its end, if no projector is running.
    async fn fold_to_the_end(&mut self) -> Result<(), Error> {
        let last = self.fresh.last().await?;
        let live_at = position(&mut self.live, "").await?;
        if live_at == self.fresh.at && last > live_at + SHORT {
            self.comparing = Comparing::Over;
            self.fresh.touched = None;
            self.fresh.fold(last).await?;
        }
        Ok(())
    }

    /// Tries to swap until it succeeds.
    async fn swap_with_retries(&mut self) -> Result<(), Error> {
        let begun = Instant::now();
        let mut patience = SWAP_PATIENCE.0;
        loop {
            self.catch_up().await?;
            self.compare().await?;
            match self.swap(patience).await? {
                Swap::Done => return Ok(()),
                Swap::Behind | Swap::InUse if begun.elapsed() > SWAP_MAX => {
                    return Err(Error::InUse {
                        seconds: begun.elapsed().as_secs(),
                    });
                }
                Swap::Behind => {}
                Swap::InUse => {
                    sleep(patience * 2).await;
                    patience = (patience * 2).min(SWAP_PATIENCE.1);
                }
            }
        }
    }

    /// Locks the live tables, folds and compares the last events, and swaps.
    async fn swap(&mut self, patience: Duration) -> Result<Swap, Error> {
        let mut transaction = self.live.begin().await.map_err(failed("begin the swap"))?;
        if !tables::calm(&mut transaction).await.map_err(failed("lock the tables"))? {
            transaction.rollback().await.map_err(failed("lock the tables"))?;
            return Ok(Swap::InUse);
        }
        let live_at = position(&mut transaction, "FOR UPDATE").await?;
        let since = Instant::now();
        let last = self.fresh.last().await?;
        let swap = if live_at.min(last) > self.fresh.at + SHORT {
            Swap::Behind
        } else {
            self.fresh.fold(live_at.min(last)).await?;
            if live_at == self.fresh.at && self.comparing == Comparing::Touched {
                compare(&mut self.differences, &mut transaction, &mut self.new, &mut self.fresh).await?;
            }
            if tables::swap(&mut transaction, patience, self.fresh.at).await? {
                Swap::Done
            } else {
                Swap::InUse
            }
        };
        let ended = match swap {
            Swap::Done => transaction.commit().await,
            Swap::Behind | Swap::InUse => transaction.rollback().await,
        };
        self.stalled = self.stalled.max(since.elapsed());
        ended.map_err(failed("swap the tables"))?;
        Ok(swap)
    }
}

/// Compares the live tables with the new ones, which are the fold of the same events. Rows that are touched from now on are noted.
async fn compare(
    differences: &mut Differences,
    live: &mut PgConnection,
    new: &mut PgConnection,
    fresh: &mut NewTables,
) -> Result<(), Error> {
    differences
        .compare(live, new, fresh.touched.as_ref())
        .await
        .map_err(failed("compare the tables"))?;
    fresh.touched = Some(Touched::default());
    Ok(())
}

/// The checkpoint of the live tables.
async fn position(live: &mut PgConnection, locking: &str) -> Result<u64, Error> {
    let statement = format!("SELECT sequence FROM projection_checkpoint {locking}");
    let sequence: i64 = sqlx::query_scalar(AssertSqlSafe(statement))
        .fetch_one(live)
        .await
        .map_err(failed("read the checkpoint"))?;
    Ok(sequence.unsigned_abs())
}
