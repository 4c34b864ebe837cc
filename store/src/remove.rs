//! Lists the store, and removes objects from it.

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
    /// Its digest, if it is a content.
    pub digest: Option<Digest>,
    /// Its size in bytes.
    pub size: u64,
    /// Identifies this version of it.
    pub tag: Option<String>,
}

/// The result of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// It was removed.
    Gone,
    /// It did not exist, or was replaced after it was listed.
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
    /// All objects of the store, also those that are not contents.
    pub fn entries(&self) -> impl Stream<Item = Result<Entry, Error>> + Send + 'static {
        self.store
            .list(None)
            .map_ok(Entry::from)
            .map_err(|source| Error::store("list the store", source))
    }

    /// Reads an object that is not a content into memory; `None` if it does not exist.
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

    /// Removes an object that is not a content, if it exists.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn discard(&self, name: &str) -> Result<(), Error> {
        match self.store.delete(&Path::from(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(Error::store("remove from the store", source)),
        }
    }

    /// Removes a content. In NATS, only the version that was listed is removed; in other stores, any version.
    ///
    /// # Errors
    /// The store does not answer; the content may have been removed.
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
