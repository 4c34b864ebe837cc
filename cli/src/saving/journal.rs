//! The journal of files that saving a job's outputs replaced or removed, for `rgrid undo`.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use bus::ids::{Digest, JobId};
use serde::{Deserialize, Serialize};

use super::state;

/// From so many bytes on, nothing more is noted: half a million paths.
const BOUND: u64 = 48 << 20;

/// One change to a directory, recorded before it is made.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "did")]
pub(crate) enum JournalEntry {
    /// A file or link replaced another one, which is kept.
    Replaced {
        /// The directory below which outputs are saved.
        base: PathBuf,
        /// The path from there.
        path: String,
        /// Under which path the old one is kept, from the job's directory for that.
        kept: String,
        /// What identifies the old one.
        old: Digest,
        /// What identifies the new one.
        new: Digest,
    },
    /// A file that had been sent was removed.
    Removed {
        /// The directory.
        base: PathBuf,
        /// The path from there.
        path: String,
        /// Its content's SHA-256.
        sha256: Digest,
        /// Its size in bytes.
        size: u64,
        /// Its permission bits.
        mode: u32,
    },
    /// A link that had been sent was removed.
    RemovedLink {
        /// The directory.
        base: PathBuf,
        /// The path from there.
        path: String,
        /// What it said.
        target: String,
    },
    /// A directory was removed, which was empty then.
    RemovedDirectory {
        /// The directory.
        base: PathBuf,
        /// The path from there.
        path: String,
    },
    /// All before was undone.
    Undone,
    /// And done again.
    Redone,
}

/// The journal of one job.
#[derive(Debug, Clone)]
pub(crate) struct Journal(Option<PathBuf>);

impl Journal {
    /// Of this job.
    pub(crate) fn of(job: JobId) -> Self {
        Self(state::dir().map(|dir| dir.join("undo").join(format!("{job}.jsonl"))))
    }

    /// Notes what will be done. Where that fails, it cannot be undone by name; what is replaced is kept all the same.
    pub(crate) fn note(&self, deeds: &[JournalEntry]) {
        if let Some(file) = self.0.as_deref() {
            let _not_noted = state::append(file, deeds, BOUND, <[u8]>::to_vec);
        }
    }

    /// What was done, each once, and whether it is undone now.
    pub(crate) fn read(&self) -> (Vec<JournalEntry>, bool) {
        let lines: Vec<JournalEntry> = self.0.as_deref().map(state::lines).unwrap_or_default();
        let (mut undone, mut deeds, mut seen) = (false, Vec::new(), HashSet::new());
        for line in lines {
            match line {
                JournalEntry::Undone => undone = true,
                JournalEntry::Redone => undone = false,
                deed => {
                    if seen.insert(deed.clone()) {
                        deeds.push(deed);
                    }
                }
            }
        }
        (deeds, undone)
    }
}

/// A directory by a path that holds from everywhere.
pub(crate) fn absolute(dir: &Path) -> PathBuf {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    dir.canonicalize()
        .or_else(|_| std::path::absolute(dir))
        .unwrap_or_else(|_| dir.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_read_once_with_the_last_word_on_whether_it_is_undone() {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = Journal(Some(dir.path().join("undo/x.jsonl")));
        assert_eq!(journal.read(), (Vec::new(), false));
        let deed = JournalEntry::RemovedDirectory {
            base: "/here".into(),
            path: "inbox".to_owned(),
        };
        journal.note(&[deed.clone(), deed.clone()]);
        journal.note(&[JournalEntry::Undone]);
        assert_eq!(journal.read(), (vec![deed.clone()], true));
        journal.note(&[JournalEntry::Redone]);
        assert_eq!(journal.read(), (vec![deed], false));
    }
}
