//! The way of `runtimes.toml` into the log: read at the start, and again whenever it was edited.

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

/// How often the file is looked at. Half-written ones are not read: it must have stood still from one look to the next.
const LOOK: Duration = Duration::from_millis(500);
/// The largest such file, in bytes: it becomes one event.
const MAX_BYTES: u64 = 256 << 10;

/// What tells one state of a file from another.
type Stamp = (u64, i64, i64, u64);

fn stamp(path: &Path) -> io::Result<Stamp> {
    let meta = std::fs::metadata(path)?;
    Ok((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
}

/// Reads a file.
///
/// # Errors
/// [`Wrong`] if it cannot be read, or meant.
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

/// Says what a file says, at once and after each edit, for ever. What cannot be meant is told once, and what was said before goes on.
pub(crate) async fn follow(path: PathBuf, writer: Writer) {
    // The file's state that was said, or complained of; and the one that was seen last.
    let (mut settled, mut seen) = (None, None);
    loop {
        let now = stamp(&path).ok();
        if now != settled && (now == seen || settled.is_none()) {
            match load(&path) {
                Ok(set) => match say(&writer, &set).await {
                    Ok(said) => {
                        if let Some(sequence) = said {
                            info!("the grid's runtimes are as {} has them now (event {sequence})", path.display());
                        }
                        settled = now;
                    }
                    // At the next look.
                    Err(why) => debug!("cannot say yet what {} says: {why}", path.display()),
                },
                Err(wrong) => {
                    error!("{wrong}; the grid's runtimes stay as they were");
                    settled = now;
                }
            }
        }
        seen = now;
        tokio::time::sleep(LOOK).await;
    }
}

/// Appends what the log does not say already; nothing where it does.
async fn say(writer: &Writer, set: &RuntimesSet) -> Result<Option<u64>, String> {
    match writer.write::<RuntimesSet>(&Grid, set).await {
        Ok(Outcome::Appended(_, sequence)) => Ok(Some(sequence)),
        Ok(Outcome::Rejected(..)) => Ok(None),
        Err(error) => Err(chain(&error)),
    }
}
