//! The watcher's input: the events of the log and the workers' heartbeats, decoded.

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
    error::chain,
    observation::{self, Observation},
    snapshot::Place,
};

/// The most messages of one chunk.
const CHUNK: usize = 1_000;
/// How long events are gathered while more arrive. This is short compared with the seconds after which a silence counts.
const LINGER: Duration = Duration::from_millis(20);

/// How long while slots of a batch may become free, for which members wait.
const LINGER_LOW_LATENCY: Duration = Duration::from_millis(1);

/// A chunk of input, in order.
#[derive(Debug)]
pub(crate) enum Feed {
    /// Events.
    Events(Events),
    /// Heartbeats, and the sequence of the last one.
    Beats(Vec<(WorkerId, Heartbeat)>, u64),
}

/// Some events.
#[derive(Debug)]
pub(crate) struct Events {
    /// What those change that matter to the watcher, by sequence.
    pub(crate) observations: Vec<(u64, Observation)>,
    /// The last one, whether it matters or not.
    pub(crate) last: Place,
    /// Whether some could not be read.
    pub(crate) skipped: bool,
    /// How many there were.
    pub(crate) count: u64,
    /// How many more follow them in the log.
    pub(crate) pending: u64,
}

/// Follows the log after this sequence.
pub(crate) async fn events(bus: Bus, after: u64, low_latency: Arc<AtomicBool>, feed: mpsc::Sender<Feed>) {
    // The whole log, without a filter. Over many subjects, a consumer with two filters that hold wildcards gets 200 messages a second
    // from nats-server 2.15.1, and 30,000 with one filter or none (measured over 50,000 subjects). The order between jobs and workers
    // matters too.
    let mut follower = Follower::new(&bus.js, EVENTS, Vec::new(), after).linger(LINGER);
    let mut unreadable = 0_u64;
    loop {
        follower.set_linger(if low_latency.load(Ordering::Relaxed) {
            LINGER_LOW_LATENCY
        } else {
            LINGER
        });
        let chunk = follower.chunk(CHUNK).await;
        let Some(last) = chunk.last() else { continue };
        let (last, pending, count) = (place(last), last.pending, chunk.len() as u64);
        let (mut observations, mut skipped) = (Vec::new(), false);
        for message in chunk {
            match observation::observe(&message.subject, &message.payload) {
                Ok(Some(observation)) => observations.push((message.sequence, observation)),
                Ok(None) => {}
                Err(error) => {
                    unreadable += 1;
                    skipped = true;
                    observations.extend(observation::unreadable(&message.subject).map(|changed| (message.sequence, changed)));
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
        let events = Events {
            observations,
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

/// Follows the heartbeats, from the oldest that the stream keeps.
pub(crate) async fn beats(bus: Bus, feed: mpsc::Sender<Feed>) {
    let mut follower = Follower::new(&bus.js, PRESENCE, Vec::new(), 0);
    let mut warned = Warned::default();
    loop {
        let chunk = follower.chunk(CHUNK).await;
        let last = chunk.last().map_or(0, |message| message.sequence);
        let mut beats = Vec::with_capacity(chunk.len());
        for message in chunk {
            let Some(worker) = bus::subjects::parse_beat(&message.subject).filter(|token| !bus::subjects::is_watcher(token)) else {
                continue;
            };
            // The broker leaves an empty marker where a heartbeat expired. The watcher measures silence itself, since the broker may
            // have been the silent one.
            if message.payload.is_empty() {
                continue;
            }
            match (worker.parse::<WorkerId>(), serde_json::from_slice::<Heartbeat>(&message.payload)) {
                (Ok(worker), Ok(beat)) => beats.push((worker, beat)),
                (Ok(_), Err(error)) if warned.is_new(worker) => {
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

/// The workers whose heartbeats cannot be read and that were logged: each is logged once.
#[derive(Debug, Default)]
struct Warned(VecDeque<String>);

impl Warned {
    /// Workers that are remembered.
    const MOST: usize = 1_000;

    /// Whether to log this worker: it was not logged before, or so many others ago that it is forgotten.
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
        let mut warned = Warned::default();
        let names: Vec<String> = (0..=Warned::MOST).map(|number| format!("w{number}")).collect();
        assert!(names.iter().all(|name| warned.is_new(name)));
        assert!(names[1..].iter().all(|name| !warned.is_new(name)), "the newest are known");
        assert!(warned.is_new(&names[0]), "the oldest was forgotten");
    }
}
