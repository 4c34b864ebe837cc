//! The connections of clients: authenticated ones, and those that have not sent the API key yet.
//!
//! Each kind has a limit of its own, so that unauthenticated clients cannot lock out others: above the limit, a new connection closes the
//! oldest unauthenticated one. A client with the key authenticates with its first request, within milliseconds.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use model::Kind;
use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::error::ApiError;

/// The most unauthenticated connections.
const UNAUTHENTICATED_MAX: usize = 1_024;
/// Descriptors for everything that is not a client's connection: NATS, Postgres, the store, unfinished uploads.
const RESERVED: usize = 256;

/// Limits on the connections of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most authenticated connections.
    pub connections: usize,
    /// How long the API waits for a client: for the API key, for the rest of a body, and for an answer to be read.
    pub patience: Duration,
}

impl Limits {
    /// The default of `connections`.
    pub const CONNECTIONS: usize = 16_384;
    /// The default of `patience`.
    pub const PATIENCE: Duration = Duration::from_secs(30);

    /// How long an authenticated connection may be idle, or send the head of a request. The default is longer than the 90 s after which
    /// `reqwest` closes an idle connection, so that no request is sent over a connection that is being closed.
    pub(crate) const fn idle(self) -> Duration {
        self.patience.saturating_mul(4)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: Self::CONNECTIONS,
            patience: Self::PATIENCE,
        }
    }
}

/// Raises this process's limit of descriptors to its maximum, and returns it.
pub(crate) fn raise_descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(1 << 20);
    let raised = Rlimit {
        current: Some(most),
        maximum: limit.maximum,
    };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => most,
        Err(error) => {
            warn!("cannot raise the number of open files to {most}: {error}");
            limit.current.unwrap_or(most)
        }
    };
    usize::try_from(current).unwrap_or(usize::MAX)
}

/// All connections.
#[derive(Debug)]
pub(crate) struct Connections {
    authenticated_max: usize,
    unauthenticated_max: usize,
    open: Mutex<OpenConnections>,
}

#[derive(Debug, Default)]
struct OpenConnections {
    /// How many connections were accepted so far.
    accepted: u64,
    /// The unauthenticated connections in their order, and what closes each.
    unauthenticated: BTreeMap<u64, CancellationToken>,
    authenticated: usize,
}

/// A connection that is counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    number: u64,
    evicted: CancellationToken,
    is_authenticated: AtomicBool,
    of: Arc<Connections>,
}

impl Connections {
    /// No connections yet. `descriptors` is the process's limit; what is not reserved is for clients.
    pub(crate) fn new(limits: Limits, descriptors: usize) -> Arc<Self> {
        let free = descriptors.saturating_sub(RESERVED).max(8);
        let unauthenticated_max = UNAUTHENTICATED_MAX.min(free / 4);
        let authenticated_max = limits.connections.min(free - unauthenticated_max);
        if authenticated_max < limits.connections {
            debug!(
                "with {descriptors} descriptors, there is room for {authenticated_max} authenticated and {unauthenticated_max} other connections"
            );
        }
        Arc::new(Self {
            authenticated_max,
            unauthenticated_max,
            open: Mutex::default(),
        })
    }

    /// Adds an unauthenticated connection, and closes the oldest one where there are too many.
    pub(crate) fn admit(self: &Arc<Self>) -> Connection {
        let evicted = CancellationToken::new();
        let mut open = self.open.lock();
        open.accepted += 1;
        let number = open.accepted;
        if open.unauthenticated.len() >= self.unauthenticated_max
            && let Some((_, oldest)) = open.unauthenticated.pop_first()
        {
            oldest.cancel();
        }
        open.unauthenticated.insert(number, evicted.clone());
        drop(open);
        Connection {
            number,
            evicted,
            is_authenticated: AtomicBool::new(false),
            of: Arc::clone(self),
        }
    }
}

impl Connection {
    /// The client has sent the API key: counts the connection as authenticated.
    ///
    /// # Errors
    /// If there are too many authenticated connections.
    pub(crate) fn authenticate(&self) -> Result<(), ApiError> {
        if self.is_authenticated.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut open = self.of.open.lock();
        if open.authenticated >= self.of.authenticated_max {
            let detail = format!(
                "{} connections are in use, which is the limit of this API; close some, or start it with a larger --max-connections (and more \
                 open files, `ulimit -n`)",
                open.authenticated
            );
            return Err(ApiError::new(Kind::Unavailable, detail));
        }
        open.unauthenticated.remove(&self.number);
        open.authenticated += 1;
        self.is_authenticated.store(true, Ordering::Release);
        Ok(())
    }

    /// Waits until the connection must be closed because it is unauthenticated: after `patience`, or to make room for another one.
    pub(crate) async fn must_close(&self, patience: Duration) {
        let _in_time = tokio::time::timeout(patience, self.evicted.cancelled()).await;
        if self.is_authenticated.load(Ordering::Acquire) {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut open = self.of.open.lock();
        if self.is_authenticated.load(Ordering::Acquire) {
            open.authenticated -= 1;
        } else {
            open.unauthenticated.remove(&self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(connections: usize) -> Limits {
        Limits {
            connections,
            ..Limits::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_unauthenticated_connection_is_closed_and_no_other() {
        let connections = Connections::new(limits(2), RESERVED + 16);
        let authenticated = connections.admit();
        authenticated.authenticate().expect("room");
        let unauthenticated: Vec<_> = (0..4).map(|_| connections.admit()).collect();
        assert!(unauthenticated.iter().all(|connection| !connection.evicted.is_cancelled()));
        let fifth = connections.admit();
        assert!(unauthenticated[0].evicted.is_cancelled() && !unauthenticated[1].evicted.is_cancelled());
        unauthenticated[0].must_close(Duration::MAX).await;
        let (before, patience) = (tokio::time::Instant::now(), Duration::from_secs(30));
        fifth.must_close(patience).await;
        assert_eq!(before.elapsed(), patience);
        let stays = tokio::time::timeout(Duration::from_secs(3600), authenticated.must_close(patience)).await;
        assert!(stays.is_err());
    }

    #[test]
    fn authenticated_connections_are_limited_and_counted_until_they_close() {
        let connections = Connections::new(limits(1), 1 << 20);
        let (first, second) = (connections.admit(), connections.admit());
        first.authenticate().expect("room");
        first.authenticate().expect("it is counted once");
        assert_eq!(second.authenticate().expect_err("full").kind, Kind::Unavailable);
        drop(first);
        second.authenticate().expect("room again");
        drop(second);
        let open = connections.open.lock();
        assert_eq!((open.authenticated, open.unauthenticated.len()), (0, 0));
    }

    #[test]
    fn few_descriptors_are_shared_out() {
        let connections = Connections::new(Limits::default(), 1_024);
        assert!(connections.authenticated_max + connections.unauthenticated_max + RESERVED <= 1_024);
        assert!(connections.unauthenticated_max >= 64, "{connections:?}");
    }
}
