//! A worker's presence: its registration, what it does when it is not heard, and its leave. Its beats are in `heartbeat.rs`.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bus::{
    ids::SessionId,
    worker::{Left, Registered, WorkerEvent},
};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    attempt::{context::Context, registry::Stop, room::Room},
    config::Config,
    executor::Executors,
};

/// How long a session's end may take to be said. Who goes down does not wait out an outage.
const GOOD_BYE: Duration = Duration::from_secs(5);

/// How a session stood when its loop last turned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    /// The free room.
    pub(crate) free: Room,
    /// Whether it asks for work. Somebody may wait for the word of one that does not.
    pub(crate) wants_work: bool,
}

/// A session's standing, for its heart to tell.
pub(crate) type Shown = Arc<Mutex<Standing>>;

/// What a worker says of itself at the beginning of a session.
#[must_use]
pub(crate) fn registration(config: &Config, session: SessionId, executors: &Executors) -> Registered {
    let read = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let versions = [
        ("rgrid", env!("CARGO_PKG_VERSION").to_owned()),
        ("linux", read("/proc/sys/kernel/osrelease")),
    ];
    let versions = versions.into_iter().map(|(name, version)| (name.to_owned(), version));
    Registered {
        session,
        cpu_milli: config.cpu_milli,
        memory_bytes: config.memory_bytes,
        queues: config.queues.clone(),
        executors: executors.kinds(),
        labels: config.labels.clone(),
        versions: versions.chain(executors.versions()).collect::<BTreeMap<_, _>>(),
        host: read("/proc/sys/kernel/hostname"),
        pid: std::process::id(),
        self_fence_ms: config.self_fence.map(|fence| u64::try_from(fence.as_millis()).unwrap_or(u64::MAX)),
    }
}

/// Says that the session ended in good order; what it leaves unfinished is rescheduled at once.
pub(crate) async fn leave(context: &Context) {
    let left = WorkerEvent::Left(Left { session: context.session });
    let why = match tokio::time::timeout(GOOD_BYE, context.writer.announce(&context.worker, left)).await {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "NATS does not answer".to_owned(),
    };
    warn!("could not say good-bye ({why}); the watcher will notice by the silence");
}

/// When the last heartbeat that was acknowledged was sent.
#[derive(Debug, Clone)]
pub(crate) struct Pulse(Arc<Mutex<Instant>>);

impl Pulse {
    /// Of a session that the log has just heard of.
    #[must_use]
    pub(crate) fn now() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// One that was sent then was acknowledged.
    pub(crate) fn heard(&self, sent: Instant) {
        let mut last = self.0.lock();
        *last = sent.max(*last);
    }

    /// How long ago that is.
    pub(crate) fn elapsed(&self) -> Duration {
        self.0.lock().elapsed()
    }

    /// Waits until nothing was acknowledged for so long.
    pub(crate) async fn stops_for(&self, long: Duration) {
        loop {
            let until = *self.0.lock() + long;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until.into()).await;
        }
    }
}

/// Ends every attempt when no heartbeat was acknowledged for so long: whoever gives the session up waits longer than that.
pub(crate) async fn fence_self(context: Arc<Context>, pulse: Pulse, limit: Duration, unheard: CancellationToken) {
    pulse.stops_for(limit).await;
    warn!(
        "no heartbeat was acknowledged for {:.1} s: ending every attempt before others may begin them anew",
        limit.as_secs_f32()
    );
    context.attempts.stop_all(Stop::Fenced);
    unheard.cancel();
}
