//! The projector's loop: read, fold, write; and continue from the checkpoint after a failure.

use std::time::{Duration, Instant};

use async_nats::jetstream;
use sqlx::{migrate::MigrateError, postgres::PgConnectOptions};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use crate::{
    Config, Error, heartbeats, inventory,
    manifests::Manifests,
    project::{Changes, Fold, Item, REMEMBERED, chain},
    rows::Skipped,
    source::{self, Mode, Source, pause, pauses},
    store::{self, Checkpoint, Store},
};

/// How long a transaction under way may take when the projector stops.
const GRACE: Duration = Duration::from_secs(3);
/// How many live jobs a rebuild remembers between batches; others are read from the tables.
const REMEMBERED_IN_BULK: usize = 131_072;

/// Runs a projector until it is stopped. It waits out every outage of NATS, Postgres and the file store.
///
/// # Errors
/// Only if an operator must change something; see [`Error`].
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), Error> {
    let (files, database) = (config.files()?, config.database()?);
    let Some(bus) = source::connect(&config, &stop).await? else {
        return Ok(());
    };
    let store = Store::new(&database, None);
    if !prepare(&store, &database, &stop).await? {
        return Ok(());
    }
    let tasks = TaskTracker::new();
    let stop_caches = stop.child_token();
    tasks.spawn(heartbeats::keep(bus.js.clone(), store.clone(), stop_caches.clone()));
    tasks.spawn(inventory::keep(bus.js.clone(), store.clone(), stop_caches.clone()));
    let projector = Projector {
        store,
        manifests: Manifests::new(files, bus.js.clone()),
        js: bus.js,
        mode: Mode::Live,
        stop,
    };
    let result = projector.until(None, &mut |_| {}).await;
    stop_caches.cancel();
    tasks.close();
    tasks.wait().await;
    result
}

/// Creates the tables, and waits until Postgres is up; returns false if the projector is stopped meanwhile.
async fn prepare(store: &Store, database: &PgConnectOptions, stop: &CancellationToken) -> Result<bool, Error> {
    let (mut pauses, mut warned) = (pauses(), false);
    loop {
        let Some(migrated) = stop.run_until_cancelled(store.migrate()).await else {
            return Ok(false);
        };
        match migrated {
            Ok(()) => return Ok(true),
            Err(error) => match permanent(error, database) {
                Err(error) => return Err(error),
                Ok(passing) => {
                    if !std::mem::replace(&mut warned, true) {
                        warn!("waiting for Postgres: {}", chain(&passing));
                    }
                }
            },
        }
        if !pause(&mut pauses, stop).await {
            return Ok(false);
        }
    }
}

/// Distinguishes errors that an operator must resolve, which are returned as an error, from those that may pass.
pub(crate) fn permanent(error: MigrateError, database: &PgConnectOptions) -> Result<MigrateError, Error> {
    let shown = format!(
        "{} at {}:{}",
        database.get_database().unwrap_or("(the user's own)"),
        database.get_host(),
        database.get_port()
    );
    let source = match error {
        MigrateError::Execute(source) => source,
        // The connection broke during the migration, whose transaction is rolled back.
        MigrateError::ExecuteMigration(source, _) if source.as_database_error().is_none() => source,
        other => {
            let source = Box::new(other);
            return Err(Error::Migrate { database: shown, source });
        }
    };
    // SQLSTATE: 28 no such user or password, 3D no such database, 42 not allowed.
    let code = source.as_database_error().and_then(|answer| answer.code()).unwrap_or_default();
    if code.starts_with("28") || code.starts_with("3D") || code.starts_with("42") {
        return Err(Error::Denied { database: shown, source });
    }
    Ok(MigrateError::Execute(source))
}

/// Folds a log into tables.
#[derive(Debug)]
pub(crate) struct Projector {
    pub(crate) store: Store,
    pub(crate) manifests: Manifests,
    pub(crate) js: jetstream::Context,
    pub(crate) mode: Mode,
    pub(crate) stop: CancellationToken,
}

/// Receives each batch before it is folded, and again if that failed.
pub(crate) type Observer<'a> = dyn FnMut(&[Item]) + Send + 'a;

impl Projector {
    /// Runs until it is stopped, or until the tables hold the event at `until`, if given.
    pub(crate) async fn until(&self, until: Option<u64>, observer: &mut Observer<'_>) -> Result<(), Error> {
        let (mut pauses, mut waiting_since) = (pauses(), None);
        self.check_log().await?;
        loop {
            let mut wrote = 0;
            let grace = if waiting_since.is_none() { GRACE } else { Duration::ZERO };
            let ended = tokio::select! {
                ended = self.until_failure(until, observer, &mut wrote, &mut waiting_since) => ended,
                () = self.stopped_for(grace) => return Ok(()),
            };
            if wrote > 0 {
                pauses = self::pauses();
            }
            match ended {
                Ok(()) => return Ok(()),
                Err(error @ store::Error::Overtaken { .. }) => info!("{error}: another projector, or a rebuild; continuing from there"),
                Err(error) => {
                    if waiting_since.is_none() {
                        warn!("projection waits: {}", chain(&error));
                        waiting_since = Some(Instant::now());
                    }
                }
            }
            if !pause(&mut pauses, &self.stop).await {
                return Ok(());
            }
        }
    }

    /// Checks that the tables belong to this log. If that cannot be known now, the first batch shows it.
    async fn check_log(&self) -> Result<(), Error> {
        let (Ok(at), Ok((_, last))) = (self.store.checkpoint().await, source::bounds(&self.js).await) else {
            return Ok(());
        };
        if at.sequence > last {
            return Err(Error::AnotherLog {
                checkpoint: at.sequence,
                last,
            });
        }
        Ok(())
    }

    /// Projects from the checkpoint on, until a failure; the fold's memory is dropped then.
    async fn until_failure(
        &self,
        until: Option<u64>,
        observer: &mut Observer<'_>,
        wrote: &mut u64,
        waiting_since: &mut Option<Instant>,
    ) -> Result<(), store::Error> {
        let mut at = self.store.checkpoint().await?;
        let mut source = Source::new(&self.js, at.sequence, until, self.mode);
        if let (Mode::Bulk, Some(until)) = (self.mode, until) {
            return self.bulk(&mut source, at, until, observer).await;
        }
        let mut fold = self.fold().await?;
        while until.is_none_or(|until| at.sequence < until) {
            let Some(items) = self.stop.run_until_cancelled(source.batch()).await else {
                return Ok(());
            };
            if items.is_empty() {
                return Ok(());
            }
            observer(&items);
            let begun = Instant::now();
            at = self.project(&mut fold, at, &items).await?;
            let took = begun.elapsed();
            source.written(took);
            *wrote += 1;
            if let Some(since) = waiting_since.take() {
                info!("projection continues after {:.1} s", since.elapsed().as_secs_f32());
            }
            debug!("projected {} events to sequence {} in {took:?}", items.len(), at.sequence);
        }
        Ok(())
    }

    /// The same for events that are in the log already, up to `until`: the next batch is read while one is written.
    async fn bulk(&self, source: &mut Source, mut at: Checkpoint, until: u64, observer: &mut Observer<'_>) -> Result<(), store::Error> {
        let mut fold = self.fold().await?;
        let mut next = Vec::new();
        while at.sequence < until {
            if next.is_empty() {
                next = source.bulk(until).await;
            }
            let items = std::mem::take(&mut next);
            // The log holds no more events up to there.
            if items.is_empty() {
                return Ok(());
            }
            observer(&items);
            let reads_on = items.last().is_some_and(|last| last.sequence < until);
            let ahead = async { Ok(if reads_on { source.bulk(until).await } else { Vec::new() }) };
            (at, next) = tokio::try_join!(self.project(&mut fold, at, &items), ahead)?;
            debug!("projected {} events to sequence {}", items.len(), at.sequence);
        }
        Ok(())
    }

    async fn stopped_for(&self, grace: Duration) {
        self.stop.cancelled().await;
        tokio::time::sleep(grace).await;
    }

    async fn fold(&self) -> Result<Fold, store::Error> {
        let remembered = match self.mode {
            Mode::Live => REMEMBERED,
            Mode::Bulk => REMEMBERED_IN_BULK,
        };
        Ok(Fold::new(self.store.workers().await?, remembered))
    }

    /// Folds a batch and writes it. If the database rejects it, folds and writes event by event, and leaves out what it rejects.
    async fn project(&self, fold: &mut Fold, at: Checkpoint, items: &[Item]) -> Result<Checkpoint, store::Error> {
        match self.write(fold, at, items, false).await {
            Err(store::Error::Exists(_)) => {
                *fold = self.fold().await?;
                match self.write(fold, at, items, true).await {
                    Err(store::Error::Exists(_) | store::Error::Rejected(_)) => self.one_by_one(fold, at, items).await,
                    written => written,
                }
            }
            Err(store::Error::Rejected(_)) => self.one_by_one(fold, at, items).await,
            written => written,
        }
    }

    async fn one_by_one(&self, fold: &mut Fold, mut at: Checkpoint, items: &[Item]) -> Result<Checkpoint, store::Error> {
        *fold = self.fold().await?;
        for item in items {
            at = match self.write(fold, at, std::slice::from_ref(item), true).await {
                Err(error @ (store::Error::Exists(_) | store::Error::Rejected(_))) => {
                    *fold = self.fold().await?;
                    let changes = Changes {
                        to: item.sequence,
                        skipped: vec![Skipped::new(item.sequence, &item.subject, &chain(&error))],
                        ..Changes::default()
                    };
                    report(&changes.skipped);
                    self.store.write(at, &changes, &[]).await?
                }
                written => written?,
            };
        }
        Ok(at)
    }

    async fn write(&self, fold: &mut Fold, at: Checkpoint, items: &[Item], careful: bool) -> Result<Checkpoint, store::Error> {
        let looked_up = self.store.jobs(&fold.unknown(items, careful)).await?;
        let mut changes = fold.apply(items, looked_up);
        let (artifacts, skipped) = self.manifests.rows(&changes.manifests).await;
        changes.skipped.extend(skipped);
        let at = self.store.write(at, &changes, &artifacts).await?;
        report(&changes.skipped);
        Ok(at)
    }
}

/// Logs that messages were set aside; the table holds all of them.
fn report(skipped: &[Skipped]) {
    if let Some(first) = skipped.first() {
        warn!(
            "set {} of the log's messages aside (table projection_skipped); the first at sequence {} on {}: {}",
            skipped.len(),
            first.sequence,
            first.subject,
            first.reason
        );
    }
}
