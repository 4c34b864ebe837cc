//! Laying an attempt's files out: in its work directory, what the job names.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use bus::{
    files::{self, Files},
    ids::Digest,
    spec::InputFile,
};
use futures::{StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};

use crate::patience::patiently;

/// Files that are fetched at once.
const AT_ONCE: usize = 8;

/// Why an attempt's files could not be laid out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The worker's disk.
    #[error("cannot lay out the job's files in {path}: {source}")]
    Disk {
        /// Where.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// The store.
    #[error("cannot fetch the input {path}: {}", chain(source))]
    Fetch {
        /// The input.
        path: String,
        /// What happened.
        source: files::Error,
    },
}

/// An error with everything that caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}

/// What a file was when it was laid out, to tell whether the command changed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Laid {
    /// Its content.
    pub(crate) sha256: Digest,
    /// Its size in bytes.
    pub(crate) size: u64,
    /// When it was last written.
    pub(crate) modified: Option<SystemTime>,
}

/// Fetches the inputs into a work directory, each verified against its hash; tells what was laid where.
///
/// # Errors
/// If the store lacks one, or the disk does not take it.
pub(crate) async fn lay(files: &Files, work: &Path, inputs: &[InputFile]) -> Result<HashMap<PathBuf, Laid>, Error> {
    futures::stream::iter(inputs.iter().cloned().map(|input| async move {
        let relative = PathBuf::from(input.path.as_str());
        let path = work.join(&relative);
        let disk = |source| Error::Disk {
            path: path.clone(),
            source,
        };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(disk)?;
        }
        patiently("fetch an input", || files.get_file(&input.sha256, &path, input.executable))
            .await
            .map_err(|source| Error::Fetch {
                path: input.path.to_string(),
                source,
            })?;
        let modified = std::fs::metadata(&path).map_err(disk)?.modified().ok();
        let laid = Laid {
            sha256: input.sha256,
            size: input.size,
            modified,
        };
        Ok((relative, laid))
    }))
    .buffer_unordered(AT_ONCE)
    .try_collect()
    .await
}
