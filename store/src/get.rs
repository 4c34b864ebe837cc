//! Reads contents, verified against their digests.

use std::{
    fs::Permissions,
    io::{self, Write as _},
    ops::Range,
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use bus::ids::Digest;
use bytes::{Bytes, BytesMut};
use futures::{Stream, TryStreamExt as _, stream::BoxStream};
use object_store::{GetOptions, GetResult, ObjectStore, ObjectStoreExt as _};
use tempfile::NamedTempFile;
use tokio::{sync::mpsc, task::spawn_blocking};

use super::{
    Error, Files,
    key::content_key,
    nats::CallerVerifies,
    verify::{Meter, verified},
};

/// How many chunks may wait to be written to a file.
const CHUNKS_AHEAD: usize = 4;

impl Files {
    /// The content of `digest`, of at most `max` bytes.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Corrupt`], [`Error::TooLarge`]; the store fails.
    pub async fn get_bytes(&self, digest: &Digest, max: usize) -> Result<Bytes, Error> {
        let found = self.get(digest).await?;
        let size = found.meta.size;
        if size > max as u64 {
            return Err(Error::TooLarge {
                digest: *digest,
                size,
                max: max as u64,
            });
        }
        let mut meter = Meter::default();
        let mut chunks = found.into_stream();
        // A single chunk is returned without a copy.
        let (mut first, mut content) = (None, BytesMut::new());
        while let Some(chunk) = chunks.try_next().await.map_err(|source| Error::reading(*digest, source))? {
            meter.update(&chunk);
            if meter.size() > max as u64 {
                return Err(Error::Corrupt {
                    digest: *digest,
                    why: format!("it is longer than its {size} bytes"),
                });
            }
            match first.take() {
                // The first chunk; a small file has no other.
                None if content.is_empty() => first = Some(chunk),
                before => {
                    content.reserve(size as usize - content.len().min(size as usize));
                    content.extend(before);
                    content.extend_from_slice(&chunk);
                }
            }
        }
        meter.check(digest).map_err(|why| Error::Corrupt { digest: *digest, why })?;
        Ok(first.unwrap_or_else(|| content.freeze()))
    }

    /// Writes the content of `digest` to `path`, in constant memory, and returns its size in bytes. The file appears
    /// there only when it is complete and verified, and replaces an existing one. It is readable by all users, and executable if `executable`.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Corrupt`]; the file cannot be written; the store fails.
    pub async fn get_file(&self, digest: &Digest, path: &Path, executable: bool) -> Result<u64, Error> {
        let mut chunks = self.get(digest).await?.into_stream();
        let (queue, incoming) = mpsc::channel(CHUNKS_AHEAD);
        let (target, expected) = (path.to_owned(), *digest);
        let writing = |source| Error::Io {
            doing: "write",
            path: path.to_owned(),
            source,
        };
        let writer = spawn_blocking(move || write_file(&target, executable, &expected, incoming));
        let mut failure = None;
        loop {
            match chunks.try_next().await {
                Ok(Some(chunk)) => {
                    if queue.send(Ok(chunk)).await.is_err() {
                        break;
                    }
                }
                Ok(None) => break,
                Err(source) => {
                    failure = Some(Error::reading(*digest, source));
                    // The writer removes its temporary file. If the writer is gone, so is the file.
                    let _gone = queue.send(Err(())).await;
                    break;
                }
            }
        }
        drop(queue);
        let written = writer.await.map_err(|error| writing(error.into()))?;
        match (failure, written.map_err(writing)?) {
            (Some(failure), _) => Err(failure),
            (None, Ok(size)) => Ok(size),
            (None, Err(why)) => Err(Error::Corrupt { digest: *digest, why }),
        }
    }

    /// The size of the content of `digest` in bytes, and the content. If it is damaged, the stream ends with an error
    /// instead of its last chunk.
    ///
    /// # Errors
    /// [`Error::Missing`]; the store fails.
    pub async fn get_stream(
        &self,
        digest: &Digest,
    ) -> Result<(u64, impl Stream<Item = Result<Bytes, Error>> + Send + Unpin + use<>), Error> {
        let found = self.get(digest).await?;
        let (size, digest) = (found.meta.size, *digest);
        let chunks = found.into_stream().map_err(move |source| Error::reading(digest, source));
        let stream: BoxStream<'static, _> = verified(chunks, digest, move |why| Error::Corrupt { digest, why });
        Ok((size, stream))
    }

    /// A part of the content of `digest`. Only this part is read, so that it cannot be verified.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Range`] if the content ends before; the store fails.
    pub async fn get_range(&self, digest: &Digest, range: Range<u64>) -> Result<Bytes, Error> {
        let missing = Error::Range {
            digest: *digest,
            start: range.start,
            end: range.end,
        };
        if range.is_empty() {
            return Err(missing);
        }
        match self.store.get_range(&content_key(digest), range.clone()).await {
            Ok(bytes) if bytes.len() as u64 == range.end - range.start => Ok(bytes),
            Ok(_) => Err(missing),
            Err(source) => match self.store.head(&content_key(digest)).await {
                Ok(meta) if meta.size < range.end => Err(missing),
                _ => Err(Error::reading(*digest, source)),
            },
        }
    }

    async fn get(&self, digest: &Digest) -> Result<GetResult, Error> {
        let mut options = GetOptions::default();
        options.extensions.insert(CallerVerifies(*digest));
        self.store
            .get_opts(&content_key(digest), options)
            .await
            .map_err(|source| Error::reading(*digest, source))
    }
}

/// Writes chunks to a temporary file, and renames it to `path` if its digest is the expected one; otherwise returns what is wrong.
fn write_file(
    path: &Path,
    executable: bool,
    expected: &Digest,
    mut incoming: mpsc::Receiver<Result<Bytes, ()>>,
) -> io::Result<Result<u64, String>> {
    let beside = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = NamedTempFile::with_prefix_in(".rgrid-", beside)?;
    let mut meter = Meter::default();
    while let Some(chunk) = incoming.blocking_recv() {
        let Ok(chunk) = chunk else {
            return Ok(Err("it could not be read to its end".to_owned()));
        };
        meter.update(&chunk);
        file.write_all(&chunk)?;
    }
    let size = match meter.check(expected) {
        Ok(size) => size,
        Err(why) => return Ok(Err(why)),
    };
    file.as_file()
        .set_permissions(Permissions::from_mode(if executable { 0o755 } else { 0o644 }))?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(Ok(size))
}
