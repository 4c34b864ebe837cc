//! The watcher's own heartbeat, by which it tells the silence of a worker from that of the broker.
//!
//! A nats-server that was frozen for 6 s announces the expiry of every healthy worker's heartbeat before it delivers the
//! ones that piled up meanwhile (measured). So the watcher beats into the same stream, and believes in a silence only
//! while its own heartbeats are acknowledged and come back.

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

/// How often the watcher beats.
const PERIOD: Duration = Duration::from_millis(500);
/// How long it waits for an acknowledgement before it beats again.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the broker keeps its heartbeat.
const TTL: Duration = Duration::from_secs(5);

/// A heartbeat of ours that the broker has stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored {
    pub(crate) sequence: u64,
    pub(crate) sent: Instant,
}

/// Beats until nobody wants to know of it any more; at once where that is asked for. Each beat tells whether this watcher
/// `hears` of dead connections by the broker's advisories.
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

/// Matches what was acknowledged with what came back.
#[derive(Debug, Default)]
pub(crate) struct Canary {
    stored: VecDeque<Stored>,
    told: u64,
}

impl Canary {
    /// A heartbeat of ours was acknowledged.
    pub(crate) fn acknowledged(&mut self, stored: Stored) {
        self.stored.push_back(stored);
        // They come two a second; a follower that is minutes behind needs no more than the last ones.
        if self.stored.len() > 100 {
            self.stored.pop_front();
        }
    }

    /// The heartbeats up to this sequence came in.
    pub(crate) fn told(&mut self, sequence: u64) {
        self.told = self.told.max(sequence);
    }

    /// When the last heartbeat was sent that was acknowledged and came back.
    pub(crate) fn last(&mut self) -> Option<Instant> {
        let mut last = None;
        while self.stored.front().is_some_and(|stored| stored.sequence <= self.told) {
            last = self.stored.pop_front().map(|stored| stored.sent);
        }
        last
    }
}
