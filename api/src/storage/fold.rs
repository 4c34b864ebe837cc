//! Who names which content, as the log tells it. Pure.
//!
//! Names are taken from the events as they are written, wherever in them they stand: 64 hexadecimal digits. So a later version's job,
//! an event that cannot be read, or another kind of event keeps its contents too; at worst something is kept that nobody needs.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use bus::{
    ids::{BatchId, Digest, JobId},
    job::{Job, JobEvent, Phase, Recorded},
    spec::JobSpec,
    stream::read::{Fact, decode},
};
use chrono::{DateTime, TimeDelta, Utc};

/// The length of a SHA-256 in hexadecimal digits.
const DIGITS: usize = 64;

/// How long what jobs name is kept after they have ended, and what is kept for them besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeping {
    /// Their inputs, so that they can be run again.
    pub inputs: Duration,
    /// Their outputs, where they do not say themselves; nothing: for ever.
    pub outputs: Option<Duration>,
    /// Installed packages, after their last use.
    pub packages: Duration,
    /// Whether what a list of outputs named is given up with it, where that is lost for good; else nothing is removed until it is there again.
    pub despite_lost: bool,
}

impl Keeping {
    /// How long inputs are kept unless another time is given: 30 days.
    pub const INPUTS: Duration = Duration::from_secs(30 * 24 * 3600);
    /// How long unused packages are kept unless another time is given: 90 days.
    pub const PACKAGES: Duration = Duration::from_secs(90 * 24 * 3600);

    /// When the outputs of a job of this spec expire that ended at `ended`; nothing: never.
    pub(crate) fn outputs_until(&self, spec: &JobSpec, ended: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let span = spec.keep_outputs_ms.map(Duration::from_millis).or(self.outputs)?;
        later(ended, span)
    }

    /// Whether packages that were used last at `used` are to be forgotten: whoever needs them installs them again.
    pub(crate) fn forgets(&self, used: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        later(used, self.packages).is_some_and(|until| until < now)
    }
}

fn later(time: DateTime<Utc>, span: Duration) -> Option<DateTime<Utc>> {
    time.checked_add_signed(TimeDelta::from_std(span).ok()?)
}

/// What a job names in the store before it runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inputs {
    pub(crate) contents: Box<[Digest]>,
    /// Of those, the one that is a list of more.
    pub(crate) tree: Option<Digest>,
}

/// What an attempt left behind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Left {
    pub(crate) job: JobId,
    pub(crate) batch: Option<BatchId>,
    pub(crate) manifest: Digest,
    /// Its outputs' size in bytes; nothing of an attempt that was tried again, whose outputs nobody can ask for.
    pub(crate) outputs: Option<u64>,
    /// Its log's size in bytes.
    pub(crate) log: u64,
    /// When its outputs expire.
    pub(crate) until: Option<DateTime<Utc>>,
}

#[derive(Debug)]
struct Live {
    /// Without what it is: only where it stands.
    job: Box<Job>,
    inputs: Inputs,
    /// When its attempt was claimed, by the server's clock.
    claimed: Option<DateTime<Utc>>,
}

/// The fold of the log.
#[derive(Debug)]
pub(crate) struct Fold {
    keeping: Keeping,
    now: DateTime<Utc>,
    live: HashMap<JobId, Live>,
    /// Inputs of jobs that ended, and are kept still.
    pub(crate) ended: HashMap<JobId, Inputs>,
    pub(crate) left: Vec<Left>,
    /// What events of other kinds name: the last event of each subject.
    named: HashMap<String, Box<[Digest]>>,
    /// What events name that cannot be read.
    pub(crate) odd: HashSet<Digest>,
    /// Events that were read.
    pub(crate) events: u64,
}

impl Fold {
    pub(crate) fn new(keeping: Keeping, now: DateTime<Utc>) -> Self {
        Self {
            keeping,
            now,
            live: HashMap::new(),
            ended: HashMap::new(),
            left: Vec::new(),
            named: HashMap::new(),
            odd: HashSet::new(),
            events: 0,
        }
    }

    /// Takes the next message of the log.
    pub(crate) fn take(&mut self, subject: &str, sequence: u64, payload: &[u8], stored: DateTime<Utc>) {
        self.events += 1;
        match decode(subject, sequence, payload) {
            Ok(Some(Fact::Job(recorded))) => self.job(&recorded, payload, stored),
            // They name no contents: a batch names its members, which name theirs.
            Ok(Some(Fact::Batch(_) | Fact::Worker(_) | Fact::Runtimes(_))) => {}
            Ok(Some(Fact::Image(_)) | None) => {
                let digests: Box<[Digest]> = digests_in(payload).collect();
                if digests.is_empty() {
                    self.named.remove(subject);
                } else {
                    self.named.insert(subject.to_owned(), digests);
                }
            }
            Err(_) => self.odd.extend(digests_in(payload)),
        }
    }

    /// Takes a message of which only the payload is known.
    pub(crate) fn take_unreadable(&mut self, payload: &[u8]) {
        self.events += 1;
        self.odd.extend(digests_in(payload));
    }

    fn job(&mut self, recorded: &Recorded, payload: &[u8], stored: DateTime<Utc>) {
        let id = recorded.job;
        let before = self.live.remove(&id);
        let (job, mut inputs, mut claimed) = match before {
            Some(Live { job, inputs, claimed }) => (Job::evolve(Some(*job), recorded), inputs, claimed),
            // Also one that had ended, and is requeued.
            None => (
                Job::from_ready(recorded).or_else(|| Job::evolve(None, recorded)),
                Inputs::default(),
                None,
            ),
        };
        let Some(mut job) = job else {
            if let JobEvent::Finished(_) = &recorded.envelope.event {
                self.odd.extend(digests_in(payload));
            }
            return;
        };
        if let Some(spec) = spec_of(&recorded.envelope.event) {
            inputs = Inputs {
                contents: digests_in(payload).collect(),
                tree: spec.tree.map(|tree| tree.sha256),
            };
            self.ended.remove(&id);
            job.spec = JobSpec {
                keep_outputs_ms: spec.keep_outputs_ms,
                batch: spec.batch.clone(),
                ..JobSpec::new(Vec::new())
            };
        }
        if let JobEvent::Finished(finished) = &recorded.envelope.event
            && let Some(manifest) = &finished.manifest
        {
            self.left.push(Left {
                job: id,
                batch: job.spec.batch.as_ref().map(|member| member.batch),
                manifest: manifest.sha256,
                outputs: finished.retry_after_ms.is_none().then_some(manifest.bytes),
                log: manifest.stdout_bytes + manifest.stderr_bytes,
                until: self.keeping.outputs_until(&job.spec, recorded.envelope.time),
            });
        }
        match &job.phase {
            Phase::Claimed { .. } | Phase::Running { .. } => drop(claimed.get_or_insert(stored)),
            _ => claimed = None,
        }
        if let Phase::Ended(_) = &job.phase {
            let until = later(stored, self.keeping.inputs);
            if until.is_none_or(|until| until > self.now) {
                self.ended.insert(id, inputs);
            }
        } else {
            self.live.insert(
                id,
                Live {
                    job: Box::new(job),
                    inputs,
                    claimed,
                },
            );
        }
    }

    /// What jobs name that have not ended.
    pub(crate) fn live(&self) -> impl Iterator<Item = &Inputs> {
        self.live.values().map(|live| &live.inputs)
    }

    /// What other events name.
    pub(crate) fn named(&self) -> impl Iterator<Item = Digest> {
        self.named.values().flat_map(|digests| digests.iter().copied())
    }

    /// The attempt that runs for the longest time, and when it was claimed.
    pub(crate) fn oldest_claim(&self) -> Option<(JobId, DateTime<Utc>)> {
        let claims = self.live.iter().filter_map(|(id, live)| Some((*id, live.claimed?)));
        claims.min_by_key(|(_, claimed)| *claimed)
    }

    /// Whether outputs are kept still.
    pub(crate) fn keeps(&self, left: &Left) -> bool {
        left.outputs.is_some() && left.until.is_none_or(|until| until > self.now)
    }
}

fn spec_of(event: &JobEvent) -> Option<&JobSpec> {
    match event {
        JobEvent::Submitted(event) => Some(&event.spec),
        JobEvent::Rescheduled(event) => Some(&event.spec),
        JobEvent::Released(event) => Some(&event.spec),
        JobEvent::Requeued(event) => Some(&event.spec),
        JobEvent::Claimed(_)
        | JobEvent::Started(_)
        | JobEvent::Finished(_)
        | JobEvent::Returned(_)
        | JobEvent::CancelRequested(_)
        | JobEvent::Cancelled(_)
        | JobEvent::Died(_)
        | JobEvent::Expired(_) => None,
    }
}

/// Every SHA-256 that stands in a text, each as often as it does.
pub(crate) fn digests_in(text: &[u8]) -> impl Iterator<Item = Digest> {
    let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    text.split(move |byte| !is_digit(byte))
        .filter(|run| run.len() == DIGITS)
        .filter_map(|run| std::str::from_utf8(run).ok()?.parse().ok())
}

#[cfg(test)]
mod tests;
