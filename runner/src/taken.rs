//! The room that an attempt takes up, and its return.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::dispatcher::Room;

/// What an attempt gives back.
#[derive(Debug)]
pub(crate) struct Freed {
    /// What is free again.
    pub(crate) room: Room,
    /// How long it was taken.
    pub(crate) took: Duration,
}

/// The room of an attempt.
#[derive(Debug)]
pub(crate) enum Share {
    /// It has it.
    Taken(Taken),
    /// It gets it here, or learns that it will not.
    Awaited(oneshot::Receiver<Taken>),
}

/// The room that an attempt takes up; dropped when its command is gone, and however its task ends.
#[derive(Debug)]
pub(crate) struct Taken {
    room: Room,
    since: Instant,
    to: mpsc::UnboundedSender<Freed>,
}

impl Share {
    /// The room, as soon as the attempt has it; nothing where it gets none.
    pub(crate) async fn taken(self) -> Option<Taken> {
        match self {
            Self::Taken(taken) => Some(taken),
            Self::Awaited(awaited) => awaited.await.ok(),
        }
    }
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
