//! Publishes `runtimes.toml` to the log: at the start, and after every edit.

use std::{
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use bus::{
    grid::runtimes::RuntimesSet,
    log::{
        aggregates::Grid,
        writer::{Outcome, Writer},
    },
};
use tracing::{debug, error, info};

use super::file::{self, Wrong};
use crate::error::chain;

/// How often the file is checked. It is read once it has not changed between two checks, so that no half-written file is read.
const CHECK_EVERY: Duration = Duration::from_millis(500);
/// The largest such file, in bytes: it becomes one event.
const MAX_BYTES: u64 = 256 << 10;

/// Identifies a state of the file: inode, modification time, length.
type Stamp = (u64, i64, i64, u64);

fn stamp(path: &Path) -> io::Result<Stamp> {
    let meta = std::fs::metadata(path)?;
    Ok((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
}

/// Reads a file.
///
/// # Errors
/// [`Wrong`] if it cannot be read, or is invalid.
pub(crate) fn load(path: &Path) -> Result<RuntimesSet, Wrong> {
    let shown = path.display();
    let cannot = |error: io::Error| {
        Wrong(format!(
            "cannot read the runtimes from {shown}: {error}; make it readable, or leave out --runtimes"
        ))
    };
    if std::fs::metadata(path).map_err(cannot)?.len() > MAX_BYTES {
        return Err(Wrong(format!(
            "{shown} is longer than {MAX_BYTES} bytes; leave out what is built in"
        )));
    }
    file::read(path, &std::fs::read_to_string(path).map_err(cannot)?)
}

/// Publishes a file, at once and after each edit. An invalid file is logged once, and the runtimes stay as they were.
pub(crate) async fn follow(path: PathBuf, writer: Writer) {
    // The state that was published or rejected, and the state at the last check.
    let (mut settled, mut seen) = (None, None);
    loop {
        let now = stamp(&path).ok();
        if now != settled && (now == seen || settled.is_none()) {
            match load(&path) {
                Ok(set) => match publish(&writer, &set).await {
                    Ok(published) => {
                        if let Some(sequence) = published {
                            info!("published the runtimes of {} (event {sequence})", path.display());
                        }
                        settled = now;
                    }
                    // Retried at the next check.
                    Err(why) => debug!("cannot publish {}: {why}; trying again", path.display()),
                },
                Err(wrong) => {
                    error!("{wrong}; the runtimes stay as they were");
                    settled = now;
                }
            }
        }
        seen = now;
        tokio::time::sleep(CHECK_EVERY).await;
    }
}

/// Appends the runtimes, and returns the event's sequence; `None` if the log has the same ones.
async fn publish(writer: &Writer, set: &RuntimesSet) -> Result<Option<u64>, String> {
    match writer.write::<RuntimesSet>(&Grid, set).await {
        Ok(Outcome::Appended(_, sequence)) => Ok(Some(sequence)),
        Ok(Outcome::Rejected(..)) => Ok(None),
        Err(error) => Err(chain(&error)),
    }
}
