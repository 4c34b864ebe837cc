//! How full the log is, and what may still be added to it.
//!
//! The last part of its bound is for what ends a job, so that whatever runs can end: new jobs are refused first, then attempts. Who
//! would add either asks its [`Gauge`] before; the server itself refuses everything alike, and only where nothing has room.

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

/// The fastest that a log may fill, in bytes per second: more than a nats-server's disk takes.
const FASTEST: u64 = 200 << 20;
/// The longest and the shortest pause between two looks.
const LOOKS: (Duration, Duration) = (Duration::from_secs(30), Duration::from_millis(250));
/// The pause where something is refused already.
const REFUSING: Duration = Duration::from_secs(1);
/// How far below a limit, in hundredths of the bound, what is known is not relied on: the server is asked before each addition.
const NEAR: u64 = 5;
/// What the server, its headers and the envelope add to an event, in bytes: some 600 where names are short.
pub const OVERHEAD: u64 = 1_024;

/// What is to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addition {
    /// New jobs, by the API.
    Jobs,
    /// What begins an attempt, or lets one begin: a claim, by a runner; a release or another try, by the watcher.
    Attempts,
}

impl Addition {
    /// The part of the bound that the log may have filled, in hundredths.
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
    /// Bytes that it holds.
    pub used: u64,
    /// Bytes that it may hold; 0: without bound, or not known.
    pub max: u64,
}

impl Fill {
    /// Whether this may still be added.
    #[must_use]
    pub const fn has_room(self, addition: Addition) -> bool {
        self.max == 0 || self.used <= self.limit(addition)
    }

    /// How many bytes it may hold for this still to be added.
    #[must_use]
    pub const fn limit(self, addition: Addition) -> u64 {
        self.max / 100 * addition.hundredths()
    }

    /// When to look again: before as much can have been added as there is room for.
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

/// Asks the server how full the log is, and what its last sequence is.
async fn ask(js: &jetstream::Context) -> Result<(Fill, u64), jetstream::context::GetStreamError> {
    let stream = js.get_stream(EVENTS).await?;
    let info = stream.cached_info();
    let fill = Fill {
        used: info.state.bytes,
        max: u64::try_from(info.config.max_bytes).unwrap_or(0),
    };
    Ok((fill, info.state.last_sequence))
}

/// Whether an event makes a job ready for an attempt, so that it needs the room of one. What ends a job never does.
#[must_use]
pub const fn begins_an_attempt(event: &JobEvent) -> bool {
    matches!(event, JobEvent::Released(_) | JobEvent::Rescheduled(_) | JobEvent::Requeued(_))
}

/// What one process knows of the log's fill, and what it is adding to it.
///
/// Far from a limit, what was known a moment ago suffices; near it, the server is asked before each addition. What was admitted and may not
/// be stored yet counts as stored. So one process oversteps no limit, and several of them by what each adds at one moment.
#[derive(Debug)]
pub struct Gauge {
    js: jetstream::Context,
    known: Mutex<Known>,
    /// One asks for all who want to know.
    asking: tokio::sync::Mutex<()>,
    fill: watch::Sender<Fill>,
}

#[derive(Debug, Default)]
struct Known {
    fill: Fill,
    /// When the server was asked for it; the fill at any later time is not known.
    at: Option<Instant>,
    /// Bytes that were admitted, and whose appends are under way.
    pending: u64,
    /// Bytes whose appends were done with after the server was asked.
    since: u64,
}

impl Known {
    /// Takes room, where the log has it: `near` the limit too, or only far from it.
    fn take(&mut self, addition: Addition, bytes: u64, near: bool) -> bool {
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

/// Room that was given, until it is dropped: when what it was given for is stored, or will not be.
#[derive(Debug)]
#[must_use = "room is given for as long as this is kept"]
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
    /// One that knows nothing yet.
    #[must_use]
    pub fn new(js: jetstream::Context) -> Arc<Self> {
        Arc::new(Self {
            js,
            known: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            fill: watch::Sender::default(),
        })
    }

    /// How full the log was when the server was asked last.
    #[must_use]
    pub fn fill(&self) -> Fill {
        *self.fill.borrow()
    }

    /// The same, to wait for its changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Fill> {
        self.fill.subscribe()
    }

    /// Gives room for this many bytes. Where the server cannot be asked, what is known decides: nothing can be stored then anyway.
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
            if known.is_fresh(now) && known.take(addition, bytes, false) {
                return Ok(admitted(self));
            }
        }
        let asked = self.ask_since(now).await;
        let mut known = self.known.lock();
        if known.take(addition, bytes, true) {
            return Ok(admitted(self));
        }
        if let Err(error) = asked {
            debug!("cannot tell how full {EVENTS} is: {error}");
        }
        Err(known.fill)
    }

    /// Asks the server, unless it was asked after `moment` by another.
    async fn ask_since(&self, moment: Instant) -> Result<(), jetstream::context::GetStreamError> {
        let _one = self.asking.lock().await;
        if self.known.lock().at.is_some_and(|at| at >= moment) {
            return Ok(());
        }
        self.ask().await.map(|_| ())
    }

    /// Asks the server how full the log is; answers with its last sequence.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn look(&self) -> Result<u64, jetstream::context::GetStreamError> {
        let _one = self.asking.lock().await;
        self.ask().await
    }

    /// One at a time, so that no answer comes in place of a later one.
    async fn ask(&self) -> Result<u64, jetstream::context::GetStreamError> {
        let at = Instant::now();
        // What ends from here on may be in the answer or not; until the answer is there, what ended before counts too.
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

    /// Keeps what is known up to date, for as long as it is polled, and says in the program's log when attempts have no room.
    pub async fn keep(&self) {
        loop {
            let before = self.fill();
            match self.look().await {
                Ok(_) => {
                    let now = self.fill();
                    match (before.has_room(Addition::Attempts), now.has_room(Addition::Attempts)) {
                        (true, false) => warn!(
                            "the log {EVENTS} holds {} of its {} bytes: no attempt begins until its bound is raised (`rgrid log --bound`); what \
                             runs can end",
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
    fn new_jobs_are_refused_first_then_attempts_and_the_rest_is_for_ends() {
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
    fn it_is_looked_at_again_before_it_can_be_full() {
        let after = |used, max| Fill { used, max }.look_again();
        assert_eq!(after(0, 0), LOOKS.0);
        assert_eq!(after(0, 16 << 30), LOOKS.0, "far from full");
        assert_eq!(after(0, 1 << 20), LOOKS.1, "a small one may fill in no time");
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
    fn near_a_limit_what_was_known_a_moment_ago_does_not_count() {
        assert!(known(8_499).take(Addition::Jobs, 1, false));
        assert!(!known(8_500).take(Addition::Jobs, 1, false));
        assert!(known(8_999).take(Addition::Jobs, 1, true));
        assert!(!known(9_000).take(Addition::Jobs, 1, true));
        assert!(known(9_000).take(Addition::Attempts, 1, true));
    }

    #[test]
    fn what_was_admitted_and_may_not_be_stored_yet_counts() {
        let mut burst = known(8_000);
        assert!((0..10).all(|_| burst.take(Addition::Jobs, 100, true)));
        assert!(!burst.take(Addition::Jobs, 1, true), "1,000 bytes are on their way");
    }

    #[test]
    fn what_is_old_is_not_relied_on() {
        let now = Instant::now();
        let mut known = known(0);
        assert!(known.is_fresh(now));
        assert!(!known.is_fresh(now + LOOKS.0 * 3));
        known.at = None;
        assert!(!known.is_fresh(now));
    }
}
