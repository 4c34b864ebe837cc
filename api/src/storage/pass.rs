//! A storage pass: marks unused contents, and removes those that were marked for long enough.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use bus::ids::Digest;
use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use model::{GcReport, HeldBy, RemovalSchedule};
use store::{
    Files, Removed,
    marks::{LIFE, Lease, MARGIN, Marks, REMOVING, due},
};
use tracing::{info, warn};

use super::{
    Error, StorageConfig,
    reading::Source,
    retention::Moment,
    survey::{Survey, Unused, survey},
};
use crate::{error::chain, key::Key, queries::Tables};

/// Contents that are marked as being deleted together.
const BATCH: usize = 64;
/// Contents that are removed at the same time.
const AT_ONCE: usize = 8;
/// How often a pass renews its lease.
const RENEW_EVERY: Duration = Duration::from_secs(30);
/// Shards that are read at the same time.
const SHARDS_IN_FLIGHT: usize = 16;
/// How long Postgres may take to answer.
const TABLES_MAX: Duration = Duration::from_secs(3);
/// The most removed contents that a report names.
const NAMED_MAX: usize = 100;

/// What a storage pass or a survey needs.
#[derive(Clone, Copy)]
pub(super) struct StoragePass<'a> {
    pub(super) js: &'a async_nats::jetstream::Context,
    pub(super) files: &'a Files,
    pub(super) marks: &'a Marks,
    pub(super) tables: &'a Tables,
    pub(super) key: Key,
    /// Held during a survey.
    pub(super) surveying: &'a tokio::sync::Mutex<()>,
    pub(super) storage_config: StorageConfig,
    /// The configured settings, from which a request may differ.
    pub(super) usual: StorageConfig,
}

impl StoragePass<'_> {
    /// Runs a pass, and returns its report, also if it stopped early.
    ///
    /// # Errors
    /// Another pass is running, or the marks do not answer.
    pub(super) async fn run(&self) -> Result<GcReport, Error> {
        let clock = Instant::now();
        let mut lease = self.marks.begin().await?.map_err(Error::Busy)?;
        let mut report = blank(&self.storage_config, lease.started);
        report.pass = Some(lease.pass);
        if let Err(error) = self.remove(&mut lease, &mut report).await {
            report.stopped = Some(chain(&error));
        }
        report.took_ms = millis(clock.elapsed());
        lease.end(&report).await?;
        log_report(&report);
        Ok(report)
    }

    /// Reports what a pass would do.
    ///
    /// # Errors
    /// The log, a list, the store or the marks cannot be read.
    pub(super) async fn dry_run(&self) -> Result<GcReport, Error> {
        let clock = Instant::now();
        let mut report = blank(&self.storage_config, Utc::now());
        report.dry_run = true;
        let seen = self.seen().await?;
        let found = self.survey(report.started_at, seen).await?;
        let limit = self.limit(&found, &mut report);
        let (removal, contents) = self.removal_schedule(&found, limit).await?;
        (report.removed, report.found, report.next) = (removal.due, removal.found_next, removal.first);
        report.contents = contents;
        report.took_ms = millis(clock.elapsed());
        Ok(report)
    }

    async fn remove(&self, lease: &mut Lease, report: &mut GcReport) -> Result<(), Error> {
        let seen = lease.seen.max(self.tables_seen().await);
        let mut found = self.survey(lease.started, seen).await?;
        lease.seen = found.last;
        if !lease.renew().await? {
            return Err(Error::Overtaken);
        }
        let limit = self.limit(&found, report);
        for name in &found.forgotten {
            self.files.discard(name).await?;
        }
        let mut renewed = Instant::now();
        for shard in 0..=u8::MAX {
            let mut unused = found.unused.remove(&shard).unwrap_or_default();
            let (marked, _) = self.marks.read(shard).await?;
            if unused.is_empty() && marked.is_empty() {
                continue;
            }
            for (_, one) in unused.iter().filter(|(digest, _)| !marked.contains(digest)) {
                report.found.add(one.size);
            }
            let digests: HashSet<Digest> = unused.keys().copied().collect();
            loop {
                if renewed.elapsed() > RENEW_EVERY {
                    if !lease.renew().await? {
                        return Err(Error::Overtaken);
                    }
                    renewed = Instant::now();
                }
                if !self.remove_batch(lease, (shard, &digests), limit, &mut unused, report).await? {
                    break;
                }
            }
            found.unused.insert(shard, unused);
            self.note_next(shard, limit, report).await?;
        }
        found.all = found.all.less(report.removed);
        found.uses.unused = found.uses.unused.less(report.removed);
        // `GET /v1/storage` shows the survey with the configured settings.
        if self.storage_config.retention == self.usual.retention {
            let usual = Self {
                storage_config: self.usual,
                ..*self
            };
            usual.note(&found, lease.started).await?;
        }
        Ok(())
    }

    /// Surveys the store, one survey at a time.
    async fn survey(&self, now: DateTime<Utc>, seen: u64) -> Result<Survey, Error> {
        let _alone = self.surveying.lock().await;
        self.survey_alone(now, seen).await
    }

    /// The same, for a caller that holds `surveying`.
    pub(super) async fn survey_alone(&self, now: DateTime<Utc>, seen: u64) -> Result<Survey, Error> {
        let retention = self.storage_config.retention;
        let source = Source {
            js: self.js,
            files: self.files,
            key: self.key,
            at: Moment { retention, now },
            seen,
            remembered: retention.inputs.max(self.usual.retention.inputs),
        };
        survey(&source).await
    }

    /// The last sequence of the log that was ever seen: events are missing from a log that ends before it.
    pub(super) async fn seen(&self) -> Result<u64, Error> {
        Ok(self.marks.log_seen().await?.max(self.tables_seen().await))
    }

    /// The same, according to the tables; 0 where Postgres does not answer.
    async fn tables_seen(&self) -> u64 {
        if !self.tables.is_configured() {
            return 0;
        }
        let sequence = tokio::time::timeout(TABLES_MAX, self.tables.sequence()).await;
        sequence.ok().and_then(Result::ok).unwrap_or(0)
    }

    /// Removes a batch of a shard's contents that are due; returns whether there were any.
    async fn remove_batch(
        &self,
        lease: &Lease,
        (shard, digests): (u8, &HashSet<Digest>),
        limit: DateTime<Utc>,
        unused: &mut HashMap<Digest, Unused>,
        report: &mut GcReport,
    ) -> Result<bool, Error> {
        let (clock, time) = (Instant::now(), Utc::now());
        let taken = self.marks.amend(shard, |marks| {
            marks.align(digests);
            marks.take(lease.pass, limit, time - LIFE, BATCH)
        });
        let taken = taken.await?;
        if taken.is_empty() {
            return Ok(false);
        }
        let patience = TimeDelta::from_std(REMOVING).unwrap_or(TimeDelta::zero());
        let of = &*unused;
        let removed: Vec<Digest> = stream::iter(taken.clone())
            .map(|digest| async move {
                // By both clocks: the monotonic one stands still while the machine sleeps.
                if clock.elapsed() >= REMOVING || Utc::now() - time >= patience {
                    return Err(Error::Overtaken);
                }
                let tag = of.get(&digest).and_then(|unused| unused.tag.as_deref());
                let gone = self.files.remove(&digest, tag).await? == Removed::Gone;
                Ok(gone.then_some(digest))
            })
            .buffer_unordered(AT_ONCE)
            .try_filter_map(|removed| std::future::ready(Ok(removed)))
            .try_collect()
            .await?;
        for digest in &removed {
            report.removed.add(unused.remove(digest).map_or(0, |unused| unused.size));
            if report.contents.len() < NAMED_MAX {
                report.contents.push(*digest);
            }
        }
        self.marks.amend(shard, |marks| marks.deleted(lease.pass, &taken)).await?;
        Ok(true)
    }

    /// Adds to the report when the next content of a shard may be removed.
    async fn note_next(&self, shard: u8, limit: DateTime<Utc>, report: &mut GcReport) -> Result<(), Error> {
        let (marks, _) = self.marks.read(shard).await?;
        let first = marks.unused().map(|(_, since)| since).filter(|since| *since > limit).min();
        if let Some(goes) = first.and_then(|since| since.checked_add_signed(self.span())) {
            report.next = Some(report.next.map_or(goes, |next| next.min(goes)));
        }
        Ok(())
    }

    /// How much is due, waits, or is not marked yet; and the first contents that are due.
    pub(super) async fn removal_schedule(&self, found: &Survey, limit: DateTime<Utc>) -> Result<(RemovalSchedule, Vec<Digest>), Error> {
        let (mut removal, mut contents) = (RemovalSchedule::default(), Vec::new());
        let numbers: Vec<u8> = found.unused.keys().copied().collect();
        let mut shards = stream::iter(numbers)
            .map(|shard| async move { Ok::<_, Error>((self.marks.read(shard).await?.0, shard)) })
            .buffered(SHARDS_IN_FLIGHT);
        while let Some((marks, shard)) = shards.try_next().await? {
            let Some(unused) = found.unused.get(&shard) else { continue };
            let since: HashMap<Digest, DateTime<Utc>> = marks.unused().collect();
            for (digest, one) in unused {
                let Some(since) = since.get(digest) else {
                    removal.found_next.add(one.size);
                    continue;
                };
                if *since <= limit {
                    removal.due.add(one.size);
                    if contents.len() < NAMED_MAX {
                        contents.push(*digest);
                    }
                    continue;
                }
                removal.waiting.add(one.size);
                if let Some(goes) = since.checked_add_signed(self.span()) {
                    removal.first = Some(removal.first.map_or(goes, |first| first.min(goes)));
                    removal.last = Some(removal.last.map_or(goes, |last| last.max(goes)));
                }
            }
        }
        Ok((removal, contents))
    }

    /// Contents that were marked before the returned time may be removed.
    fn limit(&self, found: &Survey, report: &mut GcReport) -> DateTime<Utc> {
        (report.events, report.read) = (found.events, found.read);
        (report.all, report.unused) = (found.all, found.uses.unused);
        report.packages = found.forgotten.len() as u64;
        report.lost.clone_from(&found.lost);
        report.held_by = found.oldest_claim.map(|(job, claimed_at)| HeldBy { job, claimed_at });
        self.limit_at(found, report.started_at)
    }

    pub(super) fn limit_at(&self, found: &Survey, started: DateTime<Utc>) -> DateTime<Utc> {
        due(started, found.oldest_claim.map(|(_, claimed)| claimed), self.storage_config.grace)
    }

    fn span(&self) -> TimeDelta {
        TimeDelta::from_std(self.storage_config.grace.saturating_add(MARGIN)).unwrap_or(TimeDelta::MAX)
    }
}

fn blank(storage_config: &StorageConfig, started_at: DateTime<Utc>) -> GcReport {
    GcReport {
        pass: None,
        started_at,
        took_ms: 0,
        dry_run: false,
        grace_ms: millis(storage_config.grace),
        events: 0,
        read: 0,
        all: Default::default(),
        unused: Default::default(),
        found: Default::default(),
        removed: Default::default(),
        packages: 0,
        lost: Vec::new(),
        contents: Vec::new(),
        next: None,
        held_by: None,
        stopped: None,
    }
}

fn log_report(report: &GcReport) {
    let (files, bytes) = (report.removed.files, report.removed.bytes);
    if let Some(why) = &report.stopped {
        warn!("the storage pass stopped after removing {files} files: {why}");
        return;
    }
    info!(
        storage.events = report.events,
        storage.read = report.read,
        storage.files = report.all.files,
        storage.bytes = report.all.bytes,
        storage.unused_files = report.unused.files,
        storage.unused_bytes = report.unused.bytes,
        storage.found_files = report.found.files,
        storage.removed_files = files,
        storage.removed_bytes = bytes,
        storage.took_ms = report.took_ms,
        "removed {files} unused files ({bytes} bytes); {} more are unused",
        report.unused.files.saturating_sub(files)
    );
}

/// Whole milliseconds.
pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
