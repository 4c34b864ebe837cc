//! The note of a restarting runner for the next one: its session, and the attempts whose containers continue to run.
//!
//! It is a file in the work directory, and is written last. Without it, the last runner did not announce a restart: the commands that it
//! left are killed, and their results are not committed.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use bus::ids::{SessionId, WorkerId};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::attempt::left::LeftAttempt;

/// The file's name.
pub(crate) const FILE: &str = "restart.json";

/// A session that continues in the next runner.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Note {
    /// Whose session.
    pub(crate) worker: WorkerId,
    /// Which.
    pub(crate) session: SessionId,
    /// Until when the next runner may resume it.
    pub(crate) deadline: DateTime<Utc>,
    /// The sequence of the session's last claim: attempts that were claimed up to there and are not listed here have ended.
    pub(crate) last_claim: u64,
    /// The boot of the machine: no container outlives the next one.
    boot: String,
    /// The attempts that continue.
    pub(crate) attempts: Vec<LeftAttempt>,
}

impl Note {
    /// A note of a session.
    #[must_use]
    pub(crate) fn new(
        (worker, session): (WorkerId, SessionId),
        deadline: DateTime<Utc>,
        last_claim: u64,
        attempts: Vec<LeftAttempt>,
    ) -> Self {
        Self {
            worker,
            session,
            deadline,
            last_claim,
            boot: boot(),
            attempts,
        }
    }

    /// Writes it: whole, or not at all.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub(crate) fn write(&self, work_dir: &Path) -> io::Result<()> {
        let (path, beside) = (work_dir.join(FILE), work_dir.join(format!("{FILE}.new")));
        let mut file = fs::File::create(&beside)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        fs::File::open(work_dir)?.sync_all()
    }

    /// The note of this worker's last runner, unless the machine was booted since.
    #[must_use]
    pub(crate) fn read(work_dir: &Path, worker: &WorkerId) -> Option<Self> {
        let path = work_dir.join(FILE);
        let json = fs::read(&path).ok()?;
        match serde_json::from_slice::<Self>(&json) {
            Ok(note) if note.worker == *worker && note.boot == boot() => Some(note),
            Ok(_) => None,
            Err(error) => {
                warn!(
                    "cannot read the last runner's note {}: {error}; its containers are removed",
                    path.display()
                );
                None
            }
        }
    }

    /// Removes the file: its attempts are continued, or given up.
    pub(crate) fn discard(work_dir: &Path) {
        match fs::remove_file(work_dir.join(FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => warn!("cannot remove {FILE} in {}: {error}", work_dir.display()),
            _ => {}
        }
    }

    /// The directories of the attempts that continue.
    #[must_use]
    pub(crate) fn roots(&self) -> Vec<PathBuf> {
        self.attempts.iter().map(|left| left.root.clone()).collect()
    }
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_next_runner_of_the_worker_reads_a_note() {
        let dir = tempfile::tempdir().expect("a directory");
        let worker: WorkerId = "w".parse().expect("a worker");
        let note = Note::new((worker.clone(), SessionId::new()), Utc::now(), 7, Vec::new());
        note.write(dir.path()).expect("written");
        let read = Note::read(dir.path(), &worker).expect("a note");
        assert_eq!((read.session, read.deadline, read.last_claim), (note.session, note.deadline, 7));
        assert!(Note::read(dir.path(), &"other".parse().expect("a worker")).is_none());
        let rebooted = Note {
            boot: "another".to_owned(),
            ..note
        };
        rebooted.write(dir.path()).expect("written");
        assert!(Note::read(dir.path(), &worker).is_none());
        Note::discard(dir.path());
        assert!(Note::read(dir.path(), &worker).is_none());
    }
}
