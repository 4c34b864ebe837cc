//! How far a batch is: a fold of what happens to its members.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use serde::Deserialize;

use crate::{
    output::{counted, duration},
    saving::Report,
};

/// The events that are asked for.
pub(crate) const TYPES: &str = "job.claimed,job.started,job.finished,job.returned,job.rescheduled,job.cancelled,job.died,job.expired,job.requeued,\
                                batch.stopped,batch.cancelled";

/// What is read of an event.
#[derive(Debug, Deserialize)]
pub(crate) struct ProgressEvent {
    r#type: String,
    #[serde(default)]
    index: Option<u32>,
    #[serde(default)]
    data: Data,
}

impl ProgressEvent {
    /// The member that a worker has taken, if that is what it tells.
    pub(crate) fn claimed(&self) -> Option<u32> {
        self.index.filter(|_| self.r#type == "job.claimed.v1")
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Data {
    worker: Option<String>,
    outcome: Option<Outcome>,
    manifest: Option<Manifest>,
    retry_after_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Outcome {
    kind: String,
    #[serde(default)]
    exit_code: Option<i32>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    files: u64,
    #[serde(default)]
    links: u64,
    #[serde(default)]
    notes: u64,
}

/// Where a member stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MemberState {
    /// A worker has it.
    Runs(String),
    /// It ended well.
    Succeeded,
    /// A user, or the end of its batch, ended it.
    Cancelled,
    /// It ended otherwise, in these words.
    Failed(String),
}

/// How far a batch is.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) total: u32,
    members: HashMap<u32, MemberState>,
    /// How many of those run: after each event it is asked whether all have ended, of which there may be a hundred thousand.
    running: usize,
    began: Instant,
    /// Whether it was stopped or cancelled.
    pub(crate) over: bool,
    /// What came of bringing outputs here.
    pub(crate) came: Box<Report>,
}

impl Progress {
    pub(crate) fn new(total: u32) -> Self {
        Self {
            total,
            members: HashMap::new(),
            running: 0,
            began: Instant::now(),
            over: false,
            came: Box::default(),
        }
    }

    /// Folds an event; returns the member that has left files for us.
    pub(crate) fn see(&mut self, told: ProgressEvent) -> Option<u32> {
        let Some(index) = told.index else {
            self.over = true;
            return None;
        };
        match told.r#type.as_str() {
            "job.claimed.v1" => {
                self.put(index, Some(MemberState::Runs(told.data.worker.unwrap_or_default())));
            }
            "job.finished.v1" if told.data.retry_after_ms.is_some() => {
                self.put(index, None);
            }
            "job.finished.v1" => {
                self.put(index, Some(ended(told.data.outcome.as_ref())));
                return told
                    .data
                    .manifest
                    .filter(|manifest| manifest.files + manifest.links + manifest.notes > 0)
                    .map(|_| index);
            }
            "job.returned.v1" | "job.rescheduled.v1" | "job.requeued.v1" => {
                self.put(index, None);
            }
            "job.cancelled.v1" => {
                self.put(index, Some(MemberState::Cancelled));
            }
            "job.died.v1" => {
                self.put(index, Some(MemberState::Failed("is dead: its attempts were lost".to_owned())));
            }
            "job.expired.v1" => {
                self.put(index, Some(MemberState::Failed("expired: it waited too long".to_owned())));
            }
            _ => {}
        }
        None
    }

    /// Notes where a member stands; nothing: it waits.
    fn put(&mut self, index: u32, stand: Option<MemberState>) {
        let runs = |stand: Option<&MemberState>| usize::from(matches!(stand, Some(MemberState::Runs(_))));
        self.running += runs(stand.as_ref());
        let before = match stand {
            Some(stand) => self.members.insert(index, stand),
            None => self.members.remove(&index),
        };
        self.running -= runs(before.as_ref());
    }

    fn count(&self, which: impl Fn(&MemberState) -> bool) -> usize {
        self.members.values().filter(|stand| which(stand)).count()
    }

    pub(crate) const fn running(&self) -> usize {
        self.running
    }

    pub(crate) fn succeeded(&self) -> usize {
        self.count(|stand| matches!(stand, MemberState::Succeeded))
    }

    pub(crate) fn cancelled(&self) -> usize {
        self.count(|stand| matches!(stand, MemberState::Cancelled))
    }

    pub(crate) fn done(&self) -> usize {
        self.members.len() - self.running()
    }

    /// Those that failed, in their order, and how.
    pub(crate) fn failed(&self) -> Vec<(u32, &str)> {
        let mut failed: Vec<(u32, &str)> = self
            .members
            .iter()
            .filter_map(|(index, stand)| match stand {
                MemberState::Failed(words) => Some((*index, words.as_str())),
                _ => None,
            })
            .collect();
        failed.sort_unstable();
        failed
    }

    pub(crate) fn is_done(&self) -> bool {
        self.done() >= self.total as usize
    }

    /// All of it in a line.
    pub(crate) fn line(&self) -> String {
        let workers: std::collections::HashSet<&str> = self
            .members
            .values()
            .filter_map(|stand| match stand {
                MemberState::Runs(worker) => Some(worker.as_str()),
                _ => None,
            })
            .collect();
        let (done, total, took) = (self.done(), self.total as usize, self.began.elapsed());
        #[allow(clippy::cast_precision_loss, reason = "a rate for a person")]
        let rate = done as f64 / took.as_secs_f64().max(0.001);
        #[allow(clippy::cast_precision_loss, reason = "as above")]
        let left = Duration::try_from_secs_f64(total.saturating_sub(done) as f64 / rate.max(0.001)).unwrap_or(Duration::MAX);
        let eta = if done == 0 || done >= total {
            String::new()
        } else {
            format!(", about {} left", duration(left))
        };
        format!(
            "{done} of {total} done, {} running on {}, {} failed, {rate:.1}/s{eta}",
            self.running(),
            counted(workers.len(), "worker"),
            self.failed().len()
        )
    }
}

fn ended(outcome: Option<&Outcome>) -> MemberState {
    match outcome.map(|outcome| (outcome.kind.as_str(), outcome.exit_code)) {
        Some(("succeeded", _)) => MemberState::Succeeded,
        Some(("cancelled", _)) => MemberState::Cancelled,
        Some((_, Some(code))) => MemberState::Failed(format!("ended with exit code {code}")),
        Some((kind, None)) => MemberState::Failed(format!("ended as {}", kind.replace('_', " "))),
        None => MemberState::Failed("ended".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_hundred_thousand_members_are_followed_in_one_pass() {
        let total = 100_000;
        let mut progress = Progress::new(total);
        let began = Instant::now();
        for index in 0..total {
            for kind in ["job.claimed.v1", "job.finished.v1"] {
                assert!(!progress.is_done());
                let told = ProgressEvent {
                    r#type: kind.to_owned(),
                    index: Some(index),
                    data: Data::default(),
                };
                progress.see(told);
            }
        }
        assert!(progress.is_done() && progress.running() == 0);
        // A count of all of them at each takes a hundred times as long, and more.
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    }

    #[test]
    fn a_member_that_was_given_back_runs_nowhere() {
        let mut progress = Progress::new(2);
        let mut see = |kind: &str| {
            let told = json!({ "type": kind, "index": 0, "data": { "worker": "w" } });
            progress.see(serde_json::from_value(told).expect("an event"));
            progress.running()
        };
        assert_eq!([see("job.claimed.v1"), see("job.returned.v1"), see("job.claimed.v1")], [1, 0, 1]);
        assert_eq!([see("job.claimed.v1"), see("job.finished.v1"), see("job.requeued.v1")], [1, 0, 0]);
        assert!(TYPES.split(',').any(|kind| kind.trim() == "job.returned"), "it is asked for");
    }
}
