//! The fold: events in, row changes out. Pure: no clock and no I/O.
//!
//! [`Job::evolve`] folds a job's events, here as everywhere; this module only works out which rows that changes. A batch of events
//! changes each row once.

use std::collections::{HashMap, hash_map::Entry};

use bus::{
    batch,
    ids::{Attempt, JobId, WorkerId},
    job::{AttemptEnd, Job, JobEvent, ManifestRef, Recorded},
    log::read::{self, Fact},
    spec::JobSpec,
    worker,
};
use hashlink::LruCache;

use crate::{
    batches::BatchChange,
    rows::{AttemptRow, JobState, NewJob, Skipped, WorkerRow, touches_attempt},
};

/// How many live jobs are remembered between batches, at about 1 KB each; others are read from the tables.
pub(crate) const REMEMBERED: usize = 16_384;

/// A message of the log, decoded.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) sequence: u64,
    pub(crate) subject: String,
    pub(crate) what: What,
}

/// What a message holds.
#[derive(Debug, Clone)]
pub(crate) enum What {
    /// An event of a job.
    Job(Box<Recorded>),
    /// An event of a batch.
    Batch(Box<batch::Recorded>),
    /// An event of a worker.
    Worker(Box<worker::Recorded>),
    /// An event that is not in the tables.
    NotInTables,
    /// A message that this program cannot read, and why.
    Unreadable(String),
}

impl Item {
    pub(crate) fn read(subject: String, sequence: u64, payload: &[u8]) -> Self {
        let what = match read::decode(&subject, sequence, payload) {
            Ok(Some(Fact::Job(recorded))) => What::Job(recorded),
            Ok(Some(Fact::Batch(recorded))) => What::Batch(recorded),
            Ok(Some(Fact::Worker(recorded))) => What::Worker(recorded),
            // Few and small: the API reads them from the log.
            Ok(Some(Fact::Runtimes(_) | Fact::Image(_))) => What::NotInTables,
            Ok(None) => What::Unreadable("its subject is of a kind that this rgrid does not know".to_owned()),
            Err(error) => What::Unreadable(chain(&error)),
        };
        Self { sequence, subject, what }
    }

    /// A message that could not be delivered as it was published.
    pub(crate) fn undeliverable(subject: String, sequence: u64, reason: &str) -> Self {
        let what = What::Unreadable(format!("it could not be delivered: {reason}"));
        Self { sequence, subject, what }
    }

    /// How many output files its manifest lists.
    pub(crate) fn files(&self) -> u64 {
        let What::Job(recorded) = &self.what else { return 0 };
        let JobEvent::Finished(finished) = &recorded.envelope.event else {
            return 0;
        };
        finished.manifest.as_ref().map_or(0, |manifest| manifest.files)
    }
}

/// An error and its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The row changes of a batch of events.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Changes {
    /// The checkpoint after them.
    pub(crate) to: u64,
    /// Jobs to insert.
    pub(crate) new_jobs: Vec<NewJob>,
    /// Jobs to update.
    pub(crate) jobs: Vec<JobState>,
    /// Attempts to insert.
    pub(crate) new_attempts: Vec<AttemptRow>,
    /// Attempts to update.
    pub(crate) attempts: Vec<AttemptRow>,
    /// Changes of batches, in order.
    pub(crate) batches: Vec<BatchChange>,
    /// Workers to insert or update.
    pub(crate) workers: Vec<WorkerRow>,
    /// Committed manifests, whose files become rows too.
    pub(crate) manifests: Vec<Committed>,
    /// Messages that were set aside.
    pub(crate) skipped: Vec<Skipped>,
}

/// A manifest that a job committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) sequence: u64,
    pub(crate) subject: String,
    pub(crate) job: JobId,
    pub(crate) attempt: Attempt,
    pub(crate) manifest: ManifestRef,
}

/// The memory of the fold: jobs that have not ended, and every worker.
#[derive(Debug)]
pub(crate) struct Fold {
    jobs: LruCache<JobId, Job>,
    workers: HashMap<WorkerId, WorkerRow>,
}

/// A job that a batch of events touches.
struct Touched {
    /// The job; nothing if it does not exist.
    job: Option<Job>,
    /// If it was submitted in this batch: its specification, and the sequence.
    submitted: Option<(JobSpec, u64)>,
    /// The last attempt that the tables hold.
    stored: u32,
    /// The first attempt that changed.
    changed_from: Option<u32>,
}

impl Fold {
    /// A fold that continues from tables with these workers, and remembers this many live jobs.
    pub(crate) fn new(workers: impl IntoIterator<Item = WorkerRow>, remembered: usize) -> Self {
        Self {
            jobs: LruCache::new(remembered),
            workers: workers.into_iter().map(|worker| (worker.id.clone(), worker)).collect(),
        }
    }

    /// The jobs of this batch that are not remembered. They are to be looked up in the tables before the batch is applied.
    ///
    /// A job that the batch itself submits counts as new, since looking it up would cost as much as writing it. If it is not new, the
    /// tables reject the second row, and the batch is folded again with `careful`.
    pub(crate) fn unknown(&self, items: &[Item], careful: bool) -> Vec<JobId> {
        let mut seen = std::collections::HashSet::new();
        let mut unknown = Vec::new();
        for item in items {
            let What::Job(recorded) = &item.what else { continue };
            if seen.insert(recorded.job) && !self.jobs.contains_key(&recorded.job) && (careful || !recorded.begins()) {
                unknown.push(recorded.job);
            }
        }
        unknown
    }

    /// Folds a batch, oldest first; `looked_up` holds those of the unknown jobs that exist.
    pub(crate) fn apply(&mut self, items: &[Item], looked_up: Vec<Job>) -> Changes {
        let mut changes = Changes::default();
        let mut touched: HashMap<JobId, Touched> = looked_up.into_iter().map(|job| (job.id, Touched::stored(Some(job)))).collect();
        let mut order = Vec::new();
        let mut workers = Vec::new();
        for item in items {
            changes.to = item.sequence;
            match &item.what {
                What::Job(recorded) => {
                    let touched = match touched.entry(recorded.job) {
                        Entry::Occupied(entry) => entry.into_mut(),
                        Entry::Vacant(entry) => entry.insert(Touched::stored(self.jobs.remove(&recorded.job))),
                    };
                    order.push(recorded.job);
                    changes.manifests.extend(touched.fold(recorded, &item.subject));
                }
                What::Batch(recorded) => {
                    let change = BatchChange::of(recorded);
                    if !change.repeats(&changes.batches) {
                        changes.batches.push(change);
                    }
                }
                What::Worker(recorded) => {
                    if let Some(worker) = WorkerRow::evolve(self.workers.get(&recorded.worker), recorded) {
                        self.workers.insert(recorded.worker.clone(), worker);
                        workers.push(&recorded.worker);
                    }
                }
                What::NotInTables => {}
                What::Unreadable(reason) => changes.skipped.push(Skipped::new(item.sequence, &item.subject, reason)),
            }
        }
        for id in order {
            if let Some(job) = touched.remove(&id).and_then(|touched| touched.emit(&mut changes)) {
                self.jobs.insert(id, job);
            }
        }
        workers.sort_unstable();
        workers.dedup();
        changes.workers = workers.iter().filter_map(|id| self.workers.get(id)).cloned().collect();
        changes
    }
}

impl Touched {
    fn stored(job: Option<Job>) -> Self {
        let stored = job.as_ref().and_then(|job| job.attempts.last()).map_or(0, |last| last.number.0);
        Self {
            job,
            submitted: None,
            stored,
            changed_from: None,
        }
    }

    /// Folds one event, and returns the manifest that it committed, if it did.
    fn fold(&mut self, recorded: &Recorded, subject: &str) -> Option<Committed> {
        let before = self.job.take();
        let (absent, attempts) = (before.is_none(), before.as_ref().map_or(0, |job| job.attempts.len()));
        let live = before.as_ref().and_then(Job::live_attempt).map(|live| live.number);
        let mut after = Job::evolve(before, recorded)?;
        if absent {
            self.submitted = Some((std::mem::replace(&mut after.spec, empty_spec()), recorded.sequence));
        }
        let changed = if after.attempts.len() > attempts {
            after.attempts.last().map(|last| last.number)
        } else {
            live.filter(|_| touches_attempt(&recorded.envelope.event))
        };
        if let Some(Attempt(number)) = changed {
            self.changed_from.get_or_insert(number);
        }
        let committed = live.and_then(|_| committed(&after, recorded, subject));
        self.job = Some(after);
        committed
    }

    /// Adds the rows that changed, and returns the job if it is to be remembered.
    fn emit(self, changes: &mut Changes) -> Option<Job> {
        let mut job = self.job?;
        if let Some((spec, sequence)) = &self.submitted {
            changes.new_jobs.push(NewJob::new(&job, spec, *sequence));
        } else {
            changes.jobs.push(JobState::new(&job));
        }
        if let Some(from) = self.changed_from {
            for attempt in job.attempts.iter().filter(|attempt| attempt.number.0 >= from) {
                let row = AttemptRow::new(job.id, attempt);
                if attempt.number.0 > self.stored {
                    changes.new_attempts.push(row);
                } else {
                    changes.attempts.push(row);
                }
            }
        }
        if job.state().is_end() {
            return None;
        }
        // Later events need only the last attempt.
        let earlier = job.attempts.len().saturating_sub(1);
        job.attempts.drain(..earlier);
        Some(job)
    }
}

/// The manifest that this event committed, if it is the one that ended the job and lists any files.
fn committed(job: &Job, recorded: &Recorded, subject: &str) -> Option<Committed> {
    let last = job.attempts.last()?;
    let AttemptEnd::Finished(finished) = last.end.as_ref()? else {
        return None;
    };
    if finished.retry_after_ms.is_some() {
        return None;
    }
    let manifest = finished.manifest.clone().filter(|manifest| manifest.files > 0)?;
    Some(Committed {
        sequence: recorded.sequence,
        subject: subject.to_owned(),
        job: job.id,
        attempt: last.number,
        manifest,
    })
}

/// The specification of a remembered job: left empty, since the real one is in the tables and never changes.
pub(crate) fn empty_spec() -> JobSpec {
    JobSpec::new(Vec::new())
}

#[cfg(test)]
mod tests;
