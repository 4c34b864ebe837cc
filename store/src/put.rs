//! Stores contents.

use std::{fs::File, io, path::Path, sync::Arc};

use bus::ids::Digest;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _, pin_mut};
use tokio::{sync::mpsc, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::{
    Error, Files,
    extents::{Extents, Holes, Piece, read_full},
    open::MIB,
    upload::{ContentUpload, SINGLE_MAX, put_single},
    verify::Meter,
};

/// How many blocks of a file are read ahead.
const BLOCKS_AHEAD: usize = 2;

/// The result of reading a file for the first time.
enum FirstRead {
    Small(Bytes),
    Large {
        digest: Digest,
        size: u64,
        hole_bytes: u64,
    },
    /// It has more holes than are allowed.
    TooManyHoles {
        size: u64,
    },
}

impl Files {
    /// Stores `content`, unless the store has it, and returns its digest.
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
            let mut upload = ContentUpload::begin(self, digest, Some(content.len() as u64)).await?;
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

    /// Stores the file at `path`, unless the store has its content, and returns its digest and its size in bytes.
    ///
    /// # Errors
    /// As for [`Self::put_opened`].
    pub async fn put_file(&self, path: &Path) -> Result<(Digest, u64), Error> {
        let first = path.to_owned();
        let file = spawn_blocking(move || File::open(first))
            .await
            .unwrap_or_else(|error| Err(error.into()));
        self.put_opened(file.map_err(|error| reading(path, error))?, path, &Holes::at_most(u64::MAX))
            .await
    }

    /// Stores an open file with the name `path`, unless the store has its content, and returns its digest and its size in bytes.
    ///
    /// The file is read twice: first for its digest, which is its key in the store, then to send it, which is checked against the digest.
    /// Holes are not read; they count against `holes`. Reading stops when the future is dropped.
    ///
    /// # Errors
    /// The file cannot be read, or changes meanwhile; it has too many holes ([`Error::Holes`]); the store fails.
    pub async fn put_opened(&self, file: File, path: &Path, holes: &Holes) -> Result<(Digest, u64), Error> {
        let stop = CancellationToken::new();
        let _stop_reading = stop.clone().drop_guard();
        let file = Arc::new(file);
        let (first, taken, stopped) = (Arc::clone(&file), holes.clone(), stop.clone());
        let found = spawn_blocking(move || first_read(&first, &taken, &stopped)).await;
        let found = found.map_err(|error| reading(path, error.into()))?;
        match found.map_err(|error| reading(path, error))? {
            FirstRead::Small(content) => {
                let size = content.len() as u64;
                Ok((Box::pin(self.put_bytes(content)).await?, size))
            }
            FirstRead::Large { digest, size, hole_bytes } => {
                let sending = async {
                    if let Some(absent) = self.absent(digest).await? {
                        Box::pin(self.send_file(file, path, (digest, size), stop)).await?;
                        self.stored(digest, &absent).await?;
                    }
                    Ok((digest, size))
                };
                // The caller may try again.
                sending.await.inspect_err(|_| holes.give_back(hole_bytes))
            }
            FirstRead::TooManyHoles { size } => Err(Error::Holes {
                path: path.to_owned(),
                size,
                max: holes.max,
            }),
        }
    }

    async fn send_file(&self, file: Arc<File>, path: &Path, (digest, size): (Digest, u64), stop: CancellationToken) -> Result<(), Error> {
        let mut upload = ContentUpload::begin(self, digest, Some(size)).await?;
        let (blocks, mut read) = mpsc::channel(BLOCKS_AHEAD);
        let reader = spawn_blocking(move || read_again(&file, size, &blocks, &stop));
        while let Some(block) = read.recv().await {
            upload.write(block).await?;
        }
        match reader
            .await
            .map_err(|error| reading(path, error.into()))
            .and_then(|read| read.map_err(|error| reading(path, error)))
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

    /// Stores a stream as `digest`, unless the store has that (then `content` is not read). It becomes visible once its digest is verified, and
    /// its size in bytes if one is given.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the content does not match, [`Error::Input`] if `content` fails; the store fails. Nothing is stored then.
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

fn reading(path: &Path, source: io::Error) -> Error {
    Error::Io {
        doing: "read",
        path: path.to_owned(),
        source,
    }
}

/// Reads a file for its digest, and keeps its content if it is small.
fn first_read(file: &File, holes: &Holes, stop: &CancellationToken) -> io::Result<FirstRead> {
    if file.metadata()?.len() <= SINGLE_MAX as u64 {
        let mut content = vec![0; SINGLE_MAX + 1];
        let read = read_full(file, &mut content, 0)?;
        // Otherwise it has grown: read it as a large file, from its start.
        if read <= SINGLE_MAX {
            content.truncate(read);
            return Ok(FirstRead::Small(content.into()));
        }
    }
    let (mut meter, mut extents) = (Meter::default(), Extents::new(file));
    let (mut buffer, mut hole_bytes) = (vec![0; 256 * 1024], 0);
    while let Some(piece) = extents.next(&mut buffer)? {
        check_stopped(stop)?;
        match piece {
            Piece::Data(length) => meter.update(&buffer[..length]),
            Piece::Hole(length) if !holes.take(length) => {
                holes.give_back(hole_bytes);
                return Ok(FirstRead::TooManyHoles {
                    size: file.metadata()?.len(),
                });
            }
            Piece::Hole(length) => {
                hole_bytes += length;
                zeros(length, |zeros| {
                    check_stopped(stop)?;
                    meter.update(&zeros);
                    Ok(true)
                })?;
            }
        }
    }
    let (digest, size) = meter.finish();
    Ok(FirstRead::Large { digest, size, hole_bytes })
}

/// Sends a file's blocks to `blocks`, and returns the digest and the size of what was sent. Stops early if the file is longer than `size`, or
/// the receiver is gone.
fn read_again(file: &File, size: u64, blocks: &mpsc::Sender<Bytes>, stop: &CancellationToken) -> io::Result<(Digest, u64)> {
    let (mut meter, mut extents) = (Meter::default(), Extents::new(file));
    while meter.size() <= size {
        let mut block = BytesMut::zeroed(MIB);
        let Some(piece) = extents.next(&mut block)? else { break };
        check_stopped(stop)?;
        let mut send = |bytes: Bytes| {
            meter.update(&bytes);
            Ok(blocks.blocking_send(bytes).is_ok())
        };
        match piece {
            Piece::Data(length) => {
                block.truncate(length);
                if !send(block.freeze())? {
                    break;
                }
            }
            Piece::Hole(length) => zeros(length, send)?,
        }
    }
    Ok(meter.finish())
}

/// Passes `length` zeros on, a block at a time, until `pass_on` returns false.
fn zeros(length: u64, mut pass_on: impl FnMut(Bytes) -> io::Result<bool>) -> io::Result<()> {
    static ZEROS: [u8; MIB] = [0; MIB];
    let mut left = length;
    while left > 0 {
        let block = usize::try_from(left).unwrap_or(MIB).min(MIB);
        if !pass_on(Bytes::from_static(&ZEROS[..block]))? {
            break;
        }
        left -= block as u64;
    }
    Ok(())
}

/// Fails if reading was stopped.
fn check_stopped(stop: &CancellationToken) -> io::Result<()> {
    if stop.is_cancelled() {
        return Err(io::Error::new(io::ErrorKind::Interrupted, "reading was stopped"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use tempfile::TempDir;

    use super::*;

    #[tokio::test]
    async fn a_file_that_changes_between_its_two_readings_is_not_stored() -> Result<(), Box<dyn std::error::Error>> {
        let dir = TempDir::new()?;
        let files = Files::open(&format!("file://{}", dir.path().join("store").display()).parse()?, None).await?;
        let path = dir.path().join("input");
        let open = || Ok::<_, io::Error>(Arc::new(File::open(&path)?));
        let before = vec![1; 3 * MIB];
        let digest = Digest::of(&before);
        for after in [vec![2; 3 * MIB], vec![1; 3 * MIB - 1], vec![1; 5 * MIB]] {
            std::fs::write(&path, after)?;
            let sent = files
                .send_file(open()?, &path, (digest, before.len() as u64), CancellationToken::new())
                .await;
            assert!(matches!(sent, Err(Error::Changed { .. })), "{sent:?}");
            assert!(!files.has(&digest).await?);
        }
        std::fs::write(&path, before)?;
        files
            .send_file(open()?, &path, (digest, 3 * MIB as u64), CancellationToken::new())
            .await?;
        assert!(files.has(&digest).await?);
        Ok(())
    }

    #[tokio::test]
    async fn holes_are_stored_as_zeros_and_bounded() -> Result<(), Box<dyn std::error::Error>> {
        let dir = TempDir::new()?;
        let files = Files::open(&format!("file://{}", dir.path().join("store").display()).parse()?, None).await?;
        let path = dir.path().join("sparse");
        let file = File::options().create(true).truncate(true).write(true).read(true).open(&path)?;
        file.write_all_at(&[7; 5_000], 6 * MIB as u64 + 3)?;
        file.set_len(20 * MIB as u64 + 1)?;
        let (digest, size) = files.put_file(&path).await?;
        let content = std::fs::read(&path)?;
        assert_eq!((digest, size), (Digest::of(&content), content.len() as u64));
        assert_eq!(files.get_bytes(&digest, content.len()).await?, content);
        // Data does not count against the limit, and the error names the size of the file.
        let holes = Holes::at_most(25 * MIB as u64);
        files.put_opened(File::open(&path)?, &path, &holes).await?;
        let refused = files.put_opened(File::open(&path)?, &path, &holes).await;
        assert!(matches!(refused, Err(Error::Holes { size: of, .. }) if of == size), "{refused:?}");
        Ok(())
    }

    #[tokio::test]
    async fn reading_stops_when_it_is_no_longer_needed() -> Result<(), Box<dyn std::error::Error>> {
        let dir = TempDir::new()?;
        let file = File::create_new(dir.path().join("vast"))?;
        file.set_len(3 << 40)?;
        let file = File::open(dir.path().join("vast"))?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let reading = spawn_blocking(move || first_read(&file, &Holes::at_most(u64::MAX), &stopped).map(drop));
        stop.cancel();
        assert!(reading.await?.is_err(), "hours of zeros were not read");
        Ok(())
    }
}
