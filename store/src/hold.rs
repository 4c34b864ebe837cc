//! Looks up whether contents are in the store, which keeps them there for the grace period.

use std::{collections::HashSet, time::Duration};

use bus::ids::Digest;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::ObjectStoreExt as _;
use tokio::time::{Instant, sleep};

use super::{Error, Files, key::content_key, marks::Held};

/// How many requests to the store are in flight.
const LOOKUPS_MAX: usize = 32;
/// How long a put waits for the deletion of the same content, and how often it checks.
const DELETION_WAIT: (Duration, Duration) = (Duration::from_secs(20), Duration::from_millis(100));

/// The marks of a content that is about to be stored, as they were when it was looked up.
pub(super) struct Absent(Option<Held>);

impl Files {
    /// Whether the content is in the store. If it is, it is kept for the grace period from now on, even if nothing refers to it.
    ///
    /// # Errors
    /// The store or its marks do not answer.
    pub async fn has(&self, digest: &Digest) -> Result<bool, Error> {
        let held = self.hold(&[*digest]).await?;
        Ok(!is_being_deleted(held.as_ref(), digest) && self.exists(digest).await?)
    }

    /// Those of `digests` that are not in the store, in their order. The others are kept for the grace period from now on.
    ///
    /// # Errors
    /// The store or its marks do not answer.
    pub async fn missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, Error> {
        let being_deleted = self.being_deleted(digests).await?;
        let being_deleted = &being_deleted;
        stream::iter(digests.to_vec())
            .map(|digest| async move {
                let there = !being_deleted.contains(&digest) && self.exists(&digest).await?;
                Ok((!there).then_some(digest))
            })
            .buffered(LOOKUPS_MAX)
            .try_filter_map(|missing| std::future::ready(Ok(missing)))
            .try_collect()
            .await
    }

    /// Those of `digests` that are being deleted: they can be stored again once that is done.
    ///
    /// # Errors
    /// The marks do not answer.
    pub async fn being_deleted(&self, digests: &[Digest]) -> Result<HashSet<Digest>, Error> {
        Ok(self.hold(digests).await?.map_or_else(HashSet::new, |held| held.being_deleted))
    }

    /// `None` if the content is in the store, and is kept. If it is being deleted, waits until that is done.
    pub(super) async fn absent(&self, digest: Digest) -> Result<Option<Absent>, Error> {
        let since = Instant::now();
        loop {
            let held = self.hold(&[digest]).await?;
            if !is_being_deleted(held.as_ref(), &digest) {
                return Ok((!self.exists(&digest).await?).then_some(Absent(held)));
            }
            if since.elapsed() >= DELETION_WAIT.0 {
                return Err(Error::BeingDeleted { digest });
            }
            sleep(DELETION_WAIT.1).await;
        }
    }

    /// Makes sure that a content that was stored, after it was found to be absent, has not been removed meanwhile: another client may have
    /// stored the same content, and a storage pass may have found it unused.
    pub(super) async fn stored(&self, digest: Digest, absent: &Absent) -> Result<(), Error> {
        if absent.0.as_ref().is_none_or(Held::is_valid) || self.has(&digest).await? {
            return Ok(());
        }
        Err(Error::BeingDeleted { digest })
    }

    async fn hold(&self, digests: &[Digest]) -> Result<Option<Held>, Error> {
        match &self.marks {
            Some(marks) => Box::pin(marks.hold(digests)).await.map(Some),
            None => Ok(None),
        }
    }

    async fn exists(&self, digest: &Digest) -> Result<bool, Error> {
        match self.store.head(&content_key(digest)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(source) => Err(Error::store("look into the store", source)),
        }
    }
}

fn is_being_deleted(held: Option<&Held>, digest: &Digest) -> bool {
    held.is_some_and(|held| held.being_deleted.contains(digest))
}
