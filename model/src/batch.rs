//! Batches: submissions and views.

use std::{collections::BTreeMap, fmt};

use bus::{
    batch::MAX_MEMBERS,
    ids::{BatchId, JobId, Namespace},
    job::State,
    spec::{InputFile, submission::Submission, tree::TreeRef},
};
use chrono::{DateTime, Utc};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{IgnoredAny, SeqAccess, Visitor},
};

use super::job::JobView;

/// The submission of a batch. What its members share is written once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchSubmission {
    /// Its id, which the client chooses: sending the same batch again with the same id has no effect.
    pub id: BatchId,
    /// Its name.
    pub name: String,
    /// How many of its members may be ready, claimed or running at once; absent: not limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<u32>,
    /// After this many failed members, no further member starts; absent: all start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failures: Option<u32>,
    /// Whether running members are cancelled then, too.
    #[serde(default)]
    pub fail_fast: bool,
    /// What all members share.
    pub job: Submission,
    /// The members, in their order. If there are too many, only one more than the limit is parsed.
    #[serde(deserialize_with = "bounded")]
    pub members: Vec<MemberSubmission>,
}

/// Parses members, and keeps at most one more than the limit: a member can be two bytes in a request, and takes a hundred in memory.
fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<MemberSubmission>, D::Error> {
    struct Bounded;
    impl<'de> Visitor<'de> for Bounded {
        type Value = Vec<MemberSubmission>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array of members")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while members.len() <= MAX_MEMBERS as usize {
                match seq.next_element()? {
                    Some(member) => members.push(member),
                    None => return Ok(members),
                }
            }
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            Ok(members)
        }
    }
    deserializer.deserialize_seq(Bounded)
}

/// The fields of one member of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberSubmission {
    /// Its label for the user: an input's name, a line, a combination of parameters.
    pub item: String,
    /// Its command; empty: the shared one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Its input files, in addition to the shared ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputFile>,
    /// Its input tree in the store; absent: the shared one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<TreeRef>,
    /// Its environment variables, in addition to the shared ones.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

/// For each member of a batch, in order, the earlier job whose result can be reused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earlier {
    /// The jobs; `None` where there is none.
    pub jobs: Vec<Option<JobId>>,
}

/// The answer to the submission of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchAnswer {
    /// The batch.
    pub id: BatchId,
    /// Its namespace.
    pub namespace: Namespace,
    /// How many members it has.
    pub total: u32,
    /// A sequence of the log: all its members have been appended before it.
    pub sequence: u64,
    /// Whether it had been submitted completely before.
    pub existed: bool,
    /// A warning: no worker serves the queue, or no worker is large enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// The state of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchState {
    /// Not all of its members are in the log: they are being submitted, or the submission was interrupted.
    Submitting,
    /// Some of its members have not ended.
    Running,
    /// Too many members failed, and some that had started have not ended.
    Stopping,
    /// A user cancelled it, and some of its members have not ended.
    Cancelling,
    /// All its members succeeded.
    Succeeded,
    /// All its members ended, and some did not succeed.
    Failed,
    /// A user cancelled it.
    Cancelled,
}

impl BatchState {
    /// Its name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Submitting => "submitting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Cancelling => "cancelling",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the batch has ended.
    #[must_use]
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// A batch, from the tables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchView {
    /// Its id.
    pub id: BatchId,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: BatchState,
    /// How many members it has.
    pub total: u32,
    /// How many members are in each state, of those that are in the log.
    pub counts: BTreeMap<String, u64>,
    /// How many may run at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<u32>,
    /// After this many failures it is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failures: Option<u32>,
    /// The batch whose members it retries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<BatchId>,
    /// When it was submitted.
    pub submitted_at: DateTime<Utc>,
    /// When its last member ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
    /// The reason of its cancellation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The sequence of its submission in the log.
    pub sequence: u64,
}

impl BatchView {
    /// How many members are in one of these states.
    pub fn count(&self, states: impl IntoIterator<Item = State>) -> u64 {
        let of = |state: State| self.counts.get(state.as_str()).copied().unwrap_or(0);
        states.into_iter().map(of).sum()
    }

    /// How many members have ended.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.count(State::ALL.into_iter().filter(|state| state.is_end()))
    }
}

/// The answer to a list of batches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchList {
    /// The batches, newest first.
    pub batches: Vec<BatchView>,
    /// The cursor of the next page, to send as `before`; none on the last page.
    #[serde(default)]
    pub next: Option<String>,
}

/// A member of a batch, from the tables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberView {
    /// Its index.
    pub index: u32,
    /// Its label for the user.
    pub item: String,
    /// The member of an earlier batch that it retries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<JobId>,
    /// How many output files it has.
    #[serde(default)]
    pub outputs: u64,
    /// The job.
    pub job: JobView,
}

/// The answer to a list of a batch's members.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Members {
    /// The members, in their order.
    pub members: Vec<MemberView>,
    /// The cursor of the next page, to send as `after`; none on the last page.
    #[serde(default)]
    pub next: Option<u32>,
}
