//! The end of a command, reported once, and read by every task that waits.

use std::sync::OnceLock;

use tokio::sync::Notify;

use super::wire::Report;

/// How a command's life ended, as the helper told it or its death left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// It ran.
    Ended {
        /// How, as `wait` tells it.
        status: i32,
        /// User and system time, in microseconds.
        cpu_micros: u64,
        /// The largest resident memory, in bytes.
        memory_bytes: u64,
    },
    /// It could not be started, because of this `errno`.
    NotStarted(i32),
    /// Its end was not seen. The sentence says why.
    Lost(String),
}

/// A command's end, and before it its process id.
#[derive(Default)]
pub(super) struct Ending {
    pid: OnceLock<i32>,
    end: OnceLock<End>,
    told: Notify,
}

impl Ending {
    /// Takes in what the helper says. Returns whether that was the end.
    pub(super) fn take(&self, report: Report) -> bool {
        let end = match report {
            Report::Started { pid, .. } => {
                self.pid.set(pid).ok();
                self.told.notify_waiters();
                return false;
            }
            Report::Failed { errno, .. } => End::NotStarted(errno),
            Report::Ended {
                status,
                cpu_micros,
                memory_bytes,
                ..
            } => End::Ended {
                status,
                cpu_micros,
                memory_bytes,
            },
        };
        self.tell(end);
        true
    }

    /// The end is known. The first word counts.
    pub(super) fn tell(&self, end: End) {
        self.end.set(end).ok();
        self.told.notify_waiters();
    }

    /// The end, if it is known already.
    pub(super) fn get(&self) -> Option<&End> {
        self.end.get()
    }

    /// Waits for the end.
    pub(super) async fn wait(&self) -> &End {
        self.wait_for(|ending| ending.end.get()).await
    }

    /// Waits for the process id, which is told only if it was asked for; `None` if the command ended (or never was) before that.
    pub(super) async fn pid(&self) -> Option<i32> {
        self.wait_for(|ending| match (ending.pid.get(), ending.end.get()) {
            (Some(&pid), _) => Some(Some(pid)),
            (None, Some(_)) => Some(None),
            (None, None) => None,
        })
        .await
    }

    async fn wait_for<'a, T: 'a>(&'a self, seen: impl Fn(&'a Self) -> Option<T>) -> T {
        loop {
            // Made before the look, so that what is told in between is not missed.
            let told = self.told.notified();
            if let Some(seen) = seen(self) {
                return seen;
            }
            told.await;
        }
    }
}
