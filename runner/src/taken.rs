//! The room that an attempt takes up, how it comes to it, and its return.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use crate::dispatcher::{Dispatcher, HELD, Room};

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

/// Attempts that were claimed ahead and wait for room, the oldest first. One that is let go learns by it that it gets none.
#[derive(Debug, Default)]
pub(crate) struct Waiting(VecDeque<Seat>);

#[derive(Debug)]
struct Seat {
    room: Room,
    since: Instant,
    give: oneshot::Sender<Taken>,
}

impl Waiting {
    /// One more waits, for so much.
    pub(crate) fn enter(&mut self, room: Room, since: Instant) -> Share {
        let (give, awaited) = oneshot::channel();
        self.0.push_back(Seat { room, since, give });
        Share::Awaited(awaited)
    }

    /// Until when the first of them waits at most.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.0.front().map(|seat| seat.since + HELD)
    }

    /// Lets all of them go.
    pub(crate) fn dismiss(&mut self, dispatcher: &mut Dispatcher) {
        self.0.drain(..).for_each(|_| dispatcher.handed_back());
    }

    /// Gives room to those that it is there for, taken as told, and lets those go that waited for too long.
    pub(crate) fn make_way(&mut self, dispatcher: &mut Dispatcher, mut take: impl FnMut(Room) -> Taken) {
        // Those that somebody else claimed, or that were ended meanwhile.
        let waiting = self.0.len();
        self.0.retain(|seat| !seat.give.is_closed());
        (self.0.len()..waiting).for_each(|_| dispatcher.handed_back());
        while let Some(seat) = self.0.pop_front() {
            if dispatcher.held_fits(seat.room) {
                if let Err(taken) = seat.give.send(take(seat.room)) {
                    taken.unused();
                }
            } else if seat.since.elapsed() >= HELD {
                dispatcher.waited_in_vain();
            } else {
                return self.0.push_front(seat);
            }
        }
    }
}
