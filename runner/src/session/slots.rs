//! Attempts that were claimed before there is room for them.

use std::{collections::VecDeque, time::Instant};

use tokio::sync::oneshot;

use crate::{
    attempt::{
        room::Room,
        slot::{Share, Taken},
    },
    session::dispatcher::{Dispatcher, HELD},
};

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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bus::spec::Class;
    use tokio::sync::mpsc;

    use super::*;
    use crate::session::dispatcher::Verdict;

    const CORE: Room = Room {
        cpu_milli: 1_000,
        memory_bytes: 0,
    };

    #[test]
    fn who_waits_gets_room_or_learns_that_there_is_none_and_who_left_takes_up_no_place() {
        let (freed, _come) = mpsc::unbounded_channel();
        let take = |room| Taken::now(room, freed.clone());
        let now = Instant::now();
        let mut dispatcher = Dispatcher::new(CORE, Class::ALL);
        let mut waiting = Waiting::default();
        let ended = |dispatcher: &mut Dispatcher| dispatcher.released(Instant::now(), CORE, Some(Duration::from_millis(1)));
        assert_eq!(dispatcher.delivered(0, CORE, now), Verdict::Run);
        ended(&mut dispatcher);
        assert_eq!(dispatcher.delivered(0, CORE, now), Verdict::Run);

        assert_eq!(dispatcher.delivered(0, CORE, now), Verdict::Hold);
        drop(waiting.enter(CORE, now));
        waiting.make_way(&mut dispatcher, take);
        assert_eq!((waiting.until(), dispatcher.delivered(0, CORE, now)), (None, Verdict::Hold));

        let Share::Awaited(mut gets) = waiting.enter(CORE, now) else {
            panic!("it waits")
        };
        waiting.make_way(&mut dispatcher, take);
        assert!(gets.try_recv().is_err(), "there is no room yet");
        ended(&mut dispatcher);
        waiting.make_way(&mut dispatcher, take);
        assert!(gets.try_recv().is_ok());

        assert_eq!(dispatcher.delivered(0, CORE, now), Verdict::Hold);
        let Some(long_ago) = now.checked_sub(HELD) else {
            panic!("this machine has just started")
        };
        let Share::Awaited(mut in_vain) = waiting.enter(CORE, long_ago) else {
            panic!("it waits")
        };
        waiting.make_way(&mut dispatcher, take);
        assert_eq!(in_vain.try_recv().err(), Some(oneshot::error::TryRecvError::Closed));
    }
}
