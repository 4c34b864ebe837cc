//! Who is connected: users, who have shown the key, and strangers, who have not yet.
//!
//! Each has a bound of its own, so that strangers cannot lock users out: one stranger more takes the place of the one that has been
//! there longest. A user among them shows the key with the first request, within milliseconds.

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

/// Strangers at once, at most.
const STRANGERS: usize = 1_024;
/// Descriptors for everything that is not a client's connection: NATS, Postgres, the store, files on their way to it.
const OTHERS: usize = 256;

/// What clients may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many connections with the key there may be at once.
    pub connections: usize,
    /// For how long a client may stand still where it is its turn: before it shows the key, in the midst of a body, and while an answer
    /// waits to be read.
    pub patience: Duration,
}

impl Limits {
    /// How many connections with the key there may be unless another number is given.
    pub const CONNECTIONS: usize = 16_384;
    /// For how long a client may stand still unless another time is given.
    pub const PATIENCE: Duration = Duration::from_secs(30);

    /// For how long a connection of a user may be without a request, or in the midst of a head. By default longer than the 90 s after
    /// which `reqwest` closes a connection that it has no use for, so that no request meets one that is about to be closed.
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

/// Allows this process as many descriptors as it may allow itself, and returns how many.
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

/// Every connection there is.
#[derive(Debug)]
pub(crate) struct Connections {
    users_max: usize,
    strangers_max: usize,
    there: Mutex<There>,
}

#[derive(Debug, Default)]
struct There {
    /// How many came so far.
    came: u64,
    /// Those without the key, in the order in which they came, and what ends each.
    strangers: BTreeMap<u64, CancellationToken>,
    users: usize,
}

/// A connection that is counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    number: u64,
    evicted: CancellationToken,
    is_user: AtomicBool,
    of: Arc<Connections>,
}

impl Connections {
    /// Nobody is connected; of so many descriptors there are, the rest is for clients.
    pub(crate) fn new(limits: Limits, descriptors: usize) -> Arc<Self> {
        let free = descriptors.saturating_sub(OTHERS).max(8);
        let strangers_max = STRANGERS.min(free / 4);
        let users_max = limits.connections.min(free - strangers_max);
        if users_max < limits.connections {
            debug!("with {descriptors} open files, there is room for {users_max} connections and {strangers_max} strangers");
        }
        Arc::new(Self {
            users_max,
            strangers_max,
            there: Mutex::default(),
        })
    }

    /// Counts one more stranger, and ends the one that has been there longest where there are too many.
    pub(crate) fn admit(self: &Arc<Self>) -> Connection {
        let evicted = CancellationToken::new();
        let mut there = self.there.lock();
        there.came += 1;
        let number = there.came;
        if there.strangers.len() >= self.strangers_max
            && let Some((_, oldest)) = there.strangers.pop_first()
        {
            oldest.cancel();
        }
        there.strangers.insert(number, evicted.clone());
        drop(there);
        Connection {
            number,
            evicted,
            is_user: AtomicBool::new(false),
            of: Arc::clone(self),
        }
    }
}

impl Connection {
    /// The key came over it: from now on it counts as a user's.
    ///
    /// # Errors
    /// If there are too many of those.
    pub(crate) fn is_a_users(&self) -> Result<(), ApiError> {
        if self.is_user.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut there = self.of.there.lock();
        if there.users >= self.of.users_max {
            let detail = format!(
                "{} connections are in use, which is as many as this API takes; close some, or start it with a larger --max-connections \
                 (and more open files, `ulimit -n`)",
                there.users
            );
            return Err(ApiError::new(Kind::Unavailable, detail));
        }
        there.strangers.remove(&self.number);
        there.users += 1;
        self.is_user.store(true, Ordering::Release);
        Ok(())
    }

    /// Waits until it must give way, as a stranger's: another one takes its place, or this long has passed.
    pub(crate) async fn gives_way(&self, patience: Duration) {
        let _in_time = tokio::time::timeout(patience, self.evicted.cancelled()).await;
        if self.is_user.load(Ordering::Acquire) {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut there = self.of.there.lock();
        if self.is_user.load(Ordering::Acquire) {
            there.users -= 1;
        } else {
            there.strangers.remove(&self.number);
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
    async fn the_stranger_who_came_first_gives_way_and_no_user_does() {
        let connections = Connections::new(limits(2), OTHERS + 16);
        let user = connections.admit();
        user.is_a_users().expect("room");
        let strangers: Vec<_> = (0..4).map(|_| connections.admit()).collect();
        assert!(strangers.iter().all(|stranger| !stranger.evicted.is_cancelled()));
        let fifth = connections.admit();
        assert!(strangers[0].evicted.is_cancelled() && !strangers[1].evicted.is_cancelled());
        strangers[0].gives_way(Duration::MAX).await;
        let (before, patience) = (tokio::time::Instant::now(), Duration::from_secs(30));
        fifth.gives_way(patience).await;
        assert_eq!(before.elapsed(), patience);
        let stays = tokio::time::timeout(Duration::from_secs(3600), user.gives_way(patience)).await;
        assert!(stays.is_err());
    }

    #[test]
    fn users_have_a_bound_and_give_their_places_back() {
        let connections = Connections::new(limits(1), 1 << 20);
        let (first, second) = (connections.admit(), connections.admit());
        first.is_a_users().expect("room");
        first.is_a_users().expect("it is counted once");
        assert_eq!(second.is_a_users().expect_err("full").status, 503);
        drop(first);
        second.is_a_users().expect("room again");
        drop(second);
        let there = connections.there.lock();
        assert_eq!((there.users, there.strangers.len()), (0, 0));
    }

    #[test]
    fn few_descriptors_are_shared_out() {
        let connections = Connections::new(Limits::default(), 1_024);
        assert!(connections.users_max + connections.strangers_max + OTHERS <= 1_024);
        assert!(connections.strangers_max >= 64, "{connections:?}");
    }
}
