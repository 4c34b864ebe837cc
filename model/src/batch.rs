//! Batches, as they are handed in and as they are shown.

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

/// A batch as it is handed in: what its members share is said once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchSubmission {
    /// Its identity, chosen by who submits it: the same batch under the same id is submitted once, however often it is sent.
    pub id: BatchId,
    /// What to call it in lists.
    pub name: String,
    /// How many of its members may be ready, claimed or running at once; absent: not limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<u32>,
    /// With so many failed members no further one starts; absent: all do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failures: Option<u32>,
    /// Whether members that run then are ended too.
    #[serde(default)]
    pub fail_fast: bool,
    /// What each member is, but for what it says itself.
    pub job: Submission,
    /// The members, in their order. Of more than a batch may have, one more than that is read, which is enough to refuse it.
    #[serde(deserialize_with = "bounded")]
    pub members: Vec<MemberSubmission>,
}

/// Reads members, and keeps no more of them than show that there are too many: one takes two bytes in a request, and a hundred here.
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

/// What one member of a batch has of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberSubmission {
    /// What it is for, in the user's words.
    pub item: String,
    /// Its command; empty: that of all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Its files, besides those of all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputFile>,
    /// More of its files, as a list in the store; absent: those of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<TreeRef>,
    /// Its environment variables, besides those of all.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

/// For each member that a batch would have, in their order, the earlier job whose result it would have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earlier {
    /// The jobs; nothing where there is none.
    pub jobs: Vec<Option<JobId>>,
}

/// The answer to a batch that was handed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchAnswer {
    /// The batch.
    pub id: BatchId,
    /// Whose it is.
    pub namespace: Namespace,
    /// How many members it has.
    pub total: u32,
    /// A sequence behind which all of its members stand in the log.
    pub sequence: u64,
    /// Whether it was submitted before, as a whole.
    pub existed: bool,
    /// What the user should know: that nobody serves the queue, or that its members fit no worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// Where a batch stands, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchState {
    /// Not all of its members are in the log: they are being submitted, or whoever did that died.
    Submitting,
    /// Members of it have not ended.
    Running,
    /// Too many failed, and members that had started have not ended.
    Stopping,
    /// A user ended it, and members of it have not ended.
    Cancelling,
    /// All of its members ended well.
    Succeeded,
    /// All of its members ended, some of them otherwise.
    Failed,
    /// A user ended it.
    Cancelled,
}

impl BatchState {
    /// The state as users spell it.
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

    /// Whether nothing more will happen.
    #[must_use]
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// A batch, as the tables have it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchView {
    /// Its identity.
    pub id: BatchId,
    /// Whose it is.
    pub namespace: Namespace,
    /// What to call it.
    pub name: String,
    /// Where it stands.
    pub state: BatchState,
    /// How many members it has.
    pub total: u32,
    /// How many of them are in each state; of those that are in the log.
    pub counts: BTreeMap<String, u64>,
    /// How many may run at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<u32>,
    /// With so many failures it is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failures: Option<u32>,
    /// The batch whose members it tries again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<BatchId>,
    /// When it was submitted.
    pub submitted_at: DateTime<Utc>,
    /// When its last member ended; none before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
    /// What the user said who ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where it begins in the log.
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
    /// What to give as `before` for those that follow; none where these were the last.
    #[serde(default)]
    pub next: Option<String>,
}

/// A member of a batch, as the tables have it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberView {
    /// Its place.
    pub index: u32,
    /// What it is for.
    pub item: String,
    /// The member of an earlier batch that it tries again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<JobId>,
    /// How many output files it left.
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
    /// What to give as `after` for those that follow; none where these were the last.
    #[serde(default)]
    pub next: Option<u32>,
}
