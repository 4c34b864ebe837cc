//! A worker's heartbeats. The session's event loop sends them. Where it is late, a separate thread with a separate connection does, so that
//! a busy loop does not make its worker look dead. A loop that has not run for [`HUNG_AFTER`] counts as hung, and its worker falls silent.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream::{self, message::PublishMessage};
use bus::{log::connect, subjects, worker::Heartbeat};
use chrono::{SubsecRound as _, Utc};
use parking_lot::Mutex;
use tokio::{runtime::Builder, sync::oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    attempt::context::Context,
    config::Config,
    session::presence::{LastTime, SharedStatus},
};

/// How long the server keeps a heartbeat after the next one was due, before it announces the worker's silence.
const TTL_MARGIN: Duration = Duration::from_secs(4);
/// How long the session's loop may not run before its worker counts as hung. A job can occupy it for a second at most.
const HUNG_AFTER: Duration = Duration::from_secs(15);
/// The shortest time in which a heartbeat must be acknowledged.
const ACK_TIMEOUT: Duration = Duration::from_millis(500);

/// Sends a worker's heartbeats.
#[derive(Clone)]
pub(crate) struct Heartbeats {
    context: Arc<Context>,
    subject: String,
    period: Duration,
    /// The period while the worker waits for work.
    idle_period: Duration,
    status: SharedStatus,
    /// The time until the next heartbeat, as the last acknowledged one announced it.
    promised: Arc<Mutex<Duration>>,
    /// When the last acknowledged heartbeat was sent.
    acknowledged: LastTime,
    /// When the session's loop ran last.
    loop_ran: LastTime,
}

impl Heartbeats {
    /// The heartbeats of a session that was just registered.
    pub(crate) fn new(context: &Arc<Context>, config: &Config, status: SharedStatus, acknowledged: LastTime) -> Self {
        // A runner with a self-fence must not end its attempts because of one lost heartbeat.
        let fenced = config.self_fence.map(|fence| config.heartbeat.min(fence / 4));
        let period = fenced.unwrap_or(config.heartbeat);
        Self {
            context: Arc::clone(context),
            subject: subjects::beat(&config.worker),
            period,
            idle_period: fenced.unwrap_or(Heartbeat::IDLE_PERIOD),
            status,
            promised: Arc::new(Mutex::new(Duration::ZERO)),
            acknowledged,
            loop_ran: LastTime::now(),
        }
    }

    /// Sends heartbeats until it is stopped, in the session's own runtime.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.loop_ran.set(Instant::now());
            if self.acknowledged.elapsed() + self.period / 2 >= self.due() {
                self.send(&self.context.js).await;
            }
        }
    }

    /// The present period: longer while the worker waits for work.
    fn current_period(&self) -> Duration {
        if self.status.lock().wants_work && self.context.attempts.is_empty() {
            self.idle_period
        } else {
            self.period
        }
    }

    /// How long after the last heartbeat the next one is due: as announced, or sooner if the session has got work meanwhile.
    fn due(&self) -> Duration {
        self.current_period().min(*self.promised.lock())
    }

    /// Starts the thread that sends overdue heartbeats, until it is stopped. The returned future ends with the thread.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn start_thread(self, nats: &str, stop: CancellationToken) -> io::Result<impl Future<Output = ()> + use<>> {
        let name = format!("worker/{}/{}/beats", self.context.worker, self.context.session);
        let (nats, runtime) = (nats.to_owned(), Builder::new_current_thread().enable_all().build()?);
        let (done, ended) = oneshot::channel();
        let beats = move || {
            runtime.block_on(stop.run_until_cancelled(async {
                match connect::side_connection(&nats, &name).await {
                    Ok(bus) => self.send_overdue(&bus.js).await,
                    Err(error) => warn!(
                        "the heartbeat thread of this worker cannot connect: {}",
                        crate::errors::chain(&error)
                    ),
                }
            }));
            runtime.shutdown_background();
            // The receiver may be gone.
            let _ = done.send(());
        };
        std::thread::Builder::new().name("heartbeat".to_owned()).spawn(beats)?;
        Ok(async move { ended.await.unwrap_or_default() })
    }

    /// Sends a heartbeat whenever the loop's is overdue, unless the loop is hung.
    async fn send_overdue(&self, js: &jetstream::Context) {
        let mut hung = false;
        loop {
            let late = self.due() + self.period / 4;
            // The session may get work meanwhile, and its next heartbeat is due sooner then.
            let rest = late.saturating_sub(self.acknowledged.elapsed()).clamp(self.period / 8, self.period);
            tokio::time::sleep(rest).await;
            let still = self.loop_ran.elapsed();
            if still > HUNG_AFTER {
                if !std::mem::replace(&mut hung, true) {
                    warn!(
                        "this runner's event loop has not run for {:.0} s; its worker sends no heartbeats until it runs again",
                        still.as_secs_f32()
                    );
                }
                continue;
            }
            hung = false;
            // A heartbeat that waits for a connection would be sent too late.
            let connected = js.client().connection_state() == async_nats::connection::State::Connected;
            if connected && self.acknowledged.elapsed() >= self.due() + self.period / 4 {
                debug!("the loop is late; sending its heartbeat");
                self.send(js).await;
            }
        }
    }

    /// Sends one heartbeat, and waits for its acknowledgement for a limited time.
    async fn send(&self, js: &jetstream::Context) {
        let next = self.current_period();
        let Ok(payload) = serde_json::to_vec(&self.heartbeat(next)) else {
            return;
        };
        let ttl = format!("{}s", (next + TTL_MARGIN).as_secs());
        let message = PublishMessage::build().header("Nats-TTL", ttl).payload(payload.into());
        let begun = Instant::now();
        let sent = async { js.send_publish(self.subject.clone(), message).await?.await };
        match tokio::time::timeout(self.period.max(ACK_TIMEOUT), sent).await {
            Ok(Ok(_)) => {
                *self.promised.lock() = next;
                self.acknowledged.set(begun);
            }
            Ok(Err(error)) => debug!("a heartbeat was not stored: {error}"),
            Err(_) => debug!("a heartbeat was not acknowledged in time"),
        }
    }

    fn heartbeat(&self, next: Duration) -> Heartbeat {
        let (last_claim, attempts) = self.context.attempts.snapshot();
        let room = self.status.lock().free;
        Heartbeat {
            session: self.context.session,
            time: Utc::now().trunc_subsecs(6),
            last_claim,
            cpu_milli_free: room.cpu_milli,
            memory_bytes_free: room.memory_bytes,
            load: load(),
            attempts,
            next_ms: (next > Heartbeat::PERIOD).then(|| u32::try_from(next.as_millis()).unwrap_or(u32::MAX)),
            leftovers: self.context.leftovers.sentences(),
        }
    }
}

fn load() -> f32 {
    std::fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse().ok())
        .unwrap_or(0.0)
}
