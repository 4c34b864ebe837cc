//! The projector's loop: gather, fold, write; and go on from the checkpoint after whatever went wrong.

use std::time::{Duration, Instant};

use async_nats::jetstream;
use sqlx::{migrate::MigrateError, postgres::PgConnectOptions};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use crate::{
    Config, Error, equipment, heartbeats,
    manifests::Manifests,
    project::{Changes, Fold, Item, REMEMBERED, chain},
    rows::Skipped,
    source::{self, Mode, Source, pause, pauses},
    store::{self, Checkpoint, Store},
};

/// How long a transaction that is under way may take when the projector is to stop.
const GRACE: Duration = Duration::from_secs(3);
/// Live jobs that a rebuild remembers between batches, instead of asking the tables.
const REMEMBERED_IN_BULK: usize = 131_072;

/// Projects until it is told to stop. Outages of NATS, Postgres and the file store are waited out.
///
/// # Errors
/// What the operator must change: see [`Error`].
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
    tasks.spawn(equipment::keep(bus.js.clone(), store.clone(), stop_caches.clone()));
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

/// Makes the tables, however long Postgres takes to be there; false where the projector is to stop meanwhile.
async fn prepare(store: &Store, database: &PgConnectOptions, stop: &CancellationToken) -> Result<bool, Error> {
    let (mut pauses, mut told) = (pauses(), false);
    loop {
        let Some(migrated) = stop.run_until_cancelled(store.migrate()).await else {
            return Ok(false);
        };
        match migrated {
            Ok(()) => return Ok(true),
            Err(error) => match lasting(error, database) {
                Err(error) => return Err(error),
                Ok(passing) => {
                    if !std::mem::replace(&mut told, true) {
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

/// Tells what the operator must change, as an error, from what passes.
pub(crate) fn lasting(error: MigrateError, database: &PgConnectOptions) -> Result<MigrateError, Error> {
    let shown = format!(
        "{} at {}:{}",
        database.get_database().unwrap_or("(the user's own)"),
        database.get_host(),
        database.get_port()
    );
    let source = match error {
        MigrateError::Execute(source) => source,
        // The connection broke half-way, and with it the migration's transaction.
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

/// Is shown each batch before it is folded, and again where that failed.
pub(crate) type Seen<'a> = dyn FnMut(&[Item]) + Send + 'a;

impl Projector {
    /// Projects until it is told to stop, or until the tables hold the event at `until`, where one is given.
    pub(crate) async fn until(&self, until: Option<u64>, seen: &mut Seen<'_>) -> Result<(), Error> {
        let (mut pauses, mut told) = (pauses(), None);
        self.of_this_log().await?;
        loop {
            let mut wrote = 0;
            let grace = if told.is_none() { GRACE } else { Duration::ZERO };
            let ended = tokio::select! {
                ended = self.session(until, seen, &mut wrote, &mut told) => ended,
                () = self.stopped_for(grace) => return Ok(()),
            };
            if wrote > 0 {
                pauses = self::pauses();
            }
            match ended {
                Ok(()) => return Ok(()),
                Err(error @ store::Error::Overtaken { .. }) => info!("{error}: another projector, or a rebuild; going on from there"),
                Err(error) => {
                    if told.is_none() {
                        warn!("projection waits: {}", chain(&error));
                        told = Some(Instant::now());
                    }
                }
            }
            if !pause(&mut pauses, &self.stop).await {
                return Ok(());
            }
        }
    }

    /// That the tables belong to this log. What cannot be asked now is asked again by the first batch.
    async fn of_this_log(&self) -> Result<(), Error> {
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

    /// Projects from the checkpoint on, until something fails; then nothing of what is remembered counts any more.
    async fn session(
        &self,
        until: Option<u64>,
        seen: &mut Seen<'_>,
        wrote: &mut u64,
        told: &mut Option<Instant>,
    ) -> Result<(), store::Error> {
        let mut at = self.store.checkpoint().await?;
        let mut source = Source::new(&self.js, at.sequence, until, self.mode);
        if let (Mode::Bulk, Some(until)) = (self.mode, until) {
            return self.bulk(&mut source, at, until, seen).await;
        }
        let mut fold = self.fold().await?;
        while until.is_none_or(|until| at.sequence < until) {
            let Some(items) = self.stop.run_until_cancelled(source.batch()).await else {
                return Ok(());
            };
            if items.is_empty() {
                return Ok(());
            }
            seen(&items);
            let begun = Instant::now();
            at = self.project(&mut fold, at, &items).await?;
            let took = begun.elapsed();
            source.written(took);
            *wrote += 1;
            if let Some(since) = told.take() {
                info!("projection goes on after {:.1} s", since.elapsed().as_secs_f32());
            }
            debug!("projected {} events to sequence {} in {took:?}", items.len(), at.sequence);
        }
        Ok(())
    }

    /// The same for a log that is there up to `until`: the next batch is read while one is written.
    async fn bulk(&self, source: &mut Source, mut at: Checkpoint, until: u64, seen: &mut Seen<'_>) -> Result<(), store::Error> {
        let mut fold = self.fold().await?;
        let mut next = Vec::new();
        while at.sequence < until {
            if next.is_empty() {
                next = source.bulk(until).await;
            }
            let items = std::mem::take(&mut next);
            // The log holds nothing more up to there.
            if items.is_empty() {
                return Ok(());
            }
            seen(&items);
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

    /// Folds a batch and writes it. Where the database refuses that, event by event, leaving out what it will never take.
    async fn project(&self, fold: &mut Fold, at: Checkpoint, items: &[Item]) -> Result<Checkpoint, store::Error> {
        match self.write(fold, at, items, false).await {
            Err(store::Error::Exists(_)) => {
                *fold = self.fold().await?;
                match self.write(fold, at, items, true).await {
                    Err(store::Error::Exists(_) | store::Error::Refused(_)) => self.one_by_one(fold, at, items).await,
                    written => written,
                }
            }
            Err(store::Error::Refused(_)) => self.one_by_one(fold, at, items).await,
            written => written,
        }
    }

    async fn one_by_one(&self, fold: &mut Fold, mut at: Checkpoint, items: &[Item]) -> Result<Checkpoint, store::Error> {
        *fold = self.fold().await?;
        for item in items {
            at = match self.write(fold, at, std::slice::from_ref(item), true).await {
                Err(error @ (store::Error::Exists(_) | store::Error::Refused(_))) => {
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

/// Says what was set aside; the rest is in the table.
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
