//! The marks of one shard, which are written together. Pure.

use std::collections::{BTreeMap, HashSet};

use bus::ids::{Digest, PassId};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The most marks of one shard: about 400 KB, so that it fits into a message. A later pass marks the rest.
pub(super) const MARKS_MAX: usize = 4_096;

/// The marks of the contents whose hashes begin with the same byte.
///
/// A mark without a time was made when the shard was stored, by the server's clock: the reader fills in that time. So no mark is older than
/// it says, however long its writer stood still.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shard(BTreeMap<Digest, Mark>);

/// The mark of an unused content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mark {
    /// It may be removed, if it is still unused after its grace period.
    Unused(#[serde(default)] Since),
    /// A pass removes it. It counts as missing, and can be stored again once that is done.
    #[serde(rename = "going")]
    BeingDeleted { by: PassId, since: Since },
}

/// Since when; `None` in a mark that is not stored yet.
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
            let (Mark::Unused(since) | Mark::BeingDeleted { since, .. }) = mark;
            since.get_or_insert(stored);
        }
        self
    }

    /// Whether a content has a mark.
    #[must_use]
    pub fn contains(&self, digest: &Digest) -> bool {
        self.0.contains_key(digest)
    }

    /// Removes the marks of these contents, which a client looked up; returns those that are being deleted, whose marks stay.
    pub fn renew<'a>(&mut self, digests: impl IntoIterator<Item = &'a Digest>) -> HashSet<Digest> {
        let mut being_deleted = HashSet::new();
        for digest in digests {
            match self.0.get(digest) {
                Some(Mark::Unused(_)) => drop(self.0.remove(digest)),
                Some(Mark::BeingDeleted { .. }) => drop(being_deleted.insert(*digest)),
                None => {}
            }
        }
        being_deleted
    }

    /// Updates the marks to what a pass found: unused contents have a mark, as far as there is room, and others have none, except those that
    /// are being deleted.
    pub fn align(&mut self, unused: &HashSet<Digest>) {
        self.0
            .retain(|digest, mark| matches!(mark, Mark::BeingDeleted { .. }) || unused.contains(digest));
        for digest in unused {
            if self.0.len() >= MARKS_MAX {
                break;
            }
            self.0.entry(*digest).or_insert(Mark::Unused(None));
        }
    }

    /// Marks contents as being deleted by this pass: those that were marked before `due`, and those that another pass left so before
    /// `abandoned`. At most `most`. The pass must remove them.
    pub fn take(&mut self, by: PassId, due: DateTime<Utc>, abandoned: DateTime<Utc>, most: usize) -> Vec<Digest> {
        let mut taken = Vec::new();
        for (digest, mark) in &mut self.0 {
            let is_due = match mark {
                Mark::Unused(since) => since.is_some_and(|since| since <= due),
                Mark::BeingDeleted { by: other, since } => *other == by || since.is_some_and(|since| since <= abandoned),
            };
            if is_due && taken.len() < most {
                *mark = Mark::BeingDeleted { by, since: None };
                taken.push(*digest);
            }
        }
        taken
    }

    /// Removes the marks of contents that this pass has deleted.
    pub fn deleted(&mut self, by: PassId, removed: &[Digest]) {
        for digest in removed {
            if matches!(self.0.get(digest), Some(Mark::BeingDeleted { by: other, .. }) if *other == by) {
                self.0.remove(digest);
            }
        }
    }

    /// The contents that are marked as unused, and since when.
    pub fn unused(&self) -> impl Iterator<Item = (Digest, DateTime<Utc>)> {
        self.0.iter().filter_map(|(digest, mark)| match mark {
            Mark::Unused(since) => since.map(|since| (*digest, since)),
            Mark::BeingDeleted { .. } => None,
        })
    }

    /// How many marks there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no marks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
