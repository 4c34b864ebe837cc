//! Stretches of a log on their way to the store.

use std::{io::Write as _, path::PathBuf};

use bus::output::{
    frame::{Frame, HEADER_LEN},
    manifest::LogSegment,
};
use bytes::BytesMut;
use store::Files;
use tokio::{sync::mpsc, task::JoinHandle};

use super::Error;
use crate::patience::patiently;

/// Up to this size a log is kept in memory, and stored without touching the disk.
const IN_MEMORY_BYTES: usize = 64 << 10;

/// Stores segments one after the other, while the command goes on.
#[derive(Debug)]
pub(super) struct Storer {
    pub(super) segments: mpsc::Sender<Segment>,
    pub(super) task: JoinHandle<Result<Vec<LogSegment>, Error>>,
}

/// A stretch of the log on its way to the store: in memory while it is small, in a file when it is not.
#[derive(Debug, Default)]
pub(super) struct Segment {
    memory: BytesMut,
    file: Option<(PathBuf, std::fs::File)>,
    pub(super) len: usize,
}

impl Segment {
    pub(super) fn push(&mut self, frame: &Frame, path: impl FnOnce() -> PathBuf) -> Result<(), Error> {
        frame.write(&mut self.memory);
        self.len += HEADER_LEN + frame.bytes.len();
        if self.memory.len() < IN_MEMORY_BYTES {
            return Ok(());
        }
        let (path, file) = match &mut self.file {
            Some(file) => file,
            none => {
                let path = path();
                let file = std::fs::File::create(&path).map_err(|source| Error::Spool {
                    path: path.clone(),
                    source,
                })?;
                none.insert((path, file))
            }
        };
        file.write_all(&self.memory).map_err(|source| Error::Spool {
            path: path.clone(),
            source,
        })?;
        self.memory.clear();
        Ok(())
    }
}

impl Storer {
    pub(super) fn spawn(files: Files, most_waiting: usize) -> Self {
        let (segments, mut waiting) = mpsc::channel::<Segment>(most_waiting);
        #[allow(
            clippy::disallowed_methods,
            reason = "the logbook owns this task: it is awaited by finish and aborted by drop"
        )]
        let task = tokio::spawn(async move {
            let mut stored = Vec::new();
            while let Some(segment) = waiting.recv().await {
                stored.push(store(&files, segment).await?);
            }
            Ok(stored)
        });
        Self { segments, task }
    }
}

/// Stores a segment; a store that is away is waited for.
pub(super) async fn store(files: &Files, mut segment: Segment) -> Result<LogSegment, Error> {
    let size = segment.len as u64;
    let Some((path, mut file)) = segment.file.take() else {
        let content = segment.memory.freeze();
        let sha256 = patiently("store the log", || files.put_bytes(content.clone()))
            .await
            .map_err(Error::Store)?;
        return Ok(LogSegment { sha256, size });
    };
    file.write_all(&segment.memory).map_err(|source| Error::Spool {
        path: path.clone(),
        source,
    })?;
    drop(file);
    let (sha256, size) = patiently("store the log", || files.put_file(&path)).await.map_err(Error::Store)?;
    let _ = std::fs::remove_file(&path);
    Ok(LogSegment { sha256, size })
}
