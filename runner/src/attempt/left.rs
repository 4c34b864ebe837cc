//! The attempts that a runner which restarts leaves running for the next runner of its worker.

use std::path::PathBuf;

use bus::ids::{Attempt, JobId};
use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::{executor::Left, inputs::Laid, log::spool::Suspended};

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
