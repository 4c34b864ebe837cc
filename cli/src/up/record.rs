//! Records of the processes of a grid, in `run/`: for `status`, and to find what a killed supervisor left behind.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

use anyhow::Context;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{dir::DataDir, part::Part, process::Identity};

/// What a part is doing, as `rgrid status` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PartState {
    /// It waits for what it needs, or for its process to answer.
    Starting,
    /// It is up.
    Running,
    /// It ended, and is started again after a while.
    Restarting,
    /// It was asked to end.
    Stopping,
    /// It is not there.
    Stopped,
}

/// One part, as its supervisor last saw it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct PartRecord {
    pub(super) part: Part,
    pub(super) state: PartState,
    pub(super) process: Option<Identity>,
    /// When its process was started.
    pub(super) since: Option<DateTime<Utc>>,
    pub(super) restarts: u32,
    pub(super) port: Option<u16>,
    /// How its last process ended, if one did.
    pub(super) last_end: Option<String>,
}

/// The supervisor, as it sees itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct UpRecord {
    pub(super) process: Identity,
    pub(super) since: DateTime<Utc>,
    pub(super) phase: Phase,
    /// Parts that had to be killed as the grid went down, and how. Read by `rgrid down`.
    #[serde(default)]
    pub(super) killed: Vec<Part>,
}

/// Where a supervisor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Phase {
    Starting,
    Up,
    Stopping,
    Ended,
}

impl DataDir {
    pub(super) fn write_part(&self, record: &PartRecord) -> anyhow::Result<()> {
        write_json(&self.run().join(format!("{}.json", record.part)), record)
    }

    /// What stands about a part; `None` if nothing does, or nothing that can be read.
    pub(super) fn read_part(&self, part: Part) -> Option<PartRecord> {
        read_json(&self.run().join(format!("{part}.json"))).ok()
    }

    pub(super) fn write_up(&self, record: &UpRecord) -> anyhow::Result<()> {
        write_json(&self.run().join("up.json"), record)
    }

    pub(super) fn read_up(&self) -> io::Result<UpRecord> {
        read_json(&self.run().join("up.json"))
    }
}

/// Replaces a file whole, so that a reader never sees half of it. Readable by its owner alone.
fn write_json<T: Serialize>(path: &Path, value: &T) -> anyhow::Result<()> {
    replace(path, &serde_json::to_vec_pretty(value)?, false).with_context(|| format!("cannot write {}", path.display()))
}

/// Replaces a file whole, readable by its owner alone; `durable` if it must survive a power cut, which takes milliseconds.
pub(super) fn replace(path: &Path, content: &[u8], durable: bool) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    file.write_all(content)?;
    if durable {
        file.as_file().sync_all()?;
    }
    file.persist(path)?;
    Ok(())
}

fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}
