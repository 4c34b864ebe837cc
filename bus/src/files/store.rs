//! The store: what is in it, under which name.

use std::{fmt, path::Path, sync::Arc};

use async_nats::jetstream;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::{ObjectStore, ObjectStoreExt as _, aws::AmazonS3Builder, local::LocalFileSystem, path::Path as Key};
use url::Url;

use super::{Error, StoreUrl, nats::Nats};
use crate::ids::Digest;

/// How many questions are asked of the store at once.
const QUESTIONS_MAX: usize = 32;

/// One MiB in bytes.
pub(super) const MIB: usize = 1024 * 1024;

/// Files by content. Cheap to clone, and safe to use from many tasks and processes at once: the same content is stored once,
/// and is not visible before it is whole and verified.
#[derive(Debug, Clone)]
pub struct Files {
    pub(super) store: Arc<dyn ObjectStore>,
    /// The bytes of a part of an upload.
    pub(super) part_size: usize,
    url: Arc<StoreUrl>,
}

impl Files {
    /// Opens the store at `url`. A `nats://` store is kept on the server that `nats` is connected to; that connection should
    /// carry nothing else, since heartbeats would wait behind the chunks.
    ///
    /// # Errors
    /// The store cannot be reached or used, or `nats` is missing for a `nats://` store.
    pub async fn open(url: &StoreUrl, nats: Option<jetstream::Context>) -> Result<Self, Error> {
        let (store, part_size): (Arc<dyn ObjectStore>, _) = match url {
            StoreUrl::Nats { bucket, replicas } => {
                let context = nats.ok_or_else(|| Error::NotConnected { url: url.to_string() })?;
                (Arc::new(Nats::open(context, bucket, *replicas).await?), MIB)
            }
            // S3 takes at most 10,000 parts, of 5 MiB or more.
            StoreUrl::S3 {
                bucket,
                endpoint,
                region,
                credentials,
            } => (
                Arc::new(s3(bucket, endpoint.as_ref(), region.as_deref(), credentials.as_ref())?),
                8 * MIB,
            ),
            StoreUrl::File { dir } => (Arc::new(directory(dir).await?), 4 * MIB),
        };
        Ok(Self {
            store,
            part_size,
            url: Arc::new(url.clone()),
        })
    }

    /// Where the files are.
    #[must_use]
    pub fn url(&self) -> &StoreUrl {
        &self.url
    }

    /// What stands behind, for what goes beyond single contents: listing, deleting.
    #[must_use]
    pub fn object_store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The name under which the content is in the store, the same in every kind of store.
    #[must_use]
    pub fn key(digest: &Digest) -> Key {
        key(digest)
    }

    /// Whether the content is in the store.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn has(&self, digest: &Digest) -> Result<bool, Error> {
        match self.store.head(&key(digest)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(source) => Err(Error::Store {
                doing: "look into the store",
                source,
            }),
        }
    }

    /// Those of `digests` that are not in the store, in their order.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, Error> {
        stream::iter(digests.to_vec())
            .map(|digest| async move { self.has(&digest).await.map(|has| (!has).then_some(digest)) })
            .buffered(QUESTIONS_MAX)
            .try_filter_map(|missing| std::future::ready(Ok(missing)))
            .try_collect()
            .await
    }
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

/// The name of some content: its first byte makes 256 directories of a local one.
pub(super) fn key(digest: &Digest) -> Key {
    let text = digest.to_string();
    Key::from(format!("sha256/{}/{text}", &text[..2]))
}

fn s3(
    bucket: &str,
    endpoint: Option<&Url>,
    region: Option<&str>,
    credentials: Option<&(String, String)>,
) -> Result<impl ObjectStore + use<>, Error> {
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
    if let Some(endpoint) = endpoint {
        builder = builder
            .with_endpoint(endpoint.as_str().trim_end_matches('/'))
            .with_allow_http(endpoint.scheme() == "http")
            .with_virtual_hosted_style_request(false);
    }
    if let Some(region) = region {
        builder = builder.with_region(region);
    }
    if let Some((key, secret)) = credentials {
        builder = builder.with_access_key_id(key).with_secret_access_key(secret);
    }
    builder.build().map_err(|source| Error::Store {
        doing: "set up the S3 store",
        source,
    })
}

async fn directory(dir: &Path) -> Result<LocalFileSystem, Error> {
    let made = tokio::fs::create_dir_all(dir).await;
    made.map_err(|source| Error::Io {
        doing: "create",
        path: dir.to_owned(),
        source,
    })?;
    // Durable like the other stores: what is acknowledged survives a power cut.
    let store = LocalFileSystem::new_with_prefix(dir).map_err(|source| Error::Store {
        doing: "open the directory of the files",
        source,
    })?;
    Ok(store.with_fsync(true))
}
