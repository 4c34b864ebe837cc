//! The watcher's own heartbeats, by which it distinguishes the silence of a worker from an outage of the broker.
//!
//! A nats-server that was frozen for 6 s announces the expiry of every healthy worker's heartbeat before it delivers those that were
//! sent meanwhile (measured). So the watcher sends heartbeats into the same stream, and a silence counts only while the watcher's own
//! heartbeats are acknowledged and come back.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream::message::PublishMessage;
use bus::{
    ids::SessionId,
    log::connect::Bus,
    worker::{ADVISORIES, Heartbeat},
};
use chrono::Utc;
use tokio::{
    sync::{Notify, mpsc},
    time::MissedTickBehavior,
};
use tracing::debug;

/// How often the watcher sends one.
const PERIOD: Duration = Duration::from_millis(500);
/// How long it waits for an acknowledgement before it sends the next.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the broker keeps one.
const TTL: Duration = Duration::from_secs(5);

/// One of the watcher's own heartbeats that the broker has stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored {
    pub(crate) sequence: u64,
    pub(crate) sent: Instant,
}

/// Sends heartbeats until the receiver of `stored` is closed; an extra one at each notification of `now`. Each says whether this
/// watcher `hears` the broker's advisories of disconnects.
pub(crate) async fn beat(bus: Bus, id: SessionId, hears: bool, now: Arc<Notify>, stored: mpsc::Sender<Stored>) {
    let subject = bus::subjects::watcher_beat(id);
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stored.is_closed() {
        tokio::select! {
            _ = ticks.tick() => {}
            () = now.notified() => {}
        }
        let sent = Instant::now();
        let acknowledged = async { bus.js.send_publish(subject.clone(), message(id, hears)).await?.await };
        match tokio::time::timeout(PATIENCE, acknowledged).await {
            Ok(Ok(ack)) => {
                let sequence = ack.sequence;
                if stored.send(Stored { sequence, sent }).await.is_err() {
                    return;
                }
            }
            Ok(Err(error)) => debug!("the watcher's own heartbeat was not stored: {error}"),
            Err(_) => debug!("the watcher's own heartbeat was not acknowledged"),
        }
    }
}

fn message(id: SessionId, hears: bool) -> PublishMessage {
    let beat = Heartbeat {
        session: id,
        time: Utc::now(),
        last_claim: 0,
        cpu_milli_free: 0,
        memory_bytes_free: 0,
        load: 0.0,
        attempts: Vec::new(),
        next_ms: None,
        leftovers: Vec::new(),
    };
    let payload = serde_json::to_vec(&beat).unwrap_or_default();
    let hears = if hears { "yes" } else { "no" };
    PublishMessage::build().header(ADVISORIES, hears).payload(payload.into()).ttl(TTL)
}

/// Matches the heartbeats that were acknowledged with those that came back.
#[derive(Debug, Default)]
pub(crate) struct Canary {
    stored: VecDeque<Stored>,
    received: u64,
}

impl Canary {
    /// A heartbeat was acknowledged.
    pub(crate) fn acknowledged(&mut self, stored: Stored) {
        self.stored.push_back(stored);
        // Two are sent each second; a follower that is minutes behind needs only the last ones.
        if self.stored.len() > 100 {
            self.stored.pop_front();
        }
    }

    /// All heartbeats up to this sequence came in.
    pub(crate) fn received(&mut self, sequence: u64) {
        self.received = self.received.max(sequence);
    }

    /// When the last heartbeat was sent that was acknowledged and has come back since the last call.
    pub(crate) fn last(&mut self) -> Option<Instant> {
        let mut last = None;
        while self.stored.front().is_some_and(|stored| stored.sequence <= self.received) {
            last = self.stored.pop_front().map(|stored| stored.sent);
        }
        last
    }
}
