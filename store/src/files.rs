//! The store: what is in it, under which name.

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

/// Files by content. Cheap to clone, and safe to use from many tasks and processes at once: the same content is stored once,
/// and is not visible before it is whole and verified.
#[derive(Debug, Clone)]
pub struct Files {
    pub(super) store: Arc<dyn ObjectStore>,
    /// The bytes of a part of an upload.
    pub(super) part_size: usize,
    /// Takes back uploads that were dropped half-way.
    pub(super) cleanups: TaskTracker,
    /// The store, if it is in NATS.
    pub(super) nats: Option<Nats>,
    /// The marks on what nothing refers to; nothing where nothing is ever removed.
    pub(super) marks: Option<Marks>,
    presigner: Option<Presigner>,
    url: Arc<StoreUrl>,
}

impl Files {
    /// Opens the store at `url`. A `nats://` store is kept on the server that `nats` is connected to; that connection should
    /// carry nothing else, since heartbeats would wait behind the chunks.
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

    /// Heeds these marks: whoever is told that a content is there has it for a grace from then on. Every process must do so that
    /// stores contents, or asks for them, where others remove what is not used.
    #[must_use]
    pub fn heeding(self, marks: Marks) -> Self {
        Self {
            marks: Some(marks),
            ..self
        }
    }

    /// Where the files are.
    #[must_use]
    pub fn url(&self) -> &StoreUrl {
        &self.url
    }

    /// What signs requests to the store for those who have no credentials; nothing where there is nobody who would take them.
    #[must_use]
    pub const fn presigner(&self) -> Option<&Presigner> {
        self.presigner.as_ref()
    }

    /// What stands behind, for what goes beyond single contents: listing, deleting.
    #[must_use]
    pub fn object_store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The name under which the content is in the store, the same in every kind of store.
    #[must_use]
    pub fn key(digest: &Digest) -> Key {
        content_key(digest)
    }

    /// Waits until every upload has ended, and those that were dropped half-way are taken back: to be called before the process
    /// ends.
    pub async fn settled(&self) {
        self.cleanups.close();
        self.cleanups.wait().await;
        self.cleanups.reopen();
        if let Some(nats) = &self.nats {
            nats.settled().await;
        }
    }

    /// Purges what uploads left behind whose process died, if the last of it is older than `age`, and returns how many uploads
    /// that were. Only a store in NATS needs it: a bucket in S3 has rules of its own for incomplete uploads.
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
