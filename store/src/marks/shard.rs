//! What is marked, as pure state: the contents of one shard, which are written together.

use std::collections::{BTreeMap, HashSet};

use bus::ids::{Digest, PassId};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The most marks of one shard: some 400 KB, so that it fits a message. What finds no room is marked in a later pass.
pub(super) const MOST: usize = 4_096;

/// The marks of the contents whose hashes begin with the same byte.
///
/// A mark without a time is of the moment at which the shard was stored, by the server's clock: whoever reads it fills that in. So
/// no mark is older than it says, however long its writer stood still.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shard(BTreeMap<Digest, Mark>);

/// What is said of a content that nothing referred to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mark {
    /// It may go, once its grace is over and nothing refers to it still.
    Unused(#[serde(default)] Since),
    /// A pass removes it: it is not there for anybody, and is put again only when this is over.
    Going { by: PassId, since: Since },
}

/// Since when; nothing in a mark that is not stored yet.
type Since = Option<DateTime<Utc>>;

impl Shard {
    /// The shard that a content belongs to.
    #[must_use]
    pub const fn of(digest: &Digest) -> u8 {
        digest.as_bytes()[0]
    }

    /// Fills in when this was stored.
    pub(super) fn stored_at(mut self, stored: DateTime<Utc>) -> Self {
        for mark in self.0.values_mut() {
            let (Mark::Unused(since) | Mark::Going { since, .. }) = mark;
            since.get_or_insert(stored);
        }
        self
    }

    /// Whether anything is said of a content.
    #[must_use]
    pub fn names(&self, digest: &Digest) -> bool {
        self.0.contains_key(digest)
    }

    /// Takes the marks off these contents, for whoever asked for them; returns those that are on their way out, and stay so.
    pub fn renew<'a>(&mut self, digests: impl IntoIterator<Item = &'a Digest>) -> HashSet<Digest> {
        let mut going = HashSet::new();
        for digest in digests {
            match self.0.get(digest) {
                Some(Mark::Unused(_)) => drop(self.0.remove(digest)),
                Some(Mark::Going { .. }) => drop(going.insert(*digest)),
                None => {}
            }
        }
        going
    }

    /// Brings the marks up to what a pass found: everything unused has one, as far as there is room, and nothing else has, but for
    /// what is on its way out.
    pub fn align(&mut self, unused: &HashSet<Digest>) {
        self.0
            .retain(|digest, mark| matches!(mark, Mark::Going { .. }) || unused.contains(digest));
        for digest in unused {
            if self.0.len() >= MOST {
                break;
            }
            self.0.entry(*digest).or_insert(Mark::Unused(None));
        }
    }

    /// Moves what was marked before `due` on its way out, by this pass; and what another pass left there before `abandoned`. At most
    /// `most`, which is what the pass is to remove.
    pub fn take(&mut self, by: PassId, due: DateTime<Utc>, abandoned: DateTime<Utc>, most: usize) -> Vec<Digest> {
        let mut taken = Vec::new();
        for (digest, mark) in &mut self.0 {
            let is_due = match mark {
                Mark::Unused(since) => since.is_some_and(|since| since <= due),
                Mark::Going { by: other, since } => *other == by || since.is_some_and(|since| since <= abandoned),
            };
            if is_due && taken.len() < most {
                *mark = Mark::Going { by, since: None };
                taken.push(*digest);
            }
        }
        taken
    }

    /// Forgets what this pass has removed.
    pub fn gone(&mut self, by: PassId, removed: &[Digest]) {
        for digest in removed {
            if matches!(self.0.get(digest), Some(Mark::Going { by: other, .. }) if *other == by) {
                self.0.remove(digest);
            }
        }
    }

    /// Since when each content is marked that is not on its way out.
    pub fn unused(&self) -> impl Iterator<Item = (Digest, DateTime<Utc>)> {
        self.0.iter().filter_map(|(digest, mark)| match mark {
            Mark::Unused(since) => since.map(|since| (*digest, since)),
            Mark::Going { .. } => None,
        })
    }

    /// How many marks there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
