//! The room that an attempt takes up, and its return.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::dispatcher::Room;

/// What an attempt gives back.
pub(crate) struct Freed {
    /// What is free again.
    pub(crate) room: Room,
    /// How long it was taken.
    pub(crate) took: Duration,
}

/// The room that an attempt takes up; dropped when its command is gone, and however its task ends.
pub(crate) struct Taken {
    room: Room,
    since: Instant,
    to: mpsc::UnboundedSender<Freed>,
}

impl Taken {
    /// Taken from now on, to be given back there.
    #[must_use]
    pub(crate) fn now(room: Room, to: mpsc::UnboundedSender<Freed>) -> Self {
        Self {
            room,
            since: Instant::now(),
            to,
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // A session that is over needs no room.
        let _ = self.to.send(Freed {
            room: self.room,
            took: self.since.elapsed(),
        });
    }
}
