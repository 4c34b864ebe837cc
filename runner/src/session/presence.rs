//! A worker's presence: its registration, its self-fence, and the orderly end of its session. Its heartbeats are in `heartbeat.rs`.

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
    attempt::{context::Context, registry::StopReason, room::Room},
    config::Config,
    executor::Executors,
};

/// How long appending a session's end may take. A runner that stops does not wait for the end of an outage.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The state of a session at the last turn of its loop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionStatus {
    /// The free room.
    pub(crate) free: Room,
    /// Whether it asks for work.
    pub(crate) wants_work: bool,
}

/// A session's status, shared with its heartbeats.
pub(crate) type SharedStatus = Arc<Mutex<SessionStatus>>;

/// What a worker registers at the beginning of a session.
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

/// Appends that the session ended in good order; its unfinished attempts are rescheduled at once.
pub(crate) async fn leave(context: &Context) {
    let left = WorkerEvent::Left(Left { session: context.session });
    let why = match tokio::time::timeout(LEAVE_TIMEOUT, context.writer.announce(&context.worker, left)).await {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "NATS does not answer".to_owned(),
    };
    warn!("cannot append the end of the session ({why}); the watcher will notice the missing heartbeats");
}

/// The time of the last event of a kind: the sending of the last acknowledged heartbeat, or the last turn of the session's loop.
#[derive(Debug, Clone)]
pub(crate) struct LastTime(Arc<Mutex<Instant>>);

impl LastTime {
    /// The present time.
    #[must_use]
    pub(crate) fn now() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// Sets the time, unless a later one is known.
    pub(crate) fn set(&self, sent: Instant) {
        let mut last = self.0.lock();
        *last = sent.max(*last);
    }

    /// How long ago that is.
    pub(crate) fn elapsed(&self) -> Duration {
        self.0.lock().elapsed()
    }

    /// Waits until the last time is this long ago.
    pub(crate) async fn silent_for(&self, long: Duration) {
        loop {
            let until = *self.0.lock() + long;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until.into()).await;
        }
    }
}

/// Ends every attempt when no heartbeat was acknowledged for so long: the watcher waits longer before it gives the session up.
pub(crate) async fn self_fence(context: Arc<Context>, acknowledged: LastTime, limit: Duration, unacknowledged: CancellationToken) {
    acknowledged.silent_for(limit).await;
    warn!(
        "no heartbeat was acknowledged for {:.1} s: ending every attempt before another worker may start it again",
        limit.as_secs_f32()
    );
    context.attempts.stop_all(StopReason::Fenced);
    unacknowledged.cancel();
}
