//! The attempts that a runner which restarts leaves running for the next runner of its worker.

use std::path::PathBuf;

use bus::ids::{Attempt, JobId};
use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::{executor::Left, inputs::StagedFile, log::spool::Suspended};

/// An attempt whose command continues in the next runner.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LeftAttempt {
    /// The job.
    pub(crate) job: JobId,
    /// The attempt.
    pub(crate) attempt: Attempt,
    /// Its directory.
    pub(crate) root: PathBuf,
    /// The inputs that were staged there.
    pub(crate) laid: Vec<(PathBuf, StagedFile)>,
    /// The links that were staged there.
    #[serde(default)]
    pub(crate) links: Vec<(PathBuf, String)>,
    /// The directories that were staged there by themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) dirs: Vec<PathBuf>,
    /// When its command began.
    pub(crate) begun: DateTime<Utc>,
    /// Its log so far.
    pub(crate) log: Suspended,
    /// Its container.
    pub(crate) command: Left,
}

/// The attempts that a session leaves, until they are noted for the next runner.
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
    /// The attempt itself, where the note is written already, so that the next runner would not find the attempt.
    pub(crate) fn add(&self, left: LeftAttempt) -> Result<(), Box<LeftAttempt>> {
        match self.0.lock().as_mut() {
            Some(all) => {
                all.push(left);
                Ok(())
            }
            None => Err(Box::new(left)),
        }
    }

    /// Takes all attempts, to be noted; none can be added after that.
    pub(crate) fn close(&self) -> Vec<LeftAttempt> {
        self.0.lock().take().unwrap_or_default()
    }
}
