//! Output files on their way back: verified, and in place whole or not at all.

use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use api::view::ArtifactView;
use bus::ids::{Digest, JobId};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::Method;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::{Client, encode_path};
use crate::output::Bar;

/// Files that are fetched at once.
const AT_ONCE: usize = 4;

/// What was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Saved {
    /// Where.
    pub(crate) paths: Vec<PathBuf>,
    /// Bytes together.
    pub(crate) bytes: u64,
}

/// Fetches output files of a job into a directory, each under its own relative path. What is there is replaced.
///
/// # Errors
/// At the first file that cannot be fetched or saved; those before it are there.
pub(crate) async fn save_outputs(client: &Client, job: JobId, files: Vec<ArtifactView>, into: &Path) -> anyhow::Result<Saved> {
    let bytes = files.iter().map(|file| file.size).sum();
    let bar = Bar::new("fetching", bytes);
    let targets = files
        .iter()
        .map(|file| target(into, file.path.as_str()))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let parents: BTreeSet<&Path> = targets.iter().filter_map(|target| target.parent()).collect();
    for parent in parents {
        fs::create_dir_all(parent).with_context(|| format!("cannot make the directory {}", parent.display()))?;
    }
    let save_one = |(file, target): (ArtifactView, PathBuf)| {
        let bar = bar.clone();
        async move {
            save(client, job, &file, &target, &bar).await.with_context(|| {
                format!(
                    "cannot save the output {}; fetch it again with `rgrid download {job}`",
                    target.display()
                )
            })
        }
    };
    stream::iter(files.into_iter().zip(targets.clone()))
        .map(save_one)
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    bar.finish();
    Ok(Saved { paths: targets, bytes })
}

/// Where an output belongs. Its path was checked when it was read; this is the last gate before the disk.
fn target(into: &Path, path: &str) -> anyhow::Result<PathBuf> {
    let inside = !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    ensure!(
        inside,
        "the job has an output named `{}`, which lies outside of its directory; it was not saved",
        path.escape_debug()
    );
    Ok(into.join(path))
}

async fn save(client: &Client, job: JobId, file: &ArtifactView, target: &Path, bar: &Bar) -> anyhow::Result<()> {
    // As the script itself would have done, a link is written through.
    let target = if target.is_symlink() {
        fs::canonicalize(target).unwrap_or_else(|_| target.to_owned())
    } else {
        target.to_owned()
    };
    ensure!(!target.is_dir(), "a directory of that name is in the way");
    let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mode = fs::metadata(&target).map_or(0o666, |meta| meta.permissions().mode() & 0o777) | if file.executable { 0o111 } else { 0 };
    let was_there = target.exists();
    let mut temp = tempfile::Builder::new()
        .prefix(".rgrid-")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(dir)?;
    fetch(client, job, file, &mut temp, bar).await?;
    if was_there {
        // The umask may have taken bits from a mode that the user had chosen.
        temp.as_file().set_permissions(Permissions::from_mode(mode))?;
    }
    temp.persist(&target).map_err(|error| error.error)?;
    Ok(())
}

async fn fetch(client: &Client, job: JobId, file: &ArtifactView, temp: &mut NamedTempFile, bar: &Bar) -> anyhow::Result<()> {
    let path = format!("/v1/jobs/{job}/artifacts/{}", encode_path(file.path.as_str()));
    let response = client.send(client.request(Method::GET, &path)).await?;
    let (mut chunks, mut hasher) = (response.bytes_stream(), Sha256::new());
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.context("the connection broke")?;
        bar.add(chunk.len() as u64);
        // Hashing and writing a chunk of some 10 KB takes microseconds: not worth another thread's while.
        hasher.update(&chunk);
        temp.write_all(&chunk)?;
    }
    temp.flush()?;
    if Digest::finish(hasher) != file.sha256 {
        bail!("what arrived is not what was stored (its SHA-256 differs)");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_saved_outside() {
        let into = Path::new("/home/me");
        for path in ["../x", "/etc/passwd", "a/../../x", "", "./x", ".."] {
            assert!(target(into, path).is_err(), "{path}");
        }
        assert_eq!(target(into, "out/ä b\n.csv").ok(), Some(PathBuf::from("/home/me/out/ä b\n.csv")));
    }
}
