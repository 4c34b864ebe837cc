//! The projector's input: connects to the log, and reads it in batches.

use std::time::Duration;

use async_nats::jetstream;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use bus::log::{
    EVENTS,
    connect::{self, Bus},
    follow::{Followed, Follower},
    relay, setup,
};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{Config, Error, project::Item};

/// The most events in one transaction.
const BATCH_MAX: usize = 4_000;
/// The same in a rebuild, where all changes of a job within a batch are one row: the most events, and the most bytes of them.
const BULK: (usize, usize) = (20_000, 32 << 20);
/// The most output files of a batch in a rebuild, as listed by the manifests: each is a row.
const BULK_FILES: u64 = 100_000;
/// The least and the most time between two transactions while events keep coming: in between, twice as long as the last transaction took,
/// so that the projector never uses more than a third of a busy machine. The first event after a pause is not delayed.
const PACE: (Duration, Duration) = (Duration::from_millis(40), Duration::from_millis(250));
/// How long events are gathered while more arrive, so that not every event wakes the server and the projector.
const LINGER: Duration = Duration::from_millis(20);
/// How long a batch waits for events that the server has announced.
const ON_THEIR_WAY: Duration = Duration::from_millis(200);

/// The pauses between tries during an outage.
pub(crate) fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(2))
        .with_jitter()
        .without_max_times()
        .build()
}

/// Pauses; returns false if the projector is stopped meanwhile.
pub(crate) async fn pause(pauses: &mut impl Iterator<Item = Duration>, stop: &CancellationToken) -> bool {
    let pause = pauses.next().unwrap_or(PACE.1);
    stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some()
}

/// Connects, and creates or checks the streams. Waits until NATS is up; returns nothing if the projector is stopped meanwhile.
pub(crate) async fn connect(config: &Config, stop: &CancellationToken) -> Result<Option<Bus>, Error> {
    let (mut pauses, mut warned) = (pauses(), false);
    loop {
        let error = match reach(config).await {
            Ok(bus) => return Ok(Some(bus)),
            Err(error @ (Error::Connect(connect::Error::Connect { .. }) | Error::Streams(setup::Error::Request { .. }))) => error,
            Err(error) => return Err(error),
        };
        if !std::mem::replace(&mut warned, true) {
            warn!("waiting for NATS: {}", crate::project::chain(&error));
        }
        if !pause(&mut pauses, stop).await {
            return Ok(None);
        }
    }
}

/// Connects once.
pub(crate) async fn reach(config: &Config) -> Result<Bus, Error> {
    let bus = Bus::connect(&config.nats, "projector").await?;
    setup::streams(&bus.js, config.replicas).await?;
    Ok(bus)
}

/// The first and the last sequence of the log.
pub(crate) async fn bounds(js: &jetstream::Context) -> Result<(u64, u64), Error> {
    let stream = js.get_stream(EVENTS).await.map_err(Error::Log)?;
    let state = &stream.cached_info().state;
    Ok((state.first_sequence, state.last_sequence))
}

/// How the log is read and folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// New events as they come, with a bounded share of the machine.
    Live,
    /// Events that are in the log already, as fast as possible: in large batches, one being read while another is written.
    Bulk,
}

/// The log from a position on.
#[derive(Debug)]
pub(crate) struct Source {
    follower: Follower,
    until: Option<u64>,
    /// When the next batch may be written.
    earliest: Instant,
}

impl Source {
    /// The events after sequence `after`, up to sequence `until`, if given.
    pub(crate) fn new(js: &jetstream::Context, after: u64, until: Option<u64>, mode: Mode) -> Self {
        let follower = Follower::new(js, EVENTS, Vec::new(), after);
        Self {
            follower: match mode {
                Mode::Live => follower.linger(LINGER),
                Mode::Bulk => follower,
            },
            until,
            earliest: Instant::now(),
        }
    }

    /// Notes that a batch was written, and how long that took.
    pub(crate) fn written(&mut self, took: Duration) {
        self.earliest = Instant::now() + (took * 2).clamp(PACE.0, PACE.1);
    }

    /// The next batch: at least one event, unless none is left. Loses events when dropped half-way.
    pub(crate) async fn batch(&mut self) -> Vec<Item> {
        let first = self.follower.chunk(BATCH_MAX).await;
        let latest = self.earliest.max(Instant::now()) + ON_THEIR_WAY;
        let mut items = Vec::with_capacity(first.len());
        let (mut pending, mut last) = self.read(first, &mut items);
        while items.len() < BATCH_MAX && self.until.is_none_or(|until| last < until) {
            let due = if pending { latest } else { self.earliest };
            let Ok(chunk) = timeout_at(due, self.follower.chunk(BATCH_MAX - items.len())).await else {
                break;
            };
            (pending, last) = self.read(chunk, &mut items);
        }
        items
    }

    /// The next batch of a rebuild, up to sequence `until`. Loses events when dropped half-way.
    pub(crate) async fn bulk(&mut self, until: u64) -> Vec<Item> {
        let (mut items, mut bytes, mut files, mut last) = (Vec::new(), 0, 0, 0);
        while items.len() < BULK.0 && bytes < BULK.1 && files < BULK_FILES && last < until {
            let before = items.len();
            let chunk = self.follower.chunk(BULK.0 - items.len()).await;
            bytes += chunk.iter().map(|message| message.payload.len()).sum::<usize>();
            (_, last) = self.read(chunk, &mut items);
            files += items[before..].iter().map(Item::files).sum::<u64>();
        }
        items
    }

    /// Decodes messages; returns whether the server has announced more, and the last sequence.
    fn read(&self, chunk: Vec<Followed>, items: &mut Vec<Item>) -> (bool, u64) {
        let (mut pending, mut last) = (false, 0);
        for message in chunk {
            (pending, last) = (message.pending > 0, message.sequence);
            if self.until.is_none_or(|until| message.sequence <= until) {
                items.push(match relay::undeliverable(message.headers.as_ref()) {
                    Some(reason) => Item::undeliverable(message.subject, message.sequence, reason),
                    None => Item::read(message.subject, message.sequence, &message.payload),
                });
            }
        }
        (pending, last)
    }
}
