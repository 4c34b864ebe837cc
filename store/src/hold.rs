//! Asking whether content is there, which holds it there for a grace.

use std::{collections::HashSet, time::Duration};

use bus::ids::Digest;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::ObjectStoreExt as _;
use tokio::time::{Instant, sleep};

use super::{Error, Files, key::content_key, marks::Held};

/// How many questions are asked of the store at once.
const QUESTIONS_MAX: usize = 32;
/// How long a put waits for the removal of the same content to be over, and how often it looks.
const REMOVAL: (Duration, Duration) = (Duration::from_secs(20), Duration::from_millis(100));

/// What is known of a content that is about to be stored.
pub(super) struct Absent(Option<Held>);

impl Files {
    /// Whether the content is in the store. If it is, it stays for a grace from now on, even if nothing refers to it.
    ///
    /// # Errors
    /// The store, or where its marks are, does not answer.
    pub async fn has(&self, digest: &Digest) -> Result<bool, Error> {
        let held = self.hold(&[*digest]).await?;
        Ok(!is_going(held.as_ref(), digest) && self.exists(digest).await?)
    }

    /// Those of `digests` that are not in the store, in their order. The others stay for a grace from now on.
    ///
    /// # Errors
    /// The store, or where its marks are, does not answer.
    pub async fn missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, Error> {
        let going = self.going(digests).await?;
        let going = &going;
        stream::iter(digests.to_vec())
            .map(|digest| async move {
                let there = !going.contains(&digest) && self.exists(&digest).await?;
                Ok((!there).then_some(digest))
            })
            .buffered(QUESTIONS_MAX)
            .try_filter_map(|missing| std::future::ready(Ok(missing)))
            .try_collect()
            .await
    }

    /// Those of `digests` that are on their way out: they can be put only when that is over.
    ///
    /// # Errors
    /// Where the marks are, nobody answers.
    pub async fn going(&self, digests: &[Digest]) -> Result<HashSet<Digest>, Error> {
        Ok(self.hold(digests).await?.map_or_else(HashSet::new, |held| held.going))
    }

    /// Nothing if the content is there, and is held; waits for its removal, if that is under way.
    pub(super) async fn absent(&self, digest: Digest) -> Result<Option<Absent>, Error> {
        let since = Instant::now();
        loop {
            let held = self.hold(&[digest]).await?;
            if !is_going(held.as_ref(), &digest) {
                return Ok((!self.exists(&digest).await?).then_some(Absent(held)));
            }
            if since.elapsed() >= REMOVAL.0 {
                return Err(Error::Going { digest });
            }
            sleep(REMOVAL.1).await;
        }
    }

    /// Makes sure that what was stored, after it was found to be absent, has not been removed meanwhile: the same content may have
    /// been put by another, and found unused, while this one was on its way.
    pub(super) async fn stored(&self, digest: Digest, absent: &Absent) -> Result<(), Error> {
        if absent.0.as_ref().is_none_or(Held::still) || self.has(&digest).await? {
            return Ok(());
        }
        Err(Error::Going { digest })
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

fn is_going(held: Option<&Held>, digest: &Digest) -> bool {
    held.is_some_and(|held| held.going.contains(digest))
}
