//! How full the log is, and what may still be added to it.
//!
//! The last part of the log's bound is reserved for events that end jobs, so that running jobs can always end: new jobs are refused
//! first, then new attempts. Before such an addition, the writer asks its [`Gauge`]. The server itself refuses every event alike, and
//! only when the log is completely full.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream;
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::EVENTS;
use crate::job::JobEvent;

/// The highest rate at which a log grows, in bytes per second: more than the disk of a nats-server can write.
const FASTEST: u64 = 200 << 20;
/// The longest and the shortest pause between two requests to the server.
const LOOKS: (Duration, Duration) = (Duration::from_secs(30), Duration::from_millis(250));
/// The pause while additions are refused.
const REFUSING: Duration = Duration::from_secs(1);
/// Within this distance of a limit, in hundredths of the bound, the server is asked before each addition.
const NEAR: u64 = 5;
/// What the server, the headers and the envelope add to an event, in bytes: about 600 with short names.
pub const OVERHEAD: u64 = 1_024;

/// A kind of addition to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addition {
    /// New jobs, from the API.
    Jobs,
    /// Events that begin an attempt or make a job ready for one: a claim, by a runner; a release or a rescheduling, by the watcher.
    Attempts,
}

impl Addition {
    /// How full the log may be for this kind of addition, in hundredths of its bound.
    #[must_use]
    pub const fn hundredths(self) -> u64 {
        match self {
            Self::Jobs => 90,
            Self::Attempts => 95,
        }
    }
}

/// How full the log is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fill {
    /// The log's size, in bytes.
    pub used: u64,
    /// The log's bound, in bytes; 0: no bound, or unknown.
    pub max: u64,
}

impl Fill {
    /// Whether this kind of addition is still admitted.
    #[must_use]
    pub const fn has_room(self, addition: Addition) -> bool {
        self.max == 0 || self.used <= self.limit(addition)
    }

    /// The largest size of the log at which this kind of addition is admitted, in bytes.
    #[must_use]
    pub const fn limit(self, addition: Addition) -> u64 {
        self.max / 100 * addition.hundredths()
    }

    /// When to ask the server again: before the log can have reached a limit.
    #[must_use]
    pub fn look_again(self) -> Duration {
        if self.max == 0 {
            return LOOKS.0;
        }
        if !self.has_room(Addition::Jobs) {
            return REFUSING;
        }
        let left = self.limit(Addition::Jobs).saturating_sub(self.used);
        Duration::from_millis(left.saturating_mul(1_000) / FASTEST).clamp(LOOKS.1, LOOKS.0)
    }
}

/// Asks the server how full the log is, and for its last sequence.
async fn ask(js: &jetstream::Context) -> Result<(Fill, u64), jetstream::context::GetStreamError> {
    let stream = js.get_stream(EVENTS).await?;
    let info = stream.cached_info();
    let fill = Fill {
        used: info.state.bytes,
        max: u64::try_from(info.config.max_bytes).unwrap_or(0),
    };
    Ok((fill, info.state.last_sequence))
}

/// Whether an event makes a job ready for an attempt, and so needs room for one. An event that ends a job never does.
#[must_use]
pub const fn begins_an_attempt(event: &JobEvent) -> bool {
    matches!(event, JobEvent::Released(_) | JobEvent::Rescheduled(_) | JobEvent::Requeued(_))
}

/// How full the log is, as one process knows it, including the process's own additions.
///
/// Far from a limit, a recent value is used. Near a limit, the server is asked before each addition. An addition that was admitted but
/// may not be stored yet counts as stored. So one process exceeds no limit, and several processes exceed it only by what they add at the
/// same moment.
#[derive(Debug)]
pub struct Gauge {
    js: jetstream::Context,
    known: Mutex<Known>,
    /// Lets one task ask the server for all tasks that wait.
    asking: tokio::sync::Mutex<()>,
    fill: watch::Sender<Fill>,
}

#[derive(Debug, Default)]
struct Known {
    fill: Fill,
    /// When the server was asked.
    at: Option<Instant>,
    /// Bytes of admitted additions whose appends are in progress.
    pending: u64,
    /// Bytes of additions whose appends ended after the server was asked.
    since: u64,
}

impl Known {
    /// Admits an addition if there is room for it. With `near`, the full limit counts; otherwise only room that is far from the limit.
    fn admit(&mut self, addition: Addition, bytes: u64, near: bool) -> bool {
        let margin = if near { 0 } else { self.fill.max / 100 * NEAR };
        let held = [self.fill.used, self.pending, self.since, margin];
        let sum = held.into_iter().fold(bytes, u64::saturating_add);
        let fits = self.fill.max == 0 || sum <= self.fill.limit(addition);
        if fits {
            self.pending += bytes;
        }
        fits
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.at
            .is_some_and(|at| now.saturating_duration_since(at) <= self.fill.look_again() * 2)
    }
}

/// An admitted addition. It counts until this is dropped: when the event is stored, or is known not to be.
#[derive(Debug)]
#[must_use = "the addition counts only while this is kept"]
pub struct Admitted {
    gauge: Arc<Gauge>,
    bytes: u64,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut known = self.gauge.known.lock();
        known.pending = known.pending.saturating_sub(self.bytes);
        known.since = known.since.saturating_add(self.bytes);
    }
}

impl Gauge {
    /// A gauge that has not asked the server yet.
    #[must_use]
    pub fn new(js: jetstream::Context) -> Arc<Self> {
        Arc::new(Self {
            js,
            known: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            fill: watch::Sender::default(),
        })
    }

    /// How full the log was when the server was last asked.
    #[must_use]
    pub fn fill(&self) -> Fill {
        *self.fill.borrow()
    }

    /// How full the log is, as a value whose changes can be awaited.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Fill> {
        self.fill.subscribe()
    }

    /// Admits an addition of this many bytes. If the server does not answer, the last known value decides: nothing can be stored then
    /// anyway.
    ///
    /// # Errors
    /// If there is no room: how full the log is.
    pub async fn admit(self: &Arc<Self>, addition: Addition, bytes: u64) -> Result<Admitted, Fill> {
        let admitted = |gauge: &Arc<Self>| Admitted {
            gauge: Arc::clone(gauge),
            bytes,
        };
        let now = Instant::now();
        {
            let mut known = self.known.lock();
            if known.is_fresh(now) && known.admit(addition, bytes, false) {
                return Ok(admitted(self));
            }
        }
        let asked = self.ask_since(now).await;
        let mut known = self.known.lock();
        if known.admit(addition, bytes, true) {
            return Ok(admitted(self));
        }
        if let Err(error) = asked {
            debug!("cannot tell how full {EVENTS} is: {error}");
        }
        Err(known.fill)
    }

    /// Asks the server, unless another task has asked it after `moment`.
    async fn ask_since(&self, moment: Instant) -> Result<(), jetstream::context::GetStreamError> {
        let _one = self.asking.lock().await;
        if self.known.lock().at.is_some_and(|at| at >= moment) {
            return Ok(());
        }
        self.ask().await.map(|_| ())
    }

    /// Asks the server how full the log is, and returns the log's last sequence.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn look(&self) -> Result<u64, jetstream::context::GetStreamError> {
        let _one = self.asking.lock().await;
        self.ask().await
    }

    /// Only one request at a time, so that no answer replaces a later one.
    async fn ask(&self) -> Result<u64, jetstream::context::GetStreamError> {
        let at = Instant::now();
        // An append that ends from here on may be part of the answer or not. Until the answer arrives, appends that ended before count
        // too.
        let before = self.known.lock().since;
        let (fill, last) = ask(&self.js).await?;
        {
            let mut known = self.known.lock();
            known.fill = fill;
            known.at = Some(at);
            known.since = known.since.saturating_sub(before);
        }
        self.fill.send_replace(fill);
        Ok(last)
    }

    /// Keeps the value up to date for as long as this is polled, and logs a warning when attempts are no longer admitted.
    pub async fn keep(&self) {
        loop {
            let before = self.fill();
            match self.look().await {
                Ok(_) => {
                    let now = self.fill();
                    match (before.has_room(Addition::Attempts), now.has_room(Addition::Attempts)) {
                        (true, false) => warn!(
                            "the log {EVENTS} has {} of {} bytes: no attempt begins until its bound is raised (`rgrid log --bound`); running jobs can \
                             end",
                            now.used, now.max
                        ),
                        (false, true) => info!("the log {EVENTS} has room again"),
                        _ => {}
                    }
                }
                Err(error) => debug!("cannot tell how full {EVENTS} is: {error}"),
            }
            tokio::time::sleep(self.fill().look_again()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_jobs_are_refused_first_then_attempts_and_the_rest_is_for_events_that_end_jobs() {
        let room = |used| {
            let fill = Fill { used, max: 10_000 };
            (fill.has_room(Addition::Jobs), fill.has_room(Addition::Attempts))
        };
        assert_eq!(
            [room(9_000), room(9_001), room(9_500), room(9_501)],
            [(true, true), (false, true), (false, true), (false, false)]
        );
        assert!(Fill { used: 1 << 60, max: 0 }.has_room(Addition::Jobs), "no bound");
    }

    #[test]
    fn the_server_is_asked_again_before_the_log_can_be_full() {
        let after = |used, max| Fill { used, max }.look_again();
        assert_eq!(after(0, 0), LOOKS.0);
        assert_eq!(after(0, 16 << 30), LOOKS.0, "far from full");
        assert_eq!(after(0, 1 << 20), LOOKS.1, "a small log may fill at once");
        for used in [0, 1 << 30, 8 << 30, 14 << 30] {
            let fill = Fill { used, max: 16 << 30 };
            let added = u64::try_from(fill.look_again().as_millis()).expect("short") * FASTEST / 1_000;
            assert!(used + added <= fill.limit(Addition::Jobs), "{used}");
        }
        assert_eq!(after(15 << 30, 16 << 30), REFUSING);
    }

    fn known(used: u64) -> Known {
        Known {
            fill: Fill { used, max: 10_000 },
            at: Some(Instant::now()),
            ..Known::default()
        }
    }

    #[test]
    fn near_a_limit_a_recent_value_is_not_used() {
        assert!(known(8_499).admit(Addition::Jobs, 1, false));
        assert!(!known(8_500).admit(Addition::Jobs, 1, false));
        assert!(known(8_999).admit(Addition::Jobs, 1, true));
        assert!(!known(9_000).admit(Addition::Jobs, 1, true));
        assert!(known(9_000).admit(Addition::Attempts, 1, true));
    }

    #[test]
    fn an_admitted_addition_that_may_not_be_stored_yet_counts() {
        let mut burst = known(8_000);
        assert!((0..10).all(|_| burst.admit(Addition::Jobs, 100, true)));
        assert!(!burst.admit(Addition::Jobs, 1, true), "1,000 bytes are on their way");
    }

    #[test]
    fn an_old_value_is_not_used() {
        let now = Instant::now();
        let mut known = known(0);
        assert!(known.is_fresh(now));
        assert!(!known.is_fresh(now + LOOKS.0 * 3));
        known.at = None;
        assert!(!known.is_fresh(now));
    }
}
