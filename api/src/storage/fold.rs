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
use super::keeping::Moment;

/// The length of a SHA-256 in hexadecimal digits.
const DIGITS: usize = 64;

/// What a job names in the store before it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inputs {
    pub(crate) contents: Box<[Digest]>,
    /// Of those, the ones that are lists of more.
    #[serde(default, skip_serializing_if = "<[Digest]>::is_empty")]
    pub(crate) trees: Box<[Digest]>,
}

/// What an attempt left behind.
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
    /// Whether it was tried again, so that nobody can ask for its outputs.
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

/// A content that jobs named which have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ended {
    /// When the last of them ended, by the server's clock, in milliseconds since 1970.
    last: i64,
    /// Whether it is a list of more.
    tree: bool,
}

/// The fold of the log.
#[derive(Debug)]
pub(crate) struct Fold {
    live: HashMap<JobId, Live>,
    ended: HashMap<Digest, Ended>,
    pub(crate) left: Vec<Left>,
    terms: Terms,
    /// What events of other kinds name: the last event of each subject.
    named: HashMap<String, Box<[Digest]>>,
    /// What events name that cannot be read.
    pub(crate) odd: HashSet<Digest>,
    /// Events that it is the fold of.
    pub(crate) events: u64,
    /// Inputs of jobs that ended before this moment are forgotten.
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
    /// Takes the next message of the log.
    pub(crate) fn take(&mut self, subject: &str, sequence: u64, payload: &[u8], stored: DateTime<Utc>) {
        self.events += 1;
        match decode(subject, sequence, payload) {
            Ok(Some(Fact::Job(recorded))) => self.job(&recorded, payload, stored.timestamp_millis()),
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

    fn job(&mut self, recorded: &Recorded, payload: &[u8], stored: i64) {
        let id = recorded.job;
        let event = &recorded.envelope.event;
        let (job, mut inputs, mut term, claimed) = match self.live.remove(&id) {
            Some(live) => {
                let job = Job::evolve(Some(live.standing.job(id)), recorded);
                (job, live.inputs, live.term, live.claimed)
            }
            // Also one that had ended, and is requeued.
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

    /// Notes what a job named that has ended.
    fn end(&mut self, inputs: &Inputs, at: i64) {
        for digest in &inputs.contents {
            let ended = self.ended.entry(*digest).or_insert(Ended { last: at, tree: false });
            ended.last = ended.last.max(at);
            ended.tree |= inputs.trees.contains(digest);
        }
    }

    /// Forgets the inputs of jobs that ended before a moment, in milliseconds since 1970.
    pub(crate) fn forget(&mut self, before: i64) {
        self.forgotten = self.forgotten.max(before);
        self.ended.retain(|_, ended| ended.last >= before);
    }

    /// Whether it has everything that is kept at this moment: it has forgotten nothing of it.
    pub(crate) fn suffices(&self, at: &Moment) -> bool {
        self.forgotten <= at.inputs_horizon()
    }

    /// What jobs name that have not ended.
    pub(crate) fn live(&self) -> impl Iterator<Item = &Inputs> {
        self.live.values().map(|live| &live.inputs)
    }

    /// What jobs named that ended, and is kept still; and whether it is a list of more.
    pub(crate) fn ended(&self, at: &Moment) -> impl Iterator<Item = (Digest, bool)> {
        let horizon = at.inputs_horizon();
        let kept = self.ended.iter().filter(move |(_, ended)| ended.last > horizon);
        kept.map(|(digest, ended)| (*digest, ended.tree))
    }

    /// What other events name.
    pub(crate) fn named(&self) -> impl Iterator<Item = Digest> {
        self.named.values().flat_map(|digests| digests.iter().copied())
    }

    /// The attempt that runs for the longest time, and when it was claimed.
    pub(crate) fn oldest_claim(&self) -> Option<(JobId, DateTime<Utc>)> {
        let claims = self.live.iter().filter_map(|(id, live)| Some((live.claimed?, *id)));
        let (claimed, id) = claims.min()?;
        // A time that is none would hold nothing back.
        Some((id, DateTime::from_timestamp_millis(claimed).unwrap_or(DateTime::<Utc>::MIN_UTC)))
    }

    /// When what an attempt left expires; nothing: never.
    pub(crate) fn until(&self, left: &Left, at: &Moment) -> Option<DateTime<Utc>> {
        at.outputs_until(left.ended, self.terms.get(left.term).keep_outputs_ms)
    }

    /// The batch of whoever left this.
    pub(crate) fn batch(&self, left: &Left) -> Option<BatchId> {
        self.terms.get(left.term).batch
    }

    /// Whether outputs are kept still.
    pub(crate) fn keeps(&self, left: &Left, at: &Moment) -> bool {
        !left.tried_again && self.until(left, at).is_none_or(|until| until > at.now)
    }

    /// What of it is kept still, in bytes.
    pub(crate) fn size(&self, left: &Left, at: &Moment) -> u64 {
        left.log.saturating_add(if self.keeps(left, at) { left.outputs } else { 0 })
    }
}

impl Inputs {
    /// Adds what an event names, whose spec this is. What stood there before stays: the event may be one that changes nothing.
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

/// Every SHA-256 that stands in a text, each as often as it does.
pub(crate) fn digests_in(text: &[u8]) -> impl Iterator<Item = Digest> {
    let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    text.split(move |byte| !is_digit(byte))
        .filter(|run| run.len() == DIGITS)
        .filter_map(|run| std::str::from_utf8(run).ok()?.parse().ok())
}

#[cfg(test)]
mod tests;
