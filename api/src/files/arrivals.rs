//! Uploads in progress. An upload that breaks off can be resumed, so that a file of gigabytes need not start again.
//!
//! The state is in memory only (docs/decisions/0005-uploads-that-break-off.md): after a restart of the API, a file is sent from its
//! beginning.

use std::{
    collections::HashMap,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bus::ids::Digest;
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use store::{Error, Incoming};
use tokio::{sync::mpsc, task::JoinError};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

/// The smallest content that can be resumed, in bytes.
pub(crate) const RESUMABLE_MIN: u64 = 4 << 20;
/// How long a partial upload is kept.
const KEPT_FOR: Duration = Duration::from_secs(3600);
/// How many partial uploads are kept. Each holds up to one part in memory: 8 MiB, and more for a file above 70 GiB
/// (`store/src/upload.rs`).
const PARTIAL_MAX: usize = 16;
/// How often old partial uploads are removed.
const TIDY_EVERY: Duration = Duration::from_secs(60);
/// A sender that sent nothing for this long, while the API waited for it, is cut off when another request asks for the same content: its
/// connection may be dead.
const SILENT_AFTER: Duration = Duration::from_secs(3);
/// Chunks between the body and the store.
const QUEUE_LEN: usize = 2;

/// Why an upload was not completed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    /// The content or the store failed.
    #[error(transparent)]
    Store(#[from] Error),
    /// The sender was silent, and another request asked for the same content; or the API stops.
    #[error("the sender was cut off; the upload can be resumed")]
    Cut,
    /// A bug.
    #[error("the task that writes the upload failed")]
    Writer(#[source] JoinError),
}

/// The state of an upload that is not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UploadState {
    /// It broke off after this many bytes, and can be resumed.
    Partial(u64),
    /// It is arriving, or was cut off just now.
    Arriving,
}

/// A content, and its size according to the sender.
type UploadKey = (Digest, u64);

/// The uploads in progress, and the partial ones.
#[derive(Debug, Default)]
pub(crate) struct Arrivals(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    arriving: HashMap<u64, Arriving>,
    partial: HashMap<UploadKey, Partial>,
    /// The API stops: no partial upload is kept any more.
    closed: bool,
}

#[derive(Debug)]
struct Arriving {
    key: UploadKey,
    /// Since when the API waits for the next chunk; `None` while it waits for the store.
    quiet_since: Option<Instant>,
    cut: CancellationToken,
}

#[derive(Debug)]
struct Partial {
    incoming: Incoming,
    since: Instant,
}

impl Arrivals {
    /// The state of an upload. A silent sender is cut off, so that its upload can be resumed a moment later.
    pub(crate) fn state(&self, digest: Digest, size: u64) -> Option<UploadState> {
        let state = self.0.lock();
        let taken = state.partial.get(&(digest, size)).map(|partial| partial.incoming.taken());
        let arriving = || state.arriving.values().filter(|arriving| arriving.key == (digest, size));
        let silent = |arriving: &&Arriving| arriving.quiet_since.is_some_and(|since| since.elapsed() >= SILENT_AFTER);
        if let Some(taken) = taken {
            return Some(UploadState::Partial(taken));
        }
        arriving().filter(silent).for_each(|arriving| arriving.cut.cancel());
        arriving().next().map(|_| UploadState::Arriving)
    }

    /// Takes the partial upload of a content of which `taken` bytes have arrived, if there is one.
    pub(crate) fn resume(&self, digest: Digest, size: u64, taken: u64) -> Option<Incoming> {
        let partial = &mut self.0.lock().partial;
        let matches = partial
            .get(&(digest, size))
            .is_some_and(|partial| partial.incoming.taken() == taken);
        matches
            .then(|| partial.remove(&(digest, size)).map(|partial| partial.incoming))
            .flatten()
    }

    /// Receives the rest of a content. If it breaks off, or this future is dropped, the partial upload is kept.
    pub(crate) async fn receive<S>(
        self: &Arc<Self>,
        tasks: &TaskTracker,
        key: UploadKey,
        incoming: Incoming,
        content: S,
    ) -> Result<(), UploadError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send,
    {
        let cut = CancellationToken::new();
        let (pieces, next) = mpsc::channel(QUEUE_LEN);
        let guard = ArrivingGuard::new(Arc::clone(self), key, cut.clone());
        let writing = tasks.spawn(write(guard, incoming, next));
        tokio::pin!(content);
        loop {
            let piece = tokio::select! {
                piece = content.next() => piece,
                () = cut.cancelled() => return Err(UploadError::Cut),
            };
            let taken = match piece {
                Some(Ok(bytes)) => pieces.send(Piece::Bytes(bytes)).await,
                Some(Err(error)) => return Err(Error::Input(error.into()).into()),
                None => {
                    // If the writer is gone, its result says why.
                    let _gone = pieces.send(Piece::End).await;
                    break;
                }
            };
            if taken.is_err() {
                break;
            }
        }
        Ok(writing.await.map_err(UploadError::Writer)??)
    }

    fn keep(&self, key: UploadKey, incoming: Incoming) {
        let mut state = self.0.lock();
        let partial = &state.partial;
        let longest = partial.get(&key).is_none_or(|other| other.incoming.taken() <= incoming.taken());
        if state.closed || incoming.taken() < RESUMABLE_MIN || !longest {
            return;
        }
        debug!("keeping a partial upload: {} of {} bytes of {}", incoming.taken(), key.1, key.0);
        let since = Instant::now();
        state.partial.insert(key, Partial { incoming, since });
        let oldest = state.partial.iter().min_by_key(|(_, partial)| partial.since).map(|(key, _)| *key);
        if let Some(oldest) = oldest.filter(|_| state.partial.len() > PARTIAL_MAX) {
            state.partial.remove(&oldest);
        }
    }

    /// Removes old partial uploads; at `stop`, all of them, and every later one.
    pub(crate) async fn tidy(self: Arc<Self>, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(TIDY_EVERY)).await.is_some() {
            self.0.lock().partial.retain(|_, partial| partial.since.elapsed() < KEPT_FOR);
        }
        let mut state = self.0.lock();
        state.closed = true;
        state.partial.clear();
    }

    /// Cuts off every sender.
    pub(crate) fn cut_all(&self) {
        self.0.lock().arriving.values().for_each(|arriving| arriving.cut.cancel());
    }
}

enum Piece {
    Bytes(Bytes),
    End,
}

/// Writes the chunks of a content to the store. A task of its own: the sender may disconnect at any moment, and a write must not be dropped
/// half-way.
async fn write(guard: ArrivingGuard, mut incoming: Incoming, mut pieces: mpsc::Receiver<Piece>) -> Result<(), Error> {
    loop {
        guard.quiet_since(Some(Instant::now()));
        let piece = pieces.recv().await;
        guard.quiet_since(None);
        match piece {
            Some(Piece::Bytes(bytes)) => incoming.write(bytes).await?,
            Some(Piece::End) => {
                incoming.finish().await?;
                // A partial upload of the same content is no longer needed.
                guard.arrivals.0.lock().partial.remove(&guard.key);
                return Ok(());
            }
            None => {
                guard.arrivals.keep(guard.key, incoming);
                return Ok(());
            }
        }
    }
}

/// Registers an upload as arriving until it is dropped.
struct ArrivingGuard {
    arrivals: Arc<Arrivals>,
    key: UploadKey,
    id: u64,
}

impl ArrivingGuard {
    fn new(arrivals: Arc<Arrivals>, key: UploadKey, cut: CancellationToken) -> Self {
        let id = {
            let mut state = arrivals.0.lock();
            state.next += 1;
            let arriving = Arriving {
                key,
                quiet_since: None,
                cut,
            };
            let id = state.next;
            state.arriving.insert(id, arriving);
            id
        };
        Self { arrivals, key, id }
    }

    fn quiet_since(&self, since: Option<Instant>) {
        if let Some(arriving) = self.arrivals.0.lock().arriving.get_mut(&self.id) {
            arriving.quiet_since = since;
        }
    }
}

impl Drop for ArrivingGuard {
    fn drop(&mut self) {
        self.arrivals.0.lock().arriving.remove(&self.id);
    }
}
