//! The file store.

use std::{fmt, sync::Arc, time::Duration};

use async_nats::jetstream;
use bus::ids::Digest;
use object_store::{ObjectStore, path::Path as Key};
use tokio_util::task::TaskTracker;

use super::{
    Error, StoreUrl,
    key::content_key,
    marks::Marks,
    nats::Nats,
    open::{self, Opened},
    presign::Presigner,
};

/// The file store. Cheap to clone, and safe to use from many tasks and processes at once: a content is stored once, and is visible only when
/// it is complete and verified.
#[derive(Debug, Clone)]
pub struct Files {
    pub(super) store: Arc<dyn ObjectStore>,
    /// The bytes of a part of an upload.
    pub(super) part_size: usize,
    /// Cleans up uploads that were dropped half-way.
    pub(super) cleanups: TaskTracker,
    /// The store, if it is in NATS.
    pub(super) nats: Option<Nats>,
    /// The marks on unused contents; `None` if contents are never removed.
    pub(super) marks: Option<Marks>,
    presigner: Option<Presigner>,
    url: Arc<StoreUrl>,
}

impl Files {
    /// Opens the store at `url`. A `nats://` store is kept on the server that `nats` is connected to; use a connection
    /// of its own, since other messages would wait behind the chunks.
    ///
    /// # Errors
    /// The store cannot be reached or used, or `nats` is missing for a `nats://` store.
    pub async fn open(url: &StoreUrl, nats: Option<jetstream::Context>) -> Result<Self, Error> {
        let Opened {
            store,
            part_size,
            nats,
            presigner,
        } = open::open(url, nats).await?;
        Ok(Self {
            store,
            part_size,
            cleanups: TaskTracker::new(),
            nats,
            marks: None,
            presigner,
            url: Arc::new(url.clone()),
        })
    }

    /// Uses these marks: a content that is looked up is kept for the grace period from then on. Required in every process that stores or looks
    /// up contents, if storage passes remove unused ones.
    #[must_use]
    pub fn with_marks(self, marks: Marks) -> Self {
        Self {
            marks: Some(marks),
            ..self
        }
    }

    /// The store's URL.
    #[must_use]
    pub fn url(&self) -> &StoreUrl {
        &self.url
    }

    /// Signs requests to an S3 store for clients without credentials; `None` for other stores, or if clients may not use it.
    #[must_use]
    pub const fn presigner(&self) -> Option<&Presigner> {
        self.presigner.as_ref()
    }

    /// The object store, to list and to delete.
    #[must_use]
    pub fn object_store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The key of a content in the store, the same in every kind of store.
    #[must_use]
    pub fn key(digest: &Digest) -> Key {
        content_key(digest)
    }

    /// Waits until every upload has ended, and uploads that were dropped half-way are cleaned up. Call it before the process ends.
    pub async fn settled(&self) {
        self.cleanups.close();
        self.cleanups.wait().await;
        self.cleanups.reopen();
        if let Some(nats) = &self.nats {
            nats.settled().await;
        }
    }

    /// Removes incomplete uploads of processes that died, if their last chunk is older than `age`, and returns how many there were. Only a
    /// store in NATS needs it: S3 has lifecycle rules for incomplete uploads.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn sweep(&self, age: Duration) -> Result<u64, Error> {
        match &self.nats {
            Some(nats) => Ok(nats.sweep(age).await?),
            None => Ok(0),
        }
    }
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}
