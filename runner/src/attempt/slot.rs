//! The room that an attempt takes on its worker, how the attempt gets it, and its return.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::attempt::room::Room;

/// What an attempt gives back.
#[derive(Debug)]
pub(crate) struct Freed {
    /// What is free again.
    pub(crate) room: Room,
    /// How long it was used, if it was.
    pub(crate) took: Option<Duration>,
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
    since: Option<Instant>,
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
            since: Some(Instant::now()),
            to,
        }
    }

    /// Gives it back as what nobody used.
    pub(crate) fn unused(mut self) {
        self.since = None;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // A session that is over needs no room.
        let _ = self.to.send(Freed {
            room: self.room,
            took: self.since.map(|since| since.elapsed()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_that_was_not_used_comes_back_as_such() {
        let room = Room {
            cpu_milli: 1_000,
            memory_bytes: 0,
        };
        let (freed, mut come) = mpsc::unbounded_channel();
        drop(Taken::now(room, freed.clone()));
        Taken::now(room, freed).unused();
        let took = std::iter::from_fn(|| come.try_recv().ok()).map(|freed| freed.took.is_some());
        assert_eq!(took.collect::<Vec<_>>(), [true, false]);
    }
}
