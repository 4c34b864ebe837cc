//! What comes in: the log's events and the workers' heartbeats, decoded.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bus::{
    ids::WorkerId,
    log::{
        EVENTS, PRESENCE,
        connect::Bus,
        follow::{Followed, Follower},
    },
    worker::Heartbeat,
};
use tokio::sync::mpsc;
use tracing::{error, warn};

use crate::{
    act::chain,
    seen::{self, Seen},
    snapshot::Place,
};

/// Messages that are taken together.
const CHUNK: usize = 1_000;
/// How long events gather while they keep coming: a moment, beside the seconds that a silence takes to be one.
const LINGER: Duration = Duration::from_millis(20);

/// And how long while slots of a batch may become free, for which somebody waits.
const HURRIED: Duration = Duration::from_millis(1);

/// Some of what came, in order.
#[derive(Debug)]
pub(crate) enum Feed {
    /// Events.
    Events(Events),
    /// Heartbeats, and the sequence up to which they are told.
    Beats(Vec<(WorkerId, Heartbeat)>, u64),
}

/// Some events.
#[derive(Debug)]
pub(crate) struct Events {
    /// Those that mean something.
    pub(crate) seen: Vec<(u64, Seen)>,
    /// The last one, whatever it means.
    pub(crate) last: Place,
    /// Whether some could not be read.
    pub(crate) skipped: bool,
    /// How many came.
    pub(crate) count: u64,
    /// How many more stood behind them.
    pub(crate) pending: u64,
}

/// Follows the log from behind this sequence.
pub(crate) async fn events(bus: Bus, after: u64, hurry: Arc<AtomicBool>, feed: mpsc::Sender<Feed>) {
    // All of it. A consumer with two filters that hold wildcards gets 200 messages a second out of 2.15.1 once there are many
    // subjects, and 30,000 with one or none (measured over 50,000 subjects); and the order between jobs and workers matters.
    let mut follower = Follower::new(&bus.js, EVENTS, Vec::new(), after).linger(LINGER);
    let mut unreadable = 0_u64;
    loop {
        follower.set_linger(if hurry.load(Ordering::Relaxed) { HURRIED } else { LINGER });
        let chunk = follower.chunk(CHUNK).await;
        let Some(last) = chunk.last() else { continue };
        let (last, pending, count) = (place(last), last.pending, chunk.len() as u64);
        let (mut events, mut skipped) = (Vec::new(), false);
        for message in chunk {
            match seen::read(&message.subject, &message.payload) {
                Ok(Some(seen)) => events.push((message.sequence, seen)),
                Ok(None) => {}
                Err(error) => {
                    unreadable += 1;
                    skipped = true;
                    events.extend(seen::unreadable(&message.subject).map(|seen| (message.sequence, seen)));
                    error!(
                        unreadable,
                        "skipped the event at sequence {}, on {}: {}; if a newer rgrid wrote it, this watcher must be as new",
                        message.sequence,
                        message.subject,
                        chain(&error)
                    );
                }
            }
        }
        let seen = events;
        let events = Events {
            seen,
            last,
            skipped,
            count,
            pending,
        };
        if feed.send(Feed::Events(events)).await.is_err() {
            return;
        }
    }
}

fn place(message: &Followed) -> Place {
    let headers = message.headers.as_ref();
    Place {
        sequence: message.sequence,
        subject: message.subject.clone(),
        id: headers
            .and_then(|headers| headers.get(async_nats::header::NATS_MESSAGE_ID))
            .map(ToString::to_string),
    }
}

/// Follows the heartbeats, from those that are still there.
pub(crate) async fn beats(bus: Bus, feed: mpsc::Sender<Feed>) {
    let mut follower = Follower::new(&bus.js, PRESENCE, Vec::new(), 0);
    let mut complaints = Complaints::default();
    loop {
        let chunk = follower.chunk(CHUNK).await;
        let last = chunk.last().map_or(0, |message| message.sequence);
        let mut beats = Vec::with_capacity(chunk.len());
        for message in chunk {
            let Some(worker) = bus::subjects::parse_beat(&message.subject).filter(|token| !bus::subjects::is_watcher(token)) else {
                continue;
            };
            // A marker that the broker left where a heartbeat expired. We count silence ourselves: it may be the broker's own.
            if message.payload.is_empty() {
                continue;
            }
            match (worker.parse::<WorkerId>(), serde_json::from_slice::<Heartbeat>(&message.payload)) {
                (Ok(worker), Ok(beat)) => beats.push((worker, beat)),
                (Ok(_), Err(error)) if complaints.is_new(worker) => {
                    warn!("the heartbeats of worker {worker} cannot be read, so it counts as silent: {error}");
                }
                (Ok(_), Err(_)) | (Err(_), _) => {}
            }
        }
        if feed.send(Feed::Beats(beats, last)).await.is_err() {
            return;
        }
    }
}

/// About whom it was complained: the last ones, so that who keeps speaking what nobody understands is named once.
#[derive(Debug, Default)]
struct Complaints(VecDeque<String>);

impl Complaints {
    /// Workers that are remembered.
    const MOST: usize = 1_000;

    /// Whether it is to be complained about this one: it was not before, or so many others ago that it is forgotten.
    fn is_new(&mut self, worker: &str) -> bool {
        if self.0.iter().any(|other| other == worker) {
            return false;
        }
        self.0.push_back(worker.to_owned());
        if self.0.len() > Self::MOST {
            self.0.pop_front();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_remembered_and_the_oldest_forgotten() {
        let mut complaints = Complaints::default();
        let names: Vec<String> = (0..=Complaints::MOST).map(|number| format!("w{number}")).collect();
        assert!(names.iter().all(|name| complaints.is_new(name)));
        assert!(names[1..].iter().all(|name| !complaints.is_new(name)), "the newest are known");
        assert!(complaints.is_new(&names[0]), "the oldest was forgotten");
    }
}
