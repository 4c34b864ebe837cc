//! Which jobs to ask for: a pure function of the free room, of the requests that are out, and of the jobs that were delivered.
//!
//! - A class is asked for when the free room holds its ceiling (on a machine smaller than the ceiling: when all of it is free), or the
//!   room that the class's recent jobs took. Without recent jobs, one is asked for with whatever room is free. The dispatcher asks for
//!   no more messages than fit.
//! - A class that was quiet is asked for one message; each message that arrives lets the dispatcher ask for one more at once. So a burst
//!   is spread over all waiting workers, and steady work is fetched in larger portions.
//! - Urgent jobs go first without an extra round trip: a request that has been out for [`QUIET`] without a message shows that its class
//!   is empty, and only then a lower priority is asked.
//! - While attempts are short ([`SHORT`]), jobs are prefetched, so that a free core does not wait: as many as attempts freed a slot of that
//!   size within [`PACE`], each for [`PREFETCHED_MAX`] at most. A prefetched job that expires resets that count.
//! - A large job gets its room in bounded time: if a class did not fit for [`STARVED`], its waiting jobs are counted, and if there are
//!   any, nothing smaller is asked for until one of them fits.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bus::spec::Class;

use crate::attempt::room::Room;

/// How long a request must be out without a message to show that its class is empty. A waiting message arrives within 0.7 ms (p99).
pub(crate) const QUIET: Duration = Duration::from_millis(5);
/// How long a class may lack room before room is made for it.
pub(crate) const STARVED: Duration = Duration::from_secs(15);
/// Attempts that end within this time, on average, are short: the request for the next job takes a considerable part of it.
pub(crate) const SHORT: Duration = Duration::from_millis(50);
/// As many jobs are prefetched as attempts ended within this time: at that pace, each gets a slot within the same time.
pub(crate) const PACE: Duration = Duration::from_millis(100);
/// How long a prefetched job may wait for a slot before it is returned: short attempts free one long before.
pub(crate) const PREFETCHED_MAX: Duration = Duration::from_millis(200);
/// The most messages that one class is asked for at once.
const MOST: usize = 64;
/// For how long the room that a job took predicts the room of the next jobs of its class.
const REMEMBERED: Duration = Duration::from_secs(10);
/// The most recent jobs of a class that count for that.
const MOST_REMEMBERED: usize = 8;

/// What is known of one work queue: a class in one of the worker's queues.
#[derive(Debug, Clone)]
struct WorkQueue {
    class: Class,
    /// Messages that were asked for and have not arrived.
    outstanding: usize,
    /// Since when a request has been out without a message.
    quiet_since: Option<Instant>,
    /// The room of the work queue's recent jobs, the oldest first, and when each arrived: the next job hardly needs more.
    recent: VecDeque<(Instant, Room)>,
    /// The most messages to ask for at once, by the pace of this work queue.
    portion: usize,
    /// Since when there has not been enough room to ask.
    unfit_since: Option<Instant>,
}

impl WorkQueue {
    /// A job arrived that needs this much room.
    fn delivered(&mut self, wants: Room, now: Instant) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.quiet_since = None;
        self.portion = (self.portion + 1).min(MOST);
        if self.recent.len() == MOST_REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back((now, wants));
    }

    /// The room that the next job of this work queue will need at most, by the recent ones; nothing where there are none.
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
pub(crate) enum Action {
    /// Ask this work queue for so many messages.
    Ask {
        /// Its index.
        work_queue: usize,
        /// How many.
        count: usize,
    },
    /// Count the jobs that wait in this work queue, and pass the number to [`Dispatcher::waiting`].
    CountWaiting {
        /// Its index.
        work_queue: usize,
    },
}

/// Whether a message may become an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There is room, and it is taken now; [`Dispatcher::released`] frees it.
    Run,
    /// There is no room now, but soon: the job is prefetched, until [`Dispatcher::prefetched_fits`],
    /// [`Dispatcher::prefetched_returned`] or [`Dispatcher::prefetched_expired`].
    Prefetch,
    /// There is no room now.
    NoRoom,
    /// There will never be room: the machine is too small.
    TooBig,
}

/// Decides which jobs to ask for.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    total: Room,
    free: Room,
    work_queues: Vec<WorkQueue>,
    /// The indices of the work queues, the most urgent first.
    order: Vec<usize>,
    /// The work queue that room is being made for.
    making_room: Option<usize>,
    /// How long recent attempts took, on average.
    took: Option<Duration>,
    /// When the last of them ended, the oldest first, and the room that each freed.
    ends: VecDeque<(Instant, Room)>,
    /// How many jobs are prefetched.
    prefetched: usize,
}

impl Dispatcher {
    /// For a machine with this much room and work queues of these classes, the most urgent of each queue first.
    #[must_use]
    pub(crate) fn new(total: Room, classes: impl IntoIterator<Item = Class>) -> Self {
        let work_queue = |class| WorkQueue {
            class,
            outstanding: 0,
            quiet_since: None,
            recent: VecDeque::new(),
            portion: 1,
            unfit_since: None,
        };
        let work_queues: Vec<WorkQueue> = classes.into_iter().map(work_queue).collect();
        let mut order: Vec<usize> = (0..work_queues.len()).collect();
        order.sort_by_key(|&work_queue| work_queues[work_queue].class.priority);
        Self {
            total,
            free: total,
            work_queues,
            order,
            making_room: None,
            took: None,
            ends: VecDeque::new(),
            prefetched: 0,
        }
    }

    /// The room that is free.
    #[must_use]
    pub(crate) const fn free(&self) -> Room {
        self.free
    }

    /// What to do now, and when to ask again although nothing happened.
    pub(crate) fn plan(&mut self, now: Instant) -> (Vec<Action>, Option<Instant>) {
        let mut actions = Vec::new();
        let mut again: Option<Instant> = None;
        let mut wake = |at: Instant| again = Some(again.map_or(at, |known| known.min(at)));
        // The priority that may be asked for, until one is found that is not known to be empty.
        let mut busy = None;
        for place in 0..self.order.len() {
            let index = self.order[place];
            let fits = self.fits(index, now);
            let work_queue = &mut self.work_queues[index];
            if busy.is_some_and(|priority| priority < work_queue.class.priority) {
                break;
            }
            if fits == 0 {
                if work_queue.outstanding == 0 && self.making_room.is_none() {
                    let since = *work_queue.unfit_since.get_or_insert(now);
                    if now.duration_since(since) >= STARVED {
                        work_queue.unfit_since = Some(now);
                        actions.push(Action::CountWaiting { work_queue: index });
                    }
                    wake(since + STARVED);
                }
                continue;
            }
            // Only room for the largest job of the class counts: the waiting job may be too large for less.
            if self.free.holds(Room::ceiling(work_queue.class.size).least(self.total)) {
                work_queue.unfit_since = None;
            }
            let fits = fits.min(work_queue.portion);
            if self.making_room.is_some_and(|wanted| wanted != index) {
                continue;
            }
            // Many small jobs are asked for when half of the last request has arrived, so that each does not cost a request.
            if work_queue.outstanding <= fits / 2 {
                actions.push(Action::Ask {
                    work_queue: index,
                    count: fits - work_queue.outstanding,
                });
                work_queue.outstanding = fits;
            }
            let since = *work_queue.quiet_since.get_or_insert(now);
            if now.duration_since(since) < QUIET {
                busy = Some(work_queue.class.priority);
                wake(since + QUIET);
            }
        }
        (actions, again)
    }

    /// How many jobs of a work queue to ask for with the free room.
    fn fits(&self, index: usize, now: Instant) -> usize {
        let work_queue = &self.work_queues[index];
        let ceiling = Room::ceiling(work_queue.class.size).least(self.total);
        let Some(guess) = work_queue.guess(now) else {
            return if self.free.holds(ceiling) {
                self.free.times(ceiling).clamp(1, MOST)
            } else {
                usize::from(self.free.may_hold(work_queue.class.size))
            };
        };
        let at_once = if self.free.holds(ceiling) || self.free.holds(guess) {
            self.free.times(guess).clamp(1, MOST)
        } else {
            0
        };
        (at_once + self.prefetch_limit(guess, now)).min(MOST)
    }

    /// How many more jobs of this size may be prefetched.
    fn prefetch_limit(&self, guess: Room, now: Instant) -> usize {
        let short = self.took.is_some_and(|took| took < SHORT) && self.making_room.is_none();
        if !short {
            return 0;
        }
        let made_room = |(at, room): &&(Instant, Room)| now.duration_since(*at) < PACE && room.holds(guess);
        let pace = self.ends.iter().filter(made_room).count();
        pace.min(self.total.times(guess)).saturating_sub(self.prefetched)
    }

    /// A job arrived from this work queue that needs this much room.
    pub(crate) fn delivered(&mut self, work_queue: usize, wants: Room, now: Instant) -> Verdict {
        self.work_queues[work_queue].delivered(wants, now);
        if !self.total.holds(wants) {
            return Verdict::TooBig;
        }
        if self.take(wants) {
            self.making_room = None;
            self.work_queues[work_queue].unfit_since = None;
            Verdict::Run
        } else if self.prefetch_limit(wants, now) > 0 {
            self.prefetched += 1;
            Verdict::Prefetch
        } else {
            Verdict::NoRoom
        }
    }

    /// Whether there is room now for a prefetched job of this size; it is taken then.
    pub(crate) fn prefetched_fits(&mut self, wants: Room) -> bool {
        let fits = self.making_room.is_none() && self.take(wants);
        self.prefetched -= usize::from(fits);
        fits
    }

    /// A resumed attempt takes this much room: more than there is, if the machine has become smaller.
    pub(crate) const fn resumed(&mut self, room: Room) {
        self.free.cpu_milli = self.free.cpu_milli.saturating_sub(room.cpu_milli);
        self.free.memory_bytes = self.free.memory_bytes.saturating_sub(room.memory_bytes);
    }

    /// A prefetched job was returned, or ended.
    pub(crate) fn prefetched_returned(&mut self) {
        self.prefetched = self.prefetched.saturating_sub(1);
    }

    /// A prefetched job got no slot in time: the attempts that run now are not short.
    pub(crate) fn prefetched_expired(&mut self) {
        self.prefetched_returned();
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

    /// A message arrived from this work queue that is not a job.
    pub(crate) fn discarded(&mut self, work_queue: usize) {
        self.work_queues[work_queue].outstanding = self.work_queues[work_queue].outstanding.saturating_sub(1);
    }

    /// A request to this work queue ended without so many of its messages.
    pub(crate) fn ended(&mut self, work_queue: usize, undelivered: usize) {
        let ended = &mut self.work_queues[work_queue];
        ended.outstanding = ended.outstanding.saturating_sub(undelivered);
        if undelivered > 0 {
            ended.portion = 1;
        }
        if self.making_room == Some(work_queue) {
            self.making_room = None;
        }
    }

    /// All requests are lost.
    pub(crate) fn requests_are_lost(&mut self) {
        for work_queue in &mut self.work_queues {
            (work_queue.outstanding, work_queue.quiet_since) = (0, None);
        }
        self.making_room = None;
    }

    /// An attempt's room is free again. `took`: how long the attempt used it, if it did.
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

    /// So many jobs wait in a work queue that was counted.
    pub(crate) fn waiting(&mut self, work_queue: usize, messages: u64) {
        if messages > 0 && self.making_room.is_none() {
            self.making_room = Some(work_queue);
        }
    }
}

#[cfg(test)]
mod tests;
