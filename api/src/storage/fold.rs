//! The fold of the log for storage: which events name which contents. Pure.
//!
//! Digests are found anywhere in the text of an event: 64 hexadecimal digits. So jobs of later versions, events that cannot be decoded and
//! events of other kinds keep their contents too; at worst an unused content is kept.
//!
//! It does not depend on the time or on how long contents are kept, so that a later pass can continue from it.

mod saved;
mod standing;
mod terms;

use std::collections::{HashMap, HashSet};

use bus::{
    ids::{BatchId, Digest, JobId},
    job::{Job, JobEvent, Phase, Recorded},
    log::read::{Fact, decode},
    spec::JobSpec,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use self::{
    standing::Standing,
    terms::{Term, Terms},
};
use super::retention::Moment;

/// The length of a SHA-256 in hexadecimal digits.
const DIGITS: usize = 64;

/// The inputs of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inputs {
    pub(crate) contents: Box<[Digest]>,
    /// Those that are input trees.
    #[serde(default, skip_serializing_if = "<[Digest]>::is_empty")]
    pub(crate) trees: Box<[Digest]>,
}

/// The manifest of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) manifest: Digest,
    pub(crate) job: JobId,
    /// Its outputs' size in bytes.
    outputs: u64,
    /// Its log's size in bytes.
    pub(crate) log: u64,
    /// When it ended, in milliseconds since 1970.
    pub(crate) ended: i64,
    term: u32,
    /// Whether the job was retried, so that these outputs cannot be downloaded.
    tried_again: bool,
}

/// A job that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Live {
    standing: Standing,
    inputs: Inputs,
    term: u32,
    /// When its attempt was claimed, by the server's clock, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claimed: Option<i64>,
}

/// An input of jobs that have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ended {
    /// When the last of them ended, by the server's clock, in milliseconds since 1970.
    last: i64,
    /// Whether it is an input tree.
    tree: bool,
}

/// The fold of the log.
#[derive(Debug)]
pub(crate) struct Fold {
    live: HashMap<JobId, Live>,
    ended: HashMap<Digest, Ended>,
    pub(crate) left: Vec<Left>,
    terms: Terms,
    /// The contents that events of other kinds name: the last event of each subject.
    named: HashMap<String, Box<[Digest]>>,
    /// The contents that undecodable events name.
    pub(crate) odd: HashSet<Digest>,
    /// How many events it is the fold of.
    pub(crate) events: u64,
    /// Inputs of jobs that ended before this time were dropped.
    forgotten: i64,
}

impl Default for Fold {
    fn default() -> Self {
        Self {
            live: HashMap::new(),
            ended: HashMap::new(),
            left: Vec::new(),
            terms: Terms::default(),
            named: HashMap::new(),
            odd: HashSet::new(),
            events: 0,
            forgotten: i64::MIN,
        }
    }
}

impl Fold {
    /// Folds the next message of the log.
    pub(crate) fn take(&mut self, subject: &str, sequence: u64, payload: &[u8], stored: DateTime<Utc>) {
        self.events += 1;
        match decode(subject, sequence, payload) {
            Ok(Some(Fact::Job(recorded))) => self.job(&recorded, payload, stored.timestamp_millis()),
            // These events name no contents: a batch's members name theirs.
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

    /// Folds a message of which only the payload is known.
    pub(crate) fn take_unreadable(&mut self, payload: &[u8]) {
        self.events += 1;
        self.odd.extend(digests_in(payload));
    }

    fn job(&mut self, recorded: &Recorded, payload: &[u8], stored: i64) {
        let id = recorded.job;
        let event = &recorded.envelope.event;
        let (job, mut inputs, mut term, claimed) = match self.live.remove(&id) {
            Some(live) => {
                let job = Job::evolve(Some(live.standing.job(id)), recorded);
                (job, live.inputs, live.term, live.claimed)
            }
            // Also a job that had ended, and is requeued.
            None => {
                let job = Job::from_ready(recorded).or_else(|| Job::evolve(None, recorded));
                (job, Inputs::default(), Terms::NONE, None)
            }
        };
        let Some(job) = job else {
            if let JobEvent::Finished(_) = event {
                self.odd.extend(digests_in(payload));
            }
            return;
        };
        if let Some(spec) = spec_of(event) {
            inputs.add(payload, spec);
            term = self.terms.number(Term::of(spec));
        }
        if let JobEvent::Finished(finished) = event
            && let Some(manifest) = &finished.manifest
        {
            self.left.push(Left {
                manifest: manifest.sha256,
                job: id,
                outputs: manifest.bytes,
                log: manifest.stdout_bytes + manifest.stderr_bytes,
                ended: recorded.envelope.time.timestamp_millis(),
                term,
                tried_again: finished.retry_after_ms.is_some(),
            });
        }
        let Some(standing) = Standing::of(&job) else {
            self.end(&inputs, stored);
            return;
        };
        let claimed = match &job.phase {
            Phase::Claimed { .. } | Phase::Running { .. } => claimed.or(Some(stored)),
            _ => None,
        };
        let live = Live {
            standing,
            inputs,
            term,
            claimed,
        };
        self.live.insert(id, live);
    }

    /// Records the inputs of a job that has ended.
    fn end(&mut self, inputs: &Inputs, at: i64) {
        for digest in &inputs.contents {
            let ended = self.ended.entry(*digest).or_insert(Ended { last: at, tree: false });
            ended.last = ended.last.max(at);
            ended.tree |= inputs.trees.contains(digest);
        }
    }

    /// Drops the inputs of jobs that ended before a time, in milliseconds since 1970.
    pub(crate) fn forget(&mut self, before: i64) {
        self.forgotten = self.forgotten.max(before);
        self.ended.retain(|_, ended| ended.last >= before);
    }

    /// Whether it still has all inputs that are kept at this time.
    pub(crate) fn suffices(&self, at: &Moment) -> bool {
        self.forgotten <= at.inputs_horizon()
    }

    /// The inputs of jobs that have not ended.
    pub(crate) fn live(&self) -> impl Iterator<Item = &Inputs> {
        self.live.values().map(|live| &live.inputs)
    }

    /// The inputs of ended jobs that are still kept, and whether each is an input tree.
    pub(crate) fn ended(&self, at: &Moment) -> impl Iterator<Item = (Digest, bool)> {
        let horizon = at.inputs_horizon();
        let kept = self.ended.iter().filter(move |(_, ended)| ended.last > horizon);
        kept.map(|(digest, ended)| (*digest, ended.tree))
    }

    /// The contents that other events name.
    pub(crate) fn named(&self) -> impl Iterator<Item = Digest> {
        self.named.values().flat_map(|digests| digests.iter().copied())
    }

    /// The job of the oldest running attempt, and when it was claimed.
    pub(crate) fn oldest_claim(&self) -> Option<(JobId, DateTime<Utc>)> {
        let claims = self.live.iter().filter_map(|(id, live)| Some((live.claimed?, *id)));
        let (claimed, id) = claims.min()?;
        // An invalid time counts as the earliest one, to be safe.
        Some((id, DateTime::from_timestamp_millis(claimed).unwrap_or(DateTime::<Utc>::MIN_UTC)))
    }

    /// When the outputs of an attempt expire; `None`: never.
    pub(crate) fn until(&self, left: &Left, at: &Moment) -> Option<DateTime<Utc>> {
        at.outputs_until(left.ended, self.terms.get(left.term).keep_outputs_ms)
    }

    /// The batch of its job.
    pub(crate) fn batch(&self, left: &Left) -> Option<BatchId> {
        self.terms.get(left.term).batch
    }

    /// Whether its outputs are still kept.
    pub(crate) fn keeps(&self, left: &Left, at: &Moment) -> bool {
        !left.tried_again && self.until(left, at).is_none_or(|until| until > at.now)
    }

    /// The size of what is still kept, in bytes.
    pub(crate) fn size(&self, left: &Left, at: &Moment) -> u64 {
        left.log.saturating_add(if self.keeps(left, at) { left.outputs } else { 0 })
    }
}

impl Inputs {
    /// Adds the contents that an event with this spec names. The earlier ones stay: the event may change nothing.
    fn add(&mut self, payload: &[u8], spec: &JobSpec) {
        let with = |before: &[Digest], more: &mut dyn Iterator<Item = Digest>| {
            let mut all: Vec<Digest> = before.iter().copied().chain(more).collect();
            all.sort_unstable();
            all.dedup();
            all.into_boxed_slice()
        };
        self.contents = with(&self.contents, &mut digests_in(payload));
        self.trees = with(&self.trees, &mut spec.tree.iter().map(|tree| tree.sha256));
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

/// Every SHA-256 in a text, with repetitions.
pub(crate) fn digests_in(text: &[u8]) -> impl Iterator<Item = Digest> {
    let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    text.split(move |byte| !is_digit(byte))
        .filter(|run| run.len() == DIGITS)
        .filter_map(|run| std::str::from_utf8(run).ok()?.parse().ok())
}

#[cfg(test)]
mod tests;
