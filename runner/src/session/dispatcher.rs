//! Which work to ask for: a pure function of the room that is free, of what was asked, and of what came.
//!
//! - A class is asked for when the free room holds its ceiling (on a machine smaller than the ceiling: when all of it is free), or
//!   what the class's jobs asked for lately; where none came lately, one is asked for by whatever room is free, to find out. No
//!   more messages are asked for than fit.
//! - A class that was quiet is asked for one message; each that comes lets one more be asked for at once. So a burst is spread over
//!   all workers that wait for it, and steady work comes by the dozen.
//! - Where urgent and less urgent work waits, the urgent goes first without a round trip of its own: an ask that has been out
//!   for [`QUIET`] and brought nothing shows that its class is empty, and only then is a lower priority asked.
//! - While attempts are brisk ([`BRISK`]), as many are asked for and claimed ahead as have made room of that size within
//!   [`PACE`], and held for room for [`HELD`] at most: a core that is free waits for nobody. Who holds one in vain begins to count anew.
//! - A big job gets its room in bounded time: a class that did not fit for [`STARVED`] is looked up, and if work waits in it,
//!   nothing smaller is asked for until it fits.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bus::spec::Class;

use crate::attempt::room::Room;

/// How long an ask must be out, without bringing anything, to show that its class is empty. A message that waits comes within
/// 0.7 ms (p99, nats.md).
pub(crate) const QUIET: Duration = Duration::from_millis(5);
/// How long a class may be without enough room before room is made for it.
pub(crate) const STARVED: Duration = Duration::from_secs(15);
/// Attempts that end within this, on average, are brisk: asking for the next one takes a part of its time that counts.
pub(crate) const BRISK: Duration = Duration::from_millis(50);
/// As many as ended within this are held for room: at that pace, they get it within as long.
pub(crate) const PACE: Duration = Duration::from_millis(100);
/// How long work may be held for room before it is given back: brisk work finds room long before.
pub(crate) const HELD: Duration = Duration::from_millis(200);
/// The most messages that are asked of one class at once.
const MOST: usize = 64;
/// For how long a job's size counts for what the next ones of its class will ask for.
const REMEMBERED: Duration = Duration::from_secs(10);
/// The most jobs of a class whose sizes count.
const MOST_REMEMBERED: usize = 8;

/// What is known of one lane: a class in one of the worker's queues.
#[derive(Debug, Clone)]
struct Lane {
    class: Class,
    /// Messages that were asked for and did not come yet.
    outstanding: usize,
    /// Since when an ask has been out without bringing anything.
    quiet_since: Option<Instant>,
    /// What the last jobs of this lane asked for, the oldest first, and when each came: the next one hardly asks for more.
    recent: VecDeque<(Instant, Room)>,
    /// The most messages to ask for at once, as many as the pace of this lane tells.
    portion: usize,
    /// Since when there was not enough room to ask.
    unfit_since: Option<Instant>,
}

impl Lane {
    /// A job came that asks for so much.
    fn delivered(&mut self, wants: Room, now: Instant) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.quiet_since = None;
        self.portion = (self.portion + 1).min(MOST);
        if self.recent.len() == MOST_REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back((now, wants));
    }

    /// What the next job of this lane hardly asks for more than; nothing where none came lately.
    fn guess(&self, now: Instant) -> Option<Room> {
        let lately = self.recent.iter().filter(|(at, _)| now.duration_since(*at) < REMEMBERED);
        let guess = lately.map(|(_, room)| *room).reduce(Room::most)?;
        Some(Room {
            cpu_milli: guess.cpu_milli.max(1),
            ..guess
        })
    }
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Response {
    /// Ask this lane for so many messages.
    Ask {
        /// Its index.
        lane: usize,
        /// How many.
        count: usize,
    },
    /// Look up whether work waits in this lane, and say so with [`Dispatcher::waiting`].
    LookUp {
        /// Its index.
        lane: usize,
    },
}

/// Whether a message may become an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There is room, and it is taken now; [`Dispatcher::released`] gives it back.
    Run,
    /// There is no room now, and there will be soon: it is held, until [`Dispatcher::held_fits`], [`Dispatcher::handed_back`] or
    /// [`Dispatcher::waited_in_vain`].
    Hold,
    /// There is no room now.
    NoRoom,
    /// There never will be: the machine is smaller.
    TooBig,
}

/// Decides which work to ask for.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    total: Room,
    free: Room,
    lanes: Vec<Lane>,
    /// The lanes' indices, the most urgent first.
    order: Vec<usize>,
    /// The lane that room is being made for.
    making_room: Option<usize>,
    /// How long attempts took lately.
    took: Option<Duration>,
    /// When the last of them ended, the oldest first, and the room that each made.
    ends: VecDeque<(Instant, Room)>,
    /// Messages that wait here for room.
    held: usize,
}

impl Dispatcher {
    /// For a machine with this much room, and lanes in this order, the most urgent of each queue first.
    #[must_use]
    pub(crate) fn new(total: Room, classes: impl IntoIterator<Item = Class>) -> Self {
        let lane = |class| Lane {
            class,
            outstanding: 0,
            quiet_since: None,
            recent: VecDeque::new(),
            portion: 1,
            unfit_since: None,
        };
        let lanes: Vec<Lane> = classes.into_iter().map(lane).collect();
        let mut order: Vec<usize> = (0..lanes.len()).collect();
        order.sort_by_key(|&lane| lanes[lane].class.priority);
        Self {
            total,
            free: total,
            lanes,
            order,
            making_room: None,
            took: None,
            ends: VecDeque::new(),
            held: 0,
        }
    }

    /// The room that is free.
    #[must_use]
    pub(crate) const fn free(&self) -> Room {
        self.free
    }

    /// What to do now, and when to ask again although nothing happened.
    pub(crate) fn plan(&mut self, now: Instant) -> (Vec<Response>, Option<Instant>) {
        let mut responses = Vec::new();
        let mut again: Option<Instant> = None;
        let mut wake = |at: Instant| again = Some(again.map_or(at, |known| known.min(at)));
        // The priority that may be asked for, until one is found that is not known to be empty.
        let mut busy = None;
        for place in 0..self.order.len() {
            let index = self.order[place];
            let fits = self.fits(index, now);
            let lane = &mut self.lanes[index];
            if busy.is_some_and(|priority| priority < lane.class.priority) {
                break;
            }
            if fits == 0 {
                if lane.outstanding == 0 && self.making_room.is_none() {
                    let since = *lane.unfit_since.get_or_insert(now);
                    if now.duration_since(since) >= STARVED {
                        lane.unfit_since = Some(now);
                        responses.push(Response::LookUp { lane: index });
                    }
                    wake(since + STARVED);
                }
                continue;
            }
            // What is tried with less room than the class may need does not count: it may be what is too large for it that waits.
            if self.free.holds(Room::ceiling(lane.class.size).least(self.total)) {
                lane.unfit_since = None;
            }
            let fits = fits.min(lane.portion);
            if self.making_room.is_some_and(|wanted| wanted != index) {
                continue;
            }
            // Many small ones are asked for by the half-full, so that a request is not spent on each.
            if lane.outstanding <= fits / 2 {
                responses.push(Response::Ask {
                    lane: index,
                    count: fits - lane.outstanding,
                });
                lane.outstanding = fits;
            }
            let since = *lane.quiet_since.get_or_insert(now);
            if now.duration_since(since) < QUIET {
                busy = Some(lane.class.priority);
                wake(since + QUIET);
            }
        }
        (responses, again)
    }

    /// How many jobs of a lane to ask for with the room that is free.
    fn fits(&self, index: usize, now: Instant) -> usize {
        let lane = &self.lanes[index];
        let ceiling = Room::ceiling(lane.class.size).least(self.total);
        let Some(guess) = lane.guess(now) else {
            return if self.free.holds(ceiling) {
                self.free.times(ceiling).clamp(1, MOST)
            } else {
                usize::from(self.free.may_hold(lane.class.size))
            };
        };
        let at_once = if self.free.holds(ceiling) || self.free.holds(guess) {
            self.free.times(guess).clamp(1, MOST)
        } else {
            0
        };
        (at_once + self.ahead(guess, now)).min(MOST)
    }

    /// How many jobs of this size may be held for room, besides those that are.
    fn ahead(&self, guess: Room, now: Instant) -> usize {
        let brisk = self.took.is_some_and(|took| took < BRISK) && self.making_room.is_none();
        if !brisk {
            return 0;
        }
        let made_room = |(at, room): &&(Instant, Room)| now.duration_since(*at) < PACE && room.holds(guess);
        let pace = self.ends.iter().filter(made_room).count();
        pace.min(self.total.times(guess)).saturating_sub(self.held)
    }

    /// A message came on this lane, of a job that asks for so much.
    pub(crate) fn delivered(&mut self, lane: usize, wants: Room, now: Instant) -> Verdict {
        self.lanes[lane].delivered(wants, now);
        if !self.total.holds(wants) {
            return Verdict::TooBig;
        }
        if self.take(wants) {
            self.making_room = None;
            self.lanes[lane].unfit_since = None;
            Verdict::Run
        } else if self.ahead(wants, now) > 0 {
            self.held += 1;
            Verdict::Hold
        } else {
            Verdict::NoRoom
        }
    }

    /// Whether a held job of this size has room now; it is taken then.
    pub(crate) fn held_fits(&mut self, wants: Room) -> bool {
        let fits = self.making_room.is_none() && self.take(wants);
        self.held -= usize::from(fits);
        fits
    }

    /// An attempt takes up room that was there before us; more than there is, if the machine has become smaller.
    pub(crate) const fn taken_up(&mut self, room: Room) {
        self.free.cpu_milli = self.free.cpu_milli.saturating_sub(room.cpu_milli);
        self.free.memory_bytes = self.free.memory_bytes.saturating_sub(room.memory_bytes);
    }

    /// A held job is held no more, for reasons that are not ours.
    pub(crate) fn handed_back(&mut self) {
        self.held = self.held.saturating_sub(1);
    }

    /// A held job got no room in time: what has the room now is not brisk.
    pub(crate) fn waited_in_vain(&mut self) {
        self.handed_back();
        self.took = None;
        self.ends.clear();
    }

    fn take(&mut self, wants: Room) -> bool {
        let fits = self.free.holds(wants);
        if fits {
            self.free.cpu_milli -= wants.cpu_milli;
            self.free.memory_bytes -= wants.memory_bytes;
        }
        fits
    }

    /// A message came on this lane that is no job.
    pub(crate) fn discarded(&mut self, lane: usize) {
        self.lanes[lane].outstanding = self.lanes[lane].outstanding.saturating_sub(1);
    }

    /// An ask to this lane ended without so many of its messages.
    pub(crate) fn ended(&mut self, lane: usize, undelivered: usize) {
        let ended = &mut self.lanes[lane];
        ended.outstanding = ended.outstanding.saturating_sub(undelivered);
        if undelivered > 0 {
            ended.portion = 1;
        }
        if self.making_room == Some(lane) {
            self.making_room = None;
        }
    }

    /// Nothing comes of what was asked for.
    pub(crate) fn asks_are_gone(&mut self) {
        for lane in &mut self.lanes {
            (lane.outstanding, lane.quiet_since) = (0, None);
        }
        self.making_room = None;
    }

    /// What an attempt took up is free again, now that it ended after so long; nothing, where it did not use it.
    pub(crate) fn released(&mut self, now: Instant, room: Room, took: Option<Duration>) {
        if let Some(took) = took {
            self.took = Some(self.took.map_or(took, |average| (average * 7 + took) / 8));
            self.ends.push_back((now, room));
            if self.ends.len() > MOST {
                self.ends.pop_front();
            }
        }
        self.free.cpu_milli = self.free.cpu_milli.saturating_add(room.cpu_milli).min(self.total.cpu_milli);
        self.free.memory_bytes = self
            .free
            .memory_bytes
            .saturating_add(room.memory_bytes)
            .min(self.total.memory_bytes);
    }

    /// So many messages wait in a lane that was looked up.
    pub(crate) fn waiting(&mut self, lane: usize, messages: u64) {
        if messages > 0 && self.making_room.is_none() {
            self.making_room = Some(lane);
        }
    }
}

#[cfg(test)]
mod tests;
