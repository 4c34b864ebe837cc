//! Attempts that were claimed before there is room for them.

use std::{collections::VecDeque, time::Instant};

use tokio::sync::oneshot;

use crate::{
    attempt::{
        room::Room,
        slot::{Slot, SlotRequest},
    },
    session::dispatcher::{Dispatcher, PREFETCHED_MAX},
};

/// Attempts that were claimed before there is room for them, the oldest first. An attempt that is dropped from here gets no slot, and
/// returns its job.
#[derive(Debug, Default)]
pub(crate) struct Prefetched(VecDeque<Waiter>);

#[derive(Debug)]
struct Waiter {
    room: Room,
    since: Instant,
    give: oneshot::Sender<Slot>,
}

impl Prefetched {
    /// Adds an attempt that needs this much room.
    pub(crate) fn add(&mut self, room: Room, since: Instant) -> SlotRequest {
        let (give, awaited) = oneshot::channel();
        self.0.push_back(Waiter { room, since, give });
        SlotRequest::Pending(awaited)
    }

    /// When the first of them is returned at the latest.
    pub(crate) fn first_expires(&self) -> Option<Instant> {
        self.0.front().map(|waiter| waiter.since + PREFETCHED_MAX)
    }

    /// Returns all of them.
    pub(crate) fn return_all(&mut self, dispatcher: &mut Dispatcher) {
        self.0.drain(..).for_each(|_| dispatcher.prefetched_returned());
    }

    /// Grants a slot to each attempt that fits, and returns those that waited for too long.
    pub(crate) fn grant_slots(&mut self, dispatcher: &mut Dispatcher, mut take_slot: impl FnMut(Room) -> Slot) {
        // Another worker claimed the job, or the attempt ended meanwhile.
        let prefetched = self.0.len();
        self.0.retain(|waiter| !waiter.give.is_closed());
        (self.0.len()..prefetched).for_each(|_| dispatcher.prefetched_returned());
        while let Some(waiter) = self.0.pop_front() {
            if dispatcher.prefetched_fits(waiter.room) {
                if let Err(slot) = waiter.give.send(take_slot(waiter.room)) {
                    slot.return_unused();
                }
            } else if waiter.since.elapsed() >= PREFETCHED_MAX {
                dispatcher.prefetched_expired();
            } else {
                return self.0.push_front(waiter);
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
    fn a_prefetched_attempt_gets_a_slot_or_is_returned_and_one_that_ended_takes_none() {
        let (freed, _come) = mpsc::unbounded_channel();
        let take = |room| Slot::new(room, freed.clone());
        let now = Instant::now();
        let mut dispatcher = Dispatcher::new(CORE, Class::ALL);
        let mut prefetched = Prefetched::default();
        let ended = |dispatcher: &mut Dispatcher| dispatcher.released(Instant::now(), CORE, Some(Duration::from_millis(1)));
        assert_eq!(dispatcher.delivered(0, CORE, now), Verdict::Run);
        ended(&mut dispatcher);
        assert_eq!(dispatcher.delivered(0, CORE, now), Verdict::Run);

        assert_eq!(dispatcher.delivered(0, CORE, now), Verdict::Prefetch);
        drop(prefetched.add(CORE, now));
        prefetched.grant_slots(&mut dispatcher, take);
        assert_eq!(
            (prefetched.first_expires(), dispatcher.delivered(0, CORE, now)),
            (None, Verdict::Prefetch)
        );

        let SlotRequest::Pending(mut gets) = prefetched.add(CORE, now) else {
            panic!("it is pending")
        };
        prefetched.grant_slots(&mut dispatcher, take);
        assert!(gets.try_recv().is_err(), "there is no room yet");
        ended(&mut dispatcher);
        prefetched.grant_slots(&mut dispatcher, take);
        assert!(gets.try_recv().is_ok());

        assert_eq!(dispatcher.delivered(0, CORE, now), Verdict::Prefetch);
        let Some(long_ago) = now.checked_sub(PREFETCHED_MAX) else {
            panic!("this machine has just started")
        };
        let SlotRequest::Pending(mut in_vain) = prefetched.add(CORE, long_ago) else {
            panic!("it is pending")
        };
        prefetched.grant_slots(&mut dispatcher, take);
        assert_eq!(in_vain.try_recv().err(), Some(oneshot::error::TryRecvError::Closed));
    }
}
