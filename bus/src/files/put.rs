//! Storing content.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _, pin_mut};
use tokio::{sync::mpsc, task::spawn_blocking};

use super::{
    Error, Files,
    store::MIB,
    upload::{SINGLE_MAX, Upload, put_single},
    verify::Meter,
};
use crate::ids::Digest;

/// How many blocks of a file are read ahead of the sending.
const BLOCKS_AHEAD: usize = 2;

/// A file as it was found when it was read the first time.
enum Found {
    Small(Bytes),
    Large { digest: Digest, size: u64 },
}

impl Files {
    /// Stores `content`, unless it is there already, and returns its digest.
    ///
    /// # Errors
    /// The store fails.
    pub async fn put_bytes(&self, content: Bytes) -> Result<Digest, Error> {
        let digest = Digest::of(&content);
        let Some(absent) = self.absent(digest).await? else {
            return Ok(digest);
        };
        if content.len() <= SINGLE_MAX {
            put_single(self, digest, content.into()).await?;
        } else {
            let mut upload = Upload::begin(self, digest, Some(content.len() as u64)).await?;
            for start in (0..content.len()).step_by(self.part_size) {
                upload
                    .write(content.slice(start..content.len().min(start + self.part_size)))
                    .await?;
            }
            upload.finish().await?;
        }
        self.stored(digest, &absent).await?;
        Ok(digest)
    }

    /// Stores the file at `path`, unless its content is there already, and returns its digest and its size in bytes.
    ///
    /// The file is read twice, since its name in the store is what the first reading finds; the second is checked against it.
    ///
    /// # Errors
    /// The file cannot be read, or changes meanwhile; the store fails.
    pub async fn put_file(&self, path: &Path) -> Result<(Digest, u64), Error> {
        let reading = |source| Error::Io {
            doing: "read",
            path: path.to_owned(),
            source,
        };
        let first = path.to_owned();
        match spawn_blocking(move || survey(&first))
            .await
            .map_err(|error| reading(error.into()))?
            .map_err(reading)?
        {
            Found::Small(content) => {
                let size = content.len() as u64;
                Ok((Box::pin(self.put_bytes(content)).await?, size))
            }
            Found::Large { digest, size } => {
                if let Some(absent) = self.absent(digest).await? {
                    Box::pin(self.send_file(path, digest, size)).await?;
                    self.stored(digest, &absent).await?;
                }
                Ok((digest, size))
            }
        }
    }

    async fn send_file(&self, path: &Path, digest: Digest, size: u64) -> Result<(), Error> {
        let mut upload = Upload::begin(self, digest, Some(size)).await?;
        let (blocks, mut read) = mpsc::channel(BLOCKS_AHEAD);
        let second = path.to_owned();
        let reader = spawn_blocking(move || read_again(&second, size, &blocks));
        while let Some(block) = read.recv().await {
            upload.write(block).await?;
        }
        let reading = |source| Error::Io {
            doing: "read",
            path: path.to_owned(),
            source,
        };
        match reader
            .await
            .map_err(|error| reading(error.into()))
            .and_then(|read| read.map_err(reading))
        {
            Ok(actual) if actual == (digest, size) => upload.finish().await,
            Ok(_) => {
                upload.abort().await;
                Err(Error::Changed { path: path.to_owned() })
            }
            Err(error) => {
                upload.abort().await;
                Err(error)
            }
        }
    }

    /// Stores what `content` yields as `digest`, unless that is there already (then `content` is not read). It is not
    /// visible before its digest, and its size in bytes if one is given, are found to be right.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the content is another, [`Error::Input`] if `content` fails; the store fails. Nothing is stored then.
    pub async fn put_stream<S, E>(&self, digest: Digest, size: Option<u64>, content: S) -> Result<(), Error>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Some(mut incoming) = self.begin(digest, size).await? else {
            return Ok(());
        };
        pin_mut!(content);
        while let Some(chunk) = content.next().await {
            match chunk {
                Ok(chunk) => incoming.write(chunk).await?,
                Err(error) => {
                    incoming.abort().await;
                    return Err(Error::Input(error.into()));
                }
            }
        }
        incoming.finish().await
    }
}

/// Hashes a whole file, and keeps its content if it is small.
fn survey(path: &Path) -> io::Result<Found> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() <= SINGLE_MAX as u64 {
        let mut content = Vec::new();
        file.by_ref().take(SINGLE_MAX as u64 + 1).read_to_end(&mut content)?;
        if content.len() <= SINGLE_MAX {
            return Ok(Found::Small(content.into()));
        }
        // It grew: read it as a large one, from its start.
        file = File::open(path)?;
    }
    let mut meter = Meter::default();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => meter.update(&buffer[..n]),
        }
    }
    let (digest, size) = meter.finish();
    Ok(Found::Large { digest, size })
}

/// Sends a file's blocks to `blocks`, and returns the digest and the size of what was sent. Stops early where the file has
/// become longer than `size`, or nobody receives any more.
fn read_again(path: &PathBuf, size: u64, blocks: &mpsc::Sender<Bytes>) -> io::Result<(Digest, u64)> {
    let mut file = File::open(path)?;
    let mut meter = Meter::default();
    while meter.size() <= size {
        let mut block = BytesMut::zeroed(MIB);
        let mut filled = 0;
        while filled < block.len() {
            match file.read(&mut block[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        block.truncate(filled);
        meter.update(&block);
        if filled == 0 || blocks.blocking_send(block.freeze()).is_err() {
            break;
        }
    }
    Ok(meter.finish())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[tokio::test]
    async fn a_file_that_changes_between_its_two_readings_is_not_stored() -> Result<(), Box<dyn std::error::Error>> {
        let dir = TempDir::new()?;
        let files = Files::open(&format!("file://{}", dir.path().join("store").display()).parse()?, None).await?;
        let path = dir.path().join("input");
        let before = vec![1; 3 * MIB];
        let digest = Digest::of(&before);
        for after in [vec![2; 3 * MIB], vec![1; 3 * MIB - 1], vec![1; 5 * MIB]] {
            std::fs::write(&path, after)?;
            let sent = files.send_file(&path, digest, before.len() as u64).await;
            assert!(matches!(sent, Err(Error::Changed { .. })), "{sent:?}");
            assert!(!files.has(&digest).await?);
        }
        std::fs::write(&path, before)?;
        files.send_file(&path, digest, 3 * MIB as u64).await?;
        assert!(files.has(&digest).await?);
        Ok(())
    }
}
