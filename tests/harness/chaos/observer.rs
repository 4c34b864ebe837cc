//! Following the log while things happen to the grid, to know when to do the next thing, and when all is over.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Result, bail};
use bus::log::{EVENTS, connect::Bus, follow::Follower};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{ledger::Ledger, log::Reader};

/// Follows the log until it is dropped.
#[derive(Debug)]
pub struct Observer {
    shared: Arc<Shared>,
    _stop: DropGuard,
}

#[derive(Debug, Default)]
struct Shared {
    ledger: Mutex<Ledger>,
    news: Notify,
}

impl Observer {
    /// Begins to follow.
    #[must_use]
    pub fn follow(bus: &Bus) -> Self {
        let (shared, stop) = (Arc::new(Shared::default()), CancellationToken::new());
        let mut follower = Follower::new(&bus.js, EVENTS, Vec::new(), 0);
        let to = Arc::clone(&shared);
        TaskTracker::new().spawn(stop.clone().run_until_cancelled_owned(async move {
            let mut reader = Reader::default();
            loop {
                let chunk = follower.chunk(1_000).await;
                let mut ledger = to.ledger.lock().unwrap_or_else(PoisonError::into_inner);
                for event in chunk.iter().filter_map(|message| reader.read(message)) {
                    ledger.see(&event);
                }
                drop(ledger);
                to.news.notify_waiters();
            }
        }));
        Self {
            shared,
            _stop: stop.drop_guard(),
        }
    }

    /// What the log says now.
    pub fn look<T>(&self, at: impl FnOnce(&Ledger) -> T) -> T {
        at(&self.shared.ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until the log says so.
    pub async fn until<T>(&self, what: &str, patience: Duration, says: impl Fn(&Ledger) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + patience;
        loop {
            let news = self.shared.news.notified();
            if let Some(answer) = self.look(&says) {
                return Ok(answer);
            }
            if Instant::now() >= deadline {
                bail!("the log did not say within {patience:?} that {what}");
            }
            // Woken by news, and now and then by itself: some things are true by the clock alone.
            let _nothing_new = timeout(Duration::from_millis(200), news).await;
        }
    }
}
