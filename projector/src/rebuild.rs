//! The tables made again from the log, beside the live ones; compared with them; and swapped in. Decision 0013 says why so.
//!
//! 1. A schema of its own gets the same tables, without the readers' indexes, and the log is folded into them in large batches, up to
//!    where the live ones are.
//! 2. A snapshot of the live tables says which event they show. The new ones are folded up to the very same, and each row is compared.
//! 3. The indexes are made, and statistics gathered. What is no fold of the log, but a cache, is filled from where it comes from.
//! 4. What happened meanwhile is folded, and the rows that it touched are compared with another snapshot, until little is left.
//! 5. The live checkpoint is locked: a running projector waits. The rest is folded and compared; the old tables go, the new ones take
//!    their place, and the checkpoint's generation is counted up, in one transaction. A running projector notices, forgets what it
//!    remembers, and goes on. Where somebody reads the old tables for too long, the lock is given back, and all of this step tried again.

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
    Config, Error, equipment,
    manifests::Manifests,
    project::Item,
    run::{Projector, lasting},
    source::{self, Mode},
    store::Store,
};

/// Where the new tables are made.
const SCHEMA: &str = "rgrid_rebuild";
/// While more events than this are to be folded, the running projector is not made to wait for them.
const SHORT: u64 = 4_000;
/// How long the live tables are waited for at first and at most: less than the second after which Postgres would end somebody's query
/// as deadlocked. Whoever comes meanwhile waits as well, so twice as long is left to them in between.
const SWAP_PATIENCE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// After how long it is given up.
const SWAP_MAX: Duration = Duration::from_secs(60);

/// What a rebuild came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The sequence that the tables were swapped at: where the old ones were, or the end of the log where no projector moved them on.
    pub sequence: u64,
    /// How many events were folded.
    pub events: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// How long the live tables stood still for it, in seconds: the longest time that a running projector was made to wait.
    pub held_seconds: f64,
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
    let projector = |store, mode| Projector {
        store,
        manifests: Manifests::new(files.clone(), bus.js.clone()),
        js: bus.js.clone(),
        mode,
        stop: CancellationToken::new(),
    };
    let mut connection = connect(&database).await?;
    lock(&mut connection).await?;
    let fresh = fresh(&database, &mut connection).await?;
    let mut rebuild = Rebuild {
        front: Front {
            projector: projector(fresh, Mode::Bulk),
            at: 0,
            touched: None,
        },
        new: connect(&database).await?,
        live: connection,
        differences: Differences::default(),
        comparing: Comparing::Everything,
        held: Duration::ZERO,
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
        Err(error) => match lasting(error, database)? {
            sqlx::migrate::MigrateError::Execute(source) => Err(failed("reach the database")(source)),
            other => Err(failed("make the tables")(sqlx::Error::Migrate(Box::new(other)))),
        },
    }
}

/// The same tables, empty, in their own schema; what an earlier rebuild left there is gone.
async fn fresh(database: &PgConnectOptions, connection: &mut PgConnection) -> Result<Store, Error> {
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
    /// No more: they were compared, and stayed behind what was folded since.
    Over,
}

/// The new tables, which are folded into.
#[derive(Debug)]
struct Front {
    projector: Projector,
    /// How far they are.
    at: u64,
    /// What was touched since the last comparison, where that is to be known.
    touched: Option<Touched>,
}

impl Front {
    /// Folds up to this event, where they are not there.
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

    /// Where the log ends.
    async fn last(&self) -> Result<u64, Error> {
        Ok(source::bounds(&self.projector.js).await?.1)
    }
}

/// A rebuild under way.
#[derive(Debug)]
struct Rebuild {
    front: Front,
    /// Reads the live tables, and swaps. It holds the lock of rebuilds.
    live: PgConnection,
    /// Reads the new tables, and makes their indexes.
    new: PgConnection,
    differences: Differences,
    comparing: Comparing,
    /// The longest time that the live tables stood still.
    held: Duration,
}

/// What became of a try to swap.
enum Swap {
    /// It is done.
    Done,
    /// Too much was to be folded.
    Behind,
    /// Somebody read the live tables all the time.
    InUse,
}

impl Rebuild {
    /// Folds, compares and swaps.
    async fn replace(&mut self) -> Result<Report, Error> {
        let indexes = tables::without_indexes(&mut self.new).await.map_err(failed("make the tables"))?;
        self.follow().await?;
        self.compare().await?;
        self.go_beyond().await?;
        tables::finish(&mut self.new, indexes).await.map_err(failed("make the indexes"))?;
        let Projector { js, store, .. } = &self.front.projector;
        equipment::fill(js, store).await;
        self.insist().await?;
        info!("swapped the rebuilt tables in at sequence {}", self.front.at);
        let comparable = self.comparing != Comparing::Never;
        let counted = self.differences.counts().map(|(name, differing)| Table {
            name: name.to_owned(),
            rows: 0,
            differing: comparable.then_some(differing),
        });
        Ok(Report {
            sequence: self.front.at,
            events: 0,
            seconds: 0.0,
            held_seconds: self.held.as_secs_f64(),
            tables: counted.collect(),
        })
    }

    /// Folds on until the live tables are little ahead, if at all.
    async fn follow(&mut self) -> Result<(), Error> {
        loop {
            // In this order: what the live tables hold was in the log before.
            let there = position(&mut self.live, "").await?;
            let last = self.front.last().await?;
            if there > last {
                self.comparing = Comparing::Never;
                return self.front.fold(last).await;
            }
            if there <= self.front.at + SHORT {
                return Ok(());
            }
            self.front.fold(there).await?;
        }
    }

    /// Compares what is to be compared, with a snapshot of the live tables: nobody is held up.
    async fn compare(&mut self) -> Result<(), Error> {
        if matches!(self.comparing, Comparing::Never | Comparing::Over) {
            return Ok(());
        }
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        let mut snapshot = self.live.begin_with(begin).await.map_err(failed("read the live tables"))?;
        let there = position(&mut snapshot, "").await?;
        self.front.fold(there).await?;
        compare(&mut self.differences, &mut snapshot, &mut self.new, &mut self.front).await?;
        self.comparing = Comparing::Touched;
        snapshot.commit().await.map_err(failed("read the live tables"))
    }

    /// Folds the log up to its end, where no projector moves the live tables on.
    async fn go_beyond(&mut self) -> Result<(), Error> {
        let last = self.front.last().await?;
        let there = position(&mut self.live, "").await?;
        if there == self.front.at && last > there + SHORT {
            self.comparing = Comparing::Over;
            self.front.touched = None;
            self.front.fold(last).await?;
        }
        Ok(())
    }

    /// Tries to swap until it is done.
    async fn insist(&mut self) -> Result<(), Error> {
        let begun = Instant::now();
        let mut patience = SWAP_PATIENCE.0;
        loop {
            self.follow().await?;
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

    /// Holds the live tables still, folds and compares the rest, and swaps.
    async fn swap(&mut self, patience: Duration) -> Result<Swap, Error> {
        let mut transaction = self.live.begin().await.map_err(failed("begin the swap"))?;
        if !tables::calm(&mut transaction).await.map_err(failed("lock the tables"))? {
            transaction.rollback().await.map_err(failed("lock the tables"))?;
            return Ok(Swap::InUse);
        }
        let there = position(&mut transaction, "FOR UPDATE").await?;
        let since = Instant::now();
        let last = self.front.last().await?;
        let swap = if there.min(last) > self.front.at + SHORT {
            Swap::Behind
        } else {
            self.front.fold(there.min(last)).await?;
            if there == self.front.at && self.comparing == Comparing::Touched {
                compare(&mut self.differences, &mut transaction, &mut self.new, &mut self.front).await?;
            }
            if tables::swap(&mut transaction, patience, self.front.at).await? {
                Swap::Done
            } else {
                Swap::InUse
            }
        };
        let ended = match swap {
            Swap::Done => transaction.commit().await,
            Swap::Behind | Swap::InUse => transaction.rollback().await,
        };
        self.held = self.held.max(since.elapsed());
        ended.map_err(failed("swap the tables"))?;
        Ok(swap)
    }
}

/// Compares the live tables with the new ones, which are the fold of the same events; what is touched from now on is noted.
async fn compare(differences: &mut Differences, live: &mut PgConnection, new: &mut PgConnection, front: &mut Front) -> Result<(), Error> {
    differences
        .compare(live, new, front.touched.as_ref())
        .await
        .map_err(failed("compare the tables"))?;
    front.touched = Some(Touched::default());
    Ok(())
}

/// How far the live tables are.
async fn position(live: &mut PgConnection, locking: &str) -> Result<u64, Error> {
    let statement = format!("SELECT sequence FROM projection_checkpoint {locking}");
    let sequence: i64 = sqlx::query_scalar(AssertSqlSafe(statement))
        .fetch_one(live)
        .await
        .map_err(failed("read the checkpoint"))?;
    Ok(sequence.unsigned_abs())
}
