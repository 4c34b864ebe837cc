//! Contents that are on their way to us. What came of one whose sender was cut off waits for the rest, so that a file of
//! gigabytes need not begin again.
//!
//! It is no state that would be missed (docs/decisions/0005-uploads-that-break-off.md): after a restart of the API, such a file is
//! sent from its beginning.

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

/// What is smaller begins again, in bytes.
pub(crate) const WORTH_KEEPING: u64 = 4 << 20;
/// For how long a beginning waits for the rest.
const KEPT: Duration = Duration::from_secs(3600);
/// How many wait at once. Each holds up to one part of an upload in memory: 8 MiB, and more where a file has more than 70 GiB
/// (`store/src/upload.rs`).
const MOST: usize = 16;
/// How often it is looked whether one waited for long enough.
const LOOK: Duration = Duration::from_secs(60);
/// A sender of whom nothing came for so long, although we would take more, is cut off when somebody asks for the same content: a
/// cable that was pulled says nothing.
const SILENT: Duration = Duration::from_secs(3);
/// Pieces on their way from a body to the store.
const PIECES: usize = 2;

/// Why a content did not arrive.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broke {
    /// It, or the store.
    #[error(transparent)]
    Files(#[from] Error),
    /// Nothing came for a while, and the same content was asked for; or the API stops.
    #[error("the sender was cut off; what had come waits for the rest")]
    Cut,
    /// A bug.
    #[error("the upload broke off here")]
    Writer(#[source] JoinError),
}

/// How far a content has come that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begun {
    /// So many bytes wait for the rest.
    Waits(u64),
    /// It is arriving, or is about to wait.
    Arrives,
}

/// A content and its size as its sender said it: who says another meant another.
type Named = (Digest, u64);

/// The contents that are on their way.
#[derive(Debug, Default)]
pub(crate) struct Arrivals(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    coming: HashMap<u64, Coming>,
    waiting: HashMap<Named, Waiting>,
    /// The API stops: nothing waits any more.
    closed: bool,
}

#[derive(Debug)]
struct Coming {
    named: Named,
    /// Since when we wait for its next piece; nothing while the store has us wait.
    quiet_since: Option<Instant>,
    cut: CancellationToken,
}

#[derive(Debug)]
struct Waiting {
    incoming: Incoming,
    since: Instant,
}

impl Arrivals {
    /// How far a content has come. One whose sender has fallen silent is cut off, and waits a moment later.
    pub(crate) fn begun(&self, digest: Digest, size: u64) -> Option<Begun> {
        let state = self.0.lock();
        let waits = state.waiting.get(&(digest, size)).map(|waiting| waiting.incoming.taken());
        let coming = || state.coming.values().filter(|coming| coming.named == (digest, size));
        let silent = |coming: &&Coming| coming.quiet_since.is_some_and(|since| since.elapsed() >= SILENT);
        if let Some(taken) = waits {
            return Some(Begun::Waits(taken));
        }
        coming().filter(silent).for_each(|coming| coming.cut.cancel());
        coming().next().map(|_| Begun::Arrives)
    }

    /// The beginning of a content of which `taken` bytes came; nothing where that does not wait here.
    pub(crate) fn resume(&self, digest: Digest, size: u64, taken: u64) -> Option<Incoming> {
        let waiting = &mut self.0.lock().waiting;
        let waits = waiting
            .get(&(digest, size))
            .is_some_and(|waiting| waiting.incoming.taken() == taken);
        waits
            .then(|| waiting.remove(&(digest, size)).map(|waiting| waiting.incoming))
            .flatten()
    }

    /// Takes the rest of a content. Where it breaks off, also by being dropped, what came of it waits.
    pub(crate) async fn take<S>(self: &Arc<Self>, tasks: &TaskTracker, named: Named, incoming: Incoming, content: S) -> Result<(), Broke>
    where
        S: Stream<Item = io::Result<Bytes>> + Send,
    {
        let cut = CancellationToken::new();
        let (pieces, next) = mpsc::channel(PIECES);
        let arriving = Arriving::new(Arc::clone(self), named, cut.clone());
        let writing = tasks.spawn(write(arriving, incoming, next));
        tokio::pin!(content);
        loop {
            let piece = tokio::select! {
                piece = content.next() => piece,
                () = cut.cancelled() => return Err(Broke::Cut),
            };
            let taken = match piece {
                Some(Ok(bytes)) => pieces.send(Piece::Bytes(bytes)).await,
                Some(Err(error)) => return Err(Error::Input(error.into()).into()),
                None => {
                    // Where the writer is gone, it says why.
                    let _gone = pieces.send(Piece::End).await;
                    break;
                }
            };
            if taken.is_err() {
                break;
            }
        }
        Ok(writing.await.map_err(Broke::Writer)??)
    }

    fn keep(&self, named: Named, incoming: Incoming) {
        let mut state = self.0.lock();
        let waiting = &state.waiting;
        let longest = waiting.get(&named).is_none_or(|other| other.incoming.taken() <= incoming.taken());
        if state.closed || incoming.taken() < WORTH_KEEPING || !longest {
            return;
        }
        debug!("{} of {} bytes of {} wait for the rest", incoming.taken(), named.1, named.0);
        let since = Instant::now();
        state.waiting.insert(named, Waiting { incoming, since });
        let oldest = state
            .waiting
            .iter()
            .min_by_key(|(_, waiting)| waiting.since)
            .map(|(named, _)| *named);
        if let Some(oldest) = oldest.filter(|_| state.waiting.len() > MOST) {
            state.waiting.remove(&oldest);
        }
    }

    /// Gives up what waited for long enough; at `stop`, all of it, and whatever would wait from then on.
    pub(crate) async fn tidy(self: Arc<Self>, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            self.0.lock().waiting.retain(|_, waiting| waiting.since.elapsed() < KEPT);
        }
        let mut state = self.0.lock();
        state.closed = true;
        state.waiting.clear();
    }

    /// Cuts off every sender.
    pub(crate) fn cut_all(&self) {
        self.0.lock().coming.values().for_each(|coming| coming.cut.cancel());
    }
}

enum Piece {
    Bytes(Bytes),
    End,
}

/// Writes the pieces of a content. Its own task: who sends may be gone at any moment, and a write must not be dropped half-way.
async fn write(arriving: Arriving, mut incoming: Incoming, mut pieces: mpsc::Receiver<Piece>) -> Result<(), Error> {
    loop {
        arriving.quiet_since(Some(Instant::now()));
        let piece = pieces.recv().await;
        arriving.quiet_since(None);
        match piece {
            Some(Piece::Bytes(bytes)) => incoming.write(bytes).await?,
            Some(Piece::End) => {
                incoming.finish().await?;
                // Another beginning of it is of no use now.
                arriving.arrivals.0.lock().waiting.remove(&arriving.named);
                return Ok(());
            }
            None => {
                arriving.arrivals.keep(arriving.named, incoming);
                return Ok(());
            }
        }
    }
}

/// A content that arrives now; no more, once it is dropped.
struct Arriving {
    arrivals: Arc<Arrivals>,
    named: Named,
    id: u64,
}

impl Arriving {
    fn new(arrivals: Arc<Arrivals>, named: Named, cut: CancellationToken) -> Self {
        let id = {
            let mut state = arrivals.0.lock();
            state.next += 1;
            let coming = Coming {
                named,
                quiet_since: None,
                cut,
            };
            let id = state.next;
            state.coming.insert(id, coming);
            id
        };
        Self { arrivals, named, id }
    }

    fn quiet_since(&self, since: Option<Instant>) {
        if let Some(coming) = self.arrivals.0.lock().coming.get_mut(&self.id) {
            coming.quiet_since = since;
        }
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.arrivals.0.lock().coming.remove(&self.id);
    }
}
