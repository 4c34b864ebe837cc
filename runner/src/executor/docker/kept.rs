//! The containers that a restarting runner left running, which no other runner of the machine may remove: read from the file that the
//! restarting runner wrote (`restart::note`), and from a second file that the next runner writes when it takes them over.

use std::{fs, io, path::Path};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::executor::{Left, process::proc};

/// The name of the file that lists the containers that the next runner took over.
const TAKEN_OVER: &str = "taken-up.json";

/// What matters here of the restarting runner's note.
#[derive(Debug, Deserialize)]
struct Note {
    /// Until when the next runner may take the containers over.
    deadline: DateTime<Utc>,
    attempts: Vec<NotedAttempt>,
}

#[derive(Debug, Deserialize)]
struct NotedAttempt {
    command: Left,
}

#[derive(Debug, Serialize, Deserialize)]
struct TakenOver {
    /// The process that took the containers over.
    runner: String,
    containers: Vec<String>,
}

/// Whether a container whose runner is gone must stay: the note at this path lists it and its deadline has not passed, or a runner that
/// is alive took it over.
#[must_use]
pub(super) fn is_kept(note: &Path, container: &str) -> bool {
    let noted = fs::read(note).ok().and_then(|json| serde_json::from_slice::<Note>(&json).ok());
    if noted.is_some_and(|note| note.deadline > Utc::now() && note.attempts.iter().any(|left| left.command.container == container)) {
        return true;
    }
    let taken_over = fs::read(note.with_file_name(TAKEN_OVER)).ok();
    taken_over
        .and_then(|json| serde_json::from_slice::<TakenOver>(&json).ok())
        .is_some_and(|taken| taken.runner.parse().is_ok_and(proc::is_alive) && taken.containers.iter().any(|known| known == container))
}

/// Notes that this process has taken these containers over, for the other runners of the machine; to be called before the note of the
/// restarting runner is removed.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn note_taken_over(work_dir: &Path, containers: Vec<String>) -> io::Result<()> {
    let runner = proc::this_process()?.to_string();
    let beside = work_dir.join(format!("{TAKEN_OVER}.new"));
    fs::write(&beside, serde_json::to_vec(&TakenOver { runner, containers })?)?;
    fs::rename(&beside, work_dir.join(TAKEN_OVER))
}
