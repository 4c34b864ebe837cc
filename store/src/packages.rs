//! The index of installed packages in the store: `packages/<key>`, each a small JSON object that names its archive, which is stored by
//! content.
//!
//! Nothing else refers to the archive. An entry whose archive is missing is written again by the next worker that installs the same packages.

use bus::ids::Digest;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use object_store::{ObjectStoreExt as _, PutPayload, path::Path};
use serde::{Deserialize, Serialize};

use super::{Error, Files};

/// The prefix of the entries in the store.
pub const PACKAGES: &str = "packages";
/// The largest entry, in bytes.
const LARGEST: u64 = 4096;
/// How old `used_at` may become before it is renewed, so that not every job writes to the store.
pub const RENEW_AFTER: TimeDelta = TimeDelta::hours(12);

/// Installed packages in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackagesEntry {
    /// The archive's content: tar, compressed with zstd.
    pub archive: Digest,
    /// The archive's size in bytes.
    pub size: u64,
    /// What it unpacks to, in bytes.
    pub unpacked: u64,
    /// When it was made.
    pub made_at: DateTime<Utc>,
    /// When a worker last used it; not before `made_at`, and up to half a day late.
    pub used_at: DateTime<Utc>,
}

impl PackagesEntry {
    /// Parses an object of the store, by its name and its text; `None` if it is not an entry.
    #[must_use]
    pub fn read(name: &str, text: &[u8]) -> Option<Self> {
        let key = name.strip_prefix(PACKAGES)?.strip_prefix('/')?;
        key.parse::<Digest>().ok()?;
        serde_json::from_slice(text).ok()
    }
}

fn path(key: &Digest) -> Path {
    Path::from(format!("{PACKAGES}/{key}"))
}

impl Files {
    /// The packages of this key, if the store has them.
    ///
    /// # Errors
    /// If the store does not answer, or holds something else there.
    pub async fn packages(&self, key: &Digest) -> Result<Option<PackagesEntry>, Error> {
        let failed = |source| Error::store("look for stored packages", source);
        let wrong = |why: String| {
            failed(object_store::Error::Precondition {
                path: path(key).to_string(),
                source: why.into(),
            })
        };
        let json = match self.object_store().get(&path(key)).await {
            Ok(found) if found.meta.size <= LARGEST => found.bytes().await.map_err(failed)?,
            Ok(found) => return Err(wrong(format!("it has {} bytes", found.meta.size))),
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        serde_json::from_slice(&json).map(Some).map_err(|error| wrong(error.to_string()))
    }

    /// Writes the entry of this key, replacing an existing one.
    ///
    /// # Errors
    /// If the store does not take it.
    pub async fn put_packages(&self, key: &Digest, entry: &PackagesEntry) -> Result<(), Error> {
        let json = serde_json::to_vec(entry).unwrap_or_default();
        let put = self.object_store().put(&path(key), PutPayload::from(Bytes::from(json))).await;
        put.map(drop).map_err(|source| Error::store("note stored packages", source))
    }

    /// Renews `used_at` if it is old and the archive is in the store.
    ///
    /// # Errors
    /// If the store does not take it.
    pub async fn use_packages(&self, key: &Digest, entry: PackagesEntry) -> Result<(), Error> {
        let now = Utc::now();
        // To ask for the archive keeps it for its grace, so that no pass takes it before it sees the entry.
        if now - entry.used_at < RENEW_AFTER || !self.has(&entry.archive).await? {
            return Ok(());
        }
        self.put_packages(key, &PackagesEntry { used_at: now, ..entry }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_stored_is_found_until_something_else_is() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::TempDir::new()?;
        let files = Files::open(&format!("file://{}", dir.path().display()).parse()?, None).await?;
        let key = Digest::of(b"key");
        assert_eq!(files.packages(&key).await?, None);
        let long_ago = Utc::now() - TimeDelta::days(30);
        let entry = PackagesEntry {
            archive: Digest::of(b"archive"),
            size: 7,
            unpacked: 70,
            made_at: long_ago,
            used_at: long_ago,
        };
        let text = serde_json::to_vec(&entry)?;
        assert_eq!(PackagesEntry::read(path(&key).as_ref(), &text).as_ref(), Some(&entry));
        for (name, text) in [("packages/x", &text[..]), ("other/packages", &text), (path(&key).as_ref(), b"{}")] {
            assert_eq!(PackagesEntry::read(name, text), None, "{name}");
        }
        files.put_packages(&key, &entry).await?;
        assert_eq!(files.packages(&key).await?.as_ref(), Some(&entry));
        files.use_packages(&key, entry.clone()).await?;
        assert_eq!(files.packages(&key).await?.as_ref(), Some(&entry), "there is no archive");
        files.put_bytes(Bytes::from_static(b"archive")).await?;
        files.use_packages(&key, entry).await?;
        let used = files.packages(&key).await?.ok_or("it is gone")?;
        assert!(used.used_at > long_ago && used.made_at == long_ago);
        files.use_packages(&key, used.clone()).await?;
        assert_eq!(files.packages(&key).await?, Some(used), "it was noted just now");
        for nonsense in [&b"{}"[..], &[b' '; 5000]] {
            files.object_store().put(&path(&key), PutPayload::from(nonsense.to_vec())).await?;
            assert!(files.packages(&key).await.is_err_and(|error| !error.is_transient()));
        }
        Ok(())
    }
}
