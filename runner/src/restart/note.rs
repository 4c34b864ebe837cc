//! What a runner that restarts leaves to the next one: containers that go on running, and how far their attempts are.
//!
//! It stands in a file of the work directory, written last of all. Where there is none, the runner before did not announce its
//! end: whatever it left is killed, and nothing of that is committed.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use bus::ids::{Attempt, JobId, SessionId, WorkerId};
use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::{
    attempt::inputs::Laid,
    executor::{Left, process::proc},
    log::spool::Suspended,
};

/// The file's name.
pub(crate) const FILE: &str = "restart.json";

/// The name of the file that says which of them the next runner took up.
const TAKEN: &str = "taken-up.json";

#[derive(Debug, Serialize, Deserialize)]
struct TakenUp {
    /// The process that did.
    runner: String,
    containers: Vec<String>,
}

/// A session that goes on with the next runner.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Note {
    /// Whose session.
    pub(crate) worker: WorkerId,
    /// Which.
    pub(crate) session: SessionId,
    /// Until when it is waited for.
    pub(crate) deadline: DateTime<Utc>,
    /// The sequence of the session's last claim: what was claimed up to there and is not listed here, is nowhere.
    pub(crate) last_claim: u64,
    /// Which start of the machine it was: no container outlives the next one.
    boot: String,
    /// What goes on.
    pub(crate) attempts: Vec<LeftAttempt>,
}

/// An attempt whose command goes on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LeftAttempt {
    /// The job.
    pub(crate) job: JobId,
    /// Which try at it.
    pub(crate) attempt: Attempt,
    /// Its directory.
    pub(crate) root: PathBuf,
    /// The inputs that were laid there.
    pub(crate) laid: Vec<(PathBuf, Laid)>,
    /// The links that were laid there.
    #[serde(default)]
    pub(crate) links: Vec<(PathBuf, String)>,
    /// The directories that were laid there by themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) dirs: Vec<PathBuf>,
    /// When its command began.
    pub(crate) begun: DateTime<Utc>,
    /// Its log up to there.
    pub(crate) log: Suspended,
    /// Its container.
    pub(crate) command: Left,
}

/// What a session leaves behind, as its attempts add to it, until it is noted for the next runner.
#[derive(Debug)]
pub(crate) struct LeftBehind(Mutex<Option<Vec<LeftAttempt>>>);

impl Default for LeftBehind {
    fn default() -> Self {
        Self(Mutex::new(Some(Vec::new())))
    }
}

impl LeftBehind {
    /// Adds an attempt.
    ///
    /// # Errors
    /// The attempt itself, where what is left was noted already: nobody would find it.
    pub(crate) fn add(&self, left: LeftAttempt) -> Result<(), Box<LeftAttempt>> {
        match self.0.lock().as_mut() {
            Some(all) => {
                all.push(left);
                Ok(())
            }
            None => Err(Box::new(left)),
        }
    }

    /// Everything that was left, to be noted; nothing can be added any more.
    pub(crate) fn close(&self) -> Vec<LeftAttempt> {
        self.0.lock().take().unwrap_or_default()
    }
}

impl Note {
    /// What is left of a session.
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

    /// What the last runner of this worker left here, if it left anything that can still be there.
    #[must_use]
    pub(crate) fn read(work_dir: &Path, worker: &WorkerId) -> Option<Self> {
        let path = work_dir.join(FILE);
        let json = fs::read(&path).ok()?;
        match serde_json::from_slice::<Self>(&json) {
            Ok(note) if note.worker == *worker && note.boot == boot() => Some(note),
            Ok(_) => None,
            Err(error) => {
                warn!(
                    "cannot read what the last runner left in {}: {error}; its containers are ended",
                    path.display()
                );
                None
            }
        }
    }

    /// Whether a container is not to be touched although the runner that started it is gone: that one noted it in this file and is
    /// still waited for, or the one after it took it up.
    #[must_use]
    pub(crate) fn keeps(path: &Path, container: &str) -> bool {
        let note = fs::read(path).ok().and_then(|json| serde_json::from_slice::<Self>(&json).ok());
        if note.is_some_and(|note| note.deadline > Utc::now() && note.attempts.iter().any(|left| left.command.container == container)) {
            return true;
        }
        let taken = fs::read(path.with_file_name(TAKEN)).ok();
        taken
            .and_then(|json| serde_json::from_slice::<TakenUp>(&json).ok())
            .is_some_and(|taken| taken.runner.parse().is_ok_and(proc::is_alive) && taken.containers.iter().any(|taken| taken == container))
    }

    /// Notes that this process has taken these containers up, for others on this machine who see whose they were; before the note
    /// is discarded.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub(crate) fn taken_up(work_dir: &Path, containers: Vec<String>) -> io::Result<()> {
        let runner = proc::this_process()?.to_string();
        let beside = work_dir.join(format!("{TAKEN}.new"));
        fs::write(&beside, serde_json::to_vec(&TakenUp { runner, containers })?)?;
        fs::rename(&beside, work_dir.join(TAKEN))
    }

    /// Takes the file away: what stood in it is taken up, or given up.
    pub(crate) fn discard(work_dir: &Path) {
        match fs::remove_file(work_dir.join(FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => warn!("cannot remove {FILE} in {}: {error}", work_dir.display()),
            _ => {}
        }
    }

    /// The directories of what goes on.
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
    fn a_note_is_for_the_next_runner_of_that_worker_and_for_no_other() {
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
