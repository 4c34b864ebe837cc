//! A `JetStream` object-store bucket as an [`ObjectStore`].
//!
//! The format is the official one (ADR-20), so that `nats object get` and every NATS client can read these objects,
//! and the other way round: the stream `OBJ_<bucket>` holds the content as chunks under `$O.<bucket>.C.<nuid>` and
//! one message of metadata a name under `$O.<bucket>.M.<name in base64>`. In addition, the metadata holds the stream
//! sequences of the chunks, so that a read requests exactly those (see [`info`]).
//!
//! Content is stored once: putting the same content under the same name again changes nothing, since the chunks of a replaced object are
//! purged although a client may be reading them.

mod bucket;
mod error;
mod info;
mod list;
mod read;
mod setup;
mod sweep;
mod write;

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use async_nats::jetstream;
use async_trait::async_trait;
use bus::ids::{Digest, Token};
use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use object_store::{
    CopyMode, CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};

pub use self::error::Error;
use self::{bucket::Bucket, info::ObjectInfo, write::ObjectUpload};
use super::verify::verified;

/// In the `extensions` of a put or a get: the content's SHA-256, from a caller that verifies the content itself and completes no upload that
/// differs. It saves hashing the same bytes twice.
#[derive(Debug, Clone, Copy)]
pub struct CallerVerifies(pub Digest);

/// A bucket of a `JetStream` object store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Nats {
    bucket: Arc<Bucket>,
}

impl Nats {
    /// Opens `bucket`; creates its stream, with `replicas` copies, if it does not exist, and otherwise checks it.
    ///
    /// Use a connection of its own: other messages over the same one would wait behind the chunks.
    ///
    /// # Errors
    /// The server does not answer, or the stream has the wrong configuration.
    pub async fn open(context: jetstream::Context, bucket: &Token, replicas: usize) -> Result<Self, Error> {
        let bucket = Arc::new(Bucket::open(context, bucket, replicas).await?);
        Ok(Self { bucket })
    }

    /// Waits until every upload has ended, and the chunks of those that were dropped half-way are purged.
    pub async fn settled(&self) {
        self.bucket.settled().await;
    }

    /// Purges the chunks of unfinished uploads whose last chunk is older than `age`; returns how many uploads.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn sweep(&self, age: Duration) -> Result<u64, Error> {
        sweep::sweep(&self.bucket, age).await
    }

    /// Removes an object completely, if it still has the version of this tag; returns whether it did.
    ///
    /// # Errors
    /// The server does not answer. The object may be removed, and its chunks left for [`Self::sweep`].
    pub async fn remove(&self, location: &Path, tag: &str) -> Result<bool, Error> {
        let name = location.as_ref();
        let Some((info, marker)) = self.bucket.remove_if(name, tag).await? else {
            return Ok(false);
        };
        self.bucket.purge_chunks(&info.nuid).await?;
        self.bucket.forget(name, marker).await?;
        Ok(true)
    }

    async fn found(&self, location: &Path) -> Result<ObjectInfo> {
        match self.bucket.info(location.as_ref()).await? {
            Some((info, _)) if !info.deleted => Ok(info),
            _ => Err(Error::NotFound {
                name: location.to_string(),
            }
            .into()),
        }
    }

    fn read(&self, location: &Path, info: &ObjectInfo, options: &GetOptions) -> Result<GetResult> {
        let meta = info.meta(location.clone());
        options.check_preconditions(&meta)?;
        let range = match &options.range {
            None => 0..meta.size,
            Some(range) => range.as_range(meta.size).map_err(|error| object_store::Error::Generic {
                store: "nats",
                source: error.into(),
            })?,
        };
        let wanted = if options.head { 0..0 } else { range.clone() };
        let whole = wanted == (0..meta.size);
        let content = read::content(&self.bucket, info, wanted).map_err(object_store::Error::from);
        let content = match info.digest() {
            Some(digest) if whole && options.extensions.get::<CallerVerifies>().is_none() => {
                let name = location.to_string();
                verified(content, digest, move |why| Error::Torn { name, why }.into())
            }
            _ => content.boxed(),
        };
        Ok(GetResult {
            payload: GetResultPayload::Stream(content),
            meta,
            range,
            attributes: Default::default(),
            extensions: Default::default(),
        })
    }

    async fn delete(&self, location: &Path) -> Result<()> {
        let (info, _) = self.bucket.remove(location.as_ref()).await?;
        Ok(self.bucket.purge_chunks(&info.nuid).await?)
    }
}

impl fmt::Display for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nats://{}", self.bucket.name())
    }
}

#[async_trait]
impl ObjectStore for Nats {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        refuse_attributes(opts.attributes.is_empty())?;
        let mut upload = ObjectUpload::begin(&self.bucket, location, opts.extensions.get::<CallerVerifies>().copied());
        for bytes in payload {
            upload.write(bytes).await?;
        }
        upload.finish(&opts.mode).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        refuse_attributes(opts.attributes.is_empty())?;
        let upload = ObjectUpload::begin(&self.bucket, location, opts.extensions.get::<CallerVerifies>().copied());
        Ok(Box::new(write::Multipart::start(upload)))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let refused = |why: String| object_store::Error::NotSupported { source: why.into() };
        if options.version.is_some() {
            return Err(refused("only the last version of an object is kept".to_owned()));
        }
        loop {
            let info = self.found(location).await?;
            if info.is_link() {
                return Err(refused(format!("{location} is a link to another object")));
            }
            let mut result = self.read(location, &info, &options)?;
            let GetResultPayload::Stream(mut content) = result.payload else {
                return Ok(result);
            };
            // If the object was replaced just now, its old chunks are gone: read the new ones.
            let first = content.next().await;
            if matches!(first, Some(Err(_))) && self.found(location).await?.nuid != info.nuid {
                continue;
            }
            result.payload = GetResultPayload::Stream(stream::iter(first).chain(content).boxed());
            return Ok(result);
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .map(move |location| {
                let store = store.clone();
                async move {
                    let location = location?;
                    store.delete(&location).await.map(|()| location)
                }
            })
            .buffered(10)
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.cloned();
        list::all(Arc::clone(&self.bucket))
            .map_err(object_store::Error::from)
            .try_filter(move |meta| std::future::ready(prefix.as_ref().is_none_or(|prefix| is_below(&meta.location, prefix))))
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let depth = prefix.map_or(0, |prefix| prefix.parts().count());
        let (mut objects, mut common) = (Vec::new(), BTreeSet::new());
        let mut found = self.list(prefix);
        while let Some(meta) = found.try_next().await? {
            if meta.location.parts().count() == depth + 1 {
                objects.push(meta);
            } else {
                common.insert(meta.location.parts().take(depth + 1).collect::<Path>());
            }
        }
        Ok(ListResult {
            common_prefixes: common.into_iter().collect(),
            objects,
            extensions: Default::default(),
        })
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let info = self.found(from).await?;
        let mut content = self.get_opts(from, GetOptions::default()).await?.into_stream();
        let mut upload = ObjectUpload::begin(&self.bucket, to, info.digest().map(CallerVerifies));
        while let Some(chunk) = content.try_next().await? {
            upload.write(chunk).await?;
        }
        let mode = match options.mode {
            CopyMode::Overwrite => PutMode::Overwrite,
            CopyMode::Create => PutMode::Create,
        };
        upload.finish(&mode).await.map(drop)
    }
}

fn refuse_attributes(none: bool) -> Result<()> {
    if none {
        return Ok(());
    }
    Err(object_store::Error::NotImplemented {
        operation: "put with attributes".to_owned(),
        implementer: "nats".to_owned(),
    })
}

/// Whether `location` is below `prefix`, and not `prefix` itself.
fn is_below(location: &Path, prefix: &Path) -> bool {
    location.prefix_match(prefix).is_some_and(|mut rest| rest.next().is_some())
}
