//! The room that an attempt takes on its worker, how the attempt gets it, and its return.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::attempt::room::Room;

/// A slot that an attempt has freed.
#[derive(Debug)]
pub(crate) struct FreedSlot {
    /// The room that is free again.
    pub(crate) room: Room,
    /// How long the slot was used, if it was.
    pub(crate) took: Option<Duration>,
}

/// The slot of an attempt.
#[derive(Debug)]
pub(crate) enum SlotRequest {
    /// The attempt has it.
    Granted(Slot),
    /// The attempt waits for it, and gets none where the sender is dropped.
    Pending(oneshot::Receiver<Slot>),
}

/// The room that an attempt takes until its command is gone; it is freed when it is dropped, however the attempt's task ends.
#[derive(Debug)]
pub(crate) struct Slot {
    room: Room,
    since: Option<Instant>,
    to: mpsc::UnboundedSender<FreedSlot>,
}

impl SlotRequest {
    /// Waits for the slot; nothing where the attempt gets none.
    pub(crate) async fn granted(self) -> Option<Slot> {
        match self {
            Self::Granted(slot) => Some(slot),
            Self::Pending(pending) => pending.await.ok(),
        }
    }
}

impl Slot {
    /// A slot that is used from now on, and freed through this channel.
    #[must_use]
    pub(crate) fn new(room: Room, to: mpsc::UnboundedSender<FreedSlot>) -> Self {
        Self {
            room,
            since: Some(Instant::now()),
            to,
        }
    }

    /// Frees a slot that no attempt used.
    pub(crate) fn return_unused(mut self) {
        self.since = None;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // A session that is over needs no room.
        let _ = self.to.send(FreedSlot {
            room: self.room,
            took: self.since.map(|since| since.elapsed()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unused_slot_is_freed_as_unused() {
        let room = Room {
            cpu_milli: 1_000,
            memory_bytes: 0,
        };
        let (freed, mut come) = mpsc::unbounded_channel();
        drop(Slot::new(room, freed.clone()));
        Slot::new(room, freed).return_unused();
        let took = std::iter::from_fn(|| come.try_recv().ok()).map(|freed| freed.took.is_some());
        assert_eq!(took.collect::<Vec<_>>(), [true, false]);
    }
}
