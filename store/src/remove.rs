//! What is in a store, and taking contents out of it.

use bus::ids::Digest;
use bytes::Bytes;
use futures::{Stream, TryStreamExt as _};
use object_store::{ObjectMeta, ObjectStoreExt as _, path::Path};

use super::{Error, Files, key::content_key};

/// An object of the store.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// The content that it is; nothing for what is not kept by content.
    pub digest: Option<Digest>,
    /// Its size in bytes.
    pub size: u64,
    /// Tells this version of it from another.
    pub tag: Option<String>,
}

/// What came of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// It is gone.
    Gone,
    /// It was not there, or had been replaced since it was listed.
    NotThere,
}

impl From<ObjectMeta> for Entry {
    fn from(meta: ObjectMeta) -> Self {
        let name = meta.location.to_string();
        let text = name.strip_prefix("sha256/").and_then(|rest| rest.split_once('/'));
        let digest = text.and_then(|(_, text)| text.parse::<Digest>().ok());
        Self {
            digest: digest.filter(|digest| Files::key(digest) == meta.location),
            name,
            size: meta.size,
            tag: meta.e_tag,
        }
    }
}

impl Files {
    /// Everything in the store, also what is not kept by content.
    pub fn entries(&self) -> impl Stream<Item = Result<Entry, Error>> + Send + 'static {
        self.store
            .list(None)
            .map_ok(Entry::from)
            .map_err(|source| Error::store("list the store", source))
    }

    /// An object that is not kept by content; nothing where there is none of that name. For small ones: it is held in memory.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn object(&self, name: &str) -> Result<Option<Bytes>, Error> {
        let unread = |source| Error::store("read from the store", source);
        match self.store.get(&Path::from(name)).await {
            Ok(found) => found.bytes().await.map(Some).map_err(unread),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(unread(source)),
        }
    }

    /// Takes an object out of the store that is not kept by content; it need not be there.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn discard(&self, name: &str) -> Result<(), Error> {
        match self.store.delete(&Path::from(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(Error::store("remove from the store", source)),
        }
    }

    /// Takes a content out of the store. In NATS it is done only to the version that was listed; elsewhere, to whatever is there.
    ///
    /// # Errors
    /// The store does not answer; the content may be gone then.
    pub async fn remove(&self, digest: &Digest, tag: Option<&str>) -> Result<Removed, Error> {
        let location = content_key(digest);
        if let (Some(nats), Some(tag)) = (&self.nats, tag) {
            let removed = nats.remove(&location, tag).await?;
            return Ok(if removed { Removed::Gone } else { Removed::NotThere });
        }
        match self.store.delete(&location).await {
            Ok(()) => Ok(Removed::Gone),
            Err(object_store::Error::NotFound { .. }) => Ok(Removed::NotThere),
            Err(source) => Err(Error::store("remove from the store", source)),
        }
    }
}
