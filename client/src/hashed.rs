//! Files of this machine, hashed by their content.

use std::{
    fs::{File, Metadata},
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    time::SystemTime,
};

use anyhow::{Context as _, bail};
use bus::ids::Digest;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use sha2::{Digest as _, Sha256};
use store::compression;

use super::progress::Progress;

/// The size of a read, in bytes.
pub(super) const CHUNK: usize = 256 << 10;

/// A local file, and the digest of its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashed {
    /// The local path.
    pub source: PathBuf,
    /// Its content's SHA-256.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Its modification time before it was read.
    pub modified: Option<SystemTime>,
}

/// Reads files to learn their hashes, in the given order.
///
/// # Errors
/// If a file cannot be read, or changes while it is read.
pub async fn hash(sources: Vec<PathBuf>, bar: &Progress) -> anyhow::Result<Vec<Hashed>> {
    let hash_one = |source: PathBuf| {
        let bar = bar.clone();
        async move { tokio::task::spawn_blocking(move || hash_file(source, &bar)).await? }
    };
    stream::iter(sources).map(hash_one).buffered(2).try_collect().await
}

fn hash_file(source: PathBuf, bar: &Progress) -> anyhow::Result<Hashed> {
    let cannot = || format!("cannot read {}", source.display());
    let mut file = File::open(&source).with_context(cannot)?;
    let before = file.metadata().with_context(cannot)?;
    let (mut hasher, mut size, mut buffer) = (Sha256::new(), 0, vec![0; CHUNK]);
    loop {
        let read = file.read(&mut buffer).with_context(cannot)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        size += read as u64;
        bar.add(read as u64);
    }
    let after = file.metadata().with_context(cannot)?;
    if !is_at_rest((&before, &after), size) {
        bail!(
            "{} changed while it was read; run again when it no longer changes, or send a copy of it",
            source.display()
        );
    }
    Ok(Hashed {
        modified: after.modified().ok(),
        source,
        sha256: Digest::finish(hasher),
        size,
    })
}

/// Whether a file was unchanged while it was read. Files without a size (`/proc`) are not checked.
fn is_at_rest((before, after): (&Metadata, &Metadata), read: u64) -> bool {
    let stamp = |meta: &Metadata| (meta.len(), meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
    !after.is_file() || after.len() == 0 && before.len() == 0 || (stamp(before) == stamp(after) && after.len() == read)
}

/// Whether compression makes a file sufficiently smaller.
pub(super) fn shrinks(file: &Hashed) -> bool {
    let mut beginning = Vec::with_capacity(compression::SAMPLE);
    let mut read = || {
        File::open(&file.source)?
            .take(compression::SAMPLE as u64)
            .read_to_end(&mut beginning)
    };
    file.size >= compression::MIN_BYTES && read().is_ok() && compression::pays(&beginning)
}

/// Whether a file has changed since it was hashed.
pub(super) fn changed(file: &Hashed) -> bool {
    let Ok(meta) = std::fs::metadata(&file.source) else { return true };
    let is_later = file.modified.is_some_and(|then| meta.modified().is_ok_and(|now| now != then));
    meta.len() != file.size || is_later
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_that_changes_while_it_is_read_is_told_from_one_at_rest() -> anyhow::Result<()> {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(b"12345")?;
        let before = file.as_file().metadata()?;
        assert!(is_at_rest((&before, &before), 5));
        assert!(!is_at_rest((&before, &before), 4), "it grew and shrank again");
        file.write_all(b"6")?;
        assert!(!is_at_rest((&before, &file.as_file().metadata()?), 5));
        let hashed = hash_file(file.path().to_owned(), &Progress::hidden())?;
        assert!(hashed.size == 6 && !changed(&hashed));
        // As many bytes, and others.
        file.as_file().set_modified(SystemTime::UNIX_EPOCH)?;
        assert!(changed(&hashed));
        let kernel = std::fs::metadata("/proc/self/status")?;
        assert!(is_at_rest((&kernel, &kernel), 1000), "its size is not known before");
        Ok(())
    }
}
