//! A worker's beats. The session's own loop sends them, and where it is late, a thread of its own does, over a connection of its own:
//! whatever a job has the loop do, nobody takes its worker for dead. But a loop that stands still for longer than [`STANDSTILL`] will
//! not come back, and its worker falls silent.

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
    session::presence::{Pulse, Shown},
};

/// How long the broker keeps a beat after the next one was due, before it announces the worker's silence.
const OVERDUE: Duration = Duration::from_secs(4);
/// How long the session's loop may stand still before its worker counts as hung. What a job can have it do takes a second at most.
const STANDSTILL: Duration = Duration::from_secs(15);
/// The shortest time in which a beat must be acknowledged.
const ANSWER: Duration = Duration::from_millis(500);

/// Sends a worker's beats.
#[derive(Clone)]
pub(crate) struct Heart {
    context: Arc<Context>,
    subject: String,
    period: Duration,
    /// From one to the next while it waits for work.
    idle_period: Duration,
    shown: Shown,
    /// In how long the last one that was acknowledged says that the next one comes.
    promised: Arc<Mutex<Duration>>,
    /// When the last one was acknowledged.
    pulse: Pulse,
    /// When the session's loop turned last.
    turned: Pulse,
}

impl Heart {
    /// Of a session that was just registered, which beats from now on.
    pub(crate) fn new(context: &Arc<Context>, config: &Config, shown: Shown, pulse: Pulse) -> Self {
        // A runner that ends its attempts when it is not heard must not do so for one beat that was lost.
        let fenced = config.self_fence.map(|fence| config.heartbeat.min(fence / 4));
        let period = fenced.unwrap_or(config.heartbeat);
        Self {
            context: Arc::clone(context),
            subject: subjects::beat(&config.worker),
            period,
            idle_period: fenced.unwrap_or(Heartbeat::IDLE_PERIOD),
            shown,
            promised: Arc::new(Mutex::new(Duration::ZERO)),
            pulse,
            turned: Pulse::now(),
        }
    }

    /// Beats until told to stop, in the session's own loop.
    pub(crate) async fn beat(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.turned.heard(Instant::now());
            if self.pulse.elapsed() + self.period / 2 >= self.due() {
                self.send(&self.context.js).await;
            }
        }
    }

    /// From one beat to the next, as the session stands: nobody waits for the word of one that waits for work.
    fn current_period(&self) -> Duration {
        if self.shown.lock().wants_work && self.context.attempts.is_empty() {
            self.idle_period
        } else {
            self.period
        }
    }

    /// How long after the last beat the next one is due: as soon as that one promised, or sooner if the session has work meanwhile.
    fn due(&self) -> Duration {
        self.current_period().min(*self.promised.lock())
    }

    /// Starts the thread that beats where the loop is late, until told to stop. What it returns is done when the thread is.
    ///
    /// # Errors
    /// If the system has no thread for it.
    pub(crate) fn stand_in(self, nats: &str, stop: CancellationToken) -> io::Result<impl Future<Output = ()> + use<>> {
        let name = format!("worker/{}/{}/beats", self.context.worker, self.context.session);
        let (nats, runtime) = (nats.to_owned(), Builder::new_current_thread().enable_all().build()?);
        let (done, ended) = oneshot::channel();
        let beats = move || {
            runtime.block_on(stop.run_until_cancelled(async {
                match connect::side_connection(&nats, &name).await {
                    Ok(bus) => self.relieve(&bus.js).await,
                    Err(error) => warn!("no thread of its own beats for this worker: {}", crate::errors::chain(&error)),
                }
            }));
            runtime.shutdown_background();
            // Whoever waits for it may be gone.
            let _ = done.send(());
        };
        std::thread::Builder::new().name("heartbeat".to_owned()).spawn(beats)?;
        Ok(async move { ended.await.unwrap_or_default() })
    }

    /// Beats whenever the loop's last beat is overdue, while the loop is not known to be dead.
    async fn relieve(&self, js: &jetstream::Context) {
        let mut hung = false;
        loop {
            let late = self.due() + self.period / 4;
            // The session may get work meanwhile, and its next beat is due sooner then.
            let rest = late.saturating_sub(self.pulse.elapsed()).clamp(self.period / 8, self.period);
            tokio::time::sleep(rest).await;
            let still = self.turned.elapsed();
            if still > STANDSTILL {
                if !std::mem::replace(&mut hung, true) {
                    warn!(
                        "this runner's loop has stood still for {:.0} s; its worker falls silent until it goes on",
                        still.as_secs_f32()
                    );
                }
                continue;
            }
            hung = false;
            // What waited for a connection would be sent when it is of no use.
            let connected = js.client().connection_state() == async_nats::connection::State::Connected;
            if connected && self.pulse.elapsed() >= self.due() + self.period / 4 {
                debug!("the loop is late; beating for it");
                self.send(js).await;
            }
        }
    }

    /// Sends one beat, and waits for its acknowledgement a while: one that waits is worth less than the next one.
    async fn send(&self, js: &jetstream::Context) {
        let next = self.current_period();
        let Ok(payload) = serde_json::to_vec(&self.now(next)) else { return };
        let ttl = format!("{}s", (next + OVERDUE).as_secs());
        let message = PublishMessage::build().header("Nats-TTL", ttl).payload(payload.into());
        let begun = Instant::now();
        let sent = async { js.send_publish(self.subject.clone(), message).await?.await };
        match tokio::time::timeout(self.period.max(ANSWER), sent).await {
            Ok(Ok(_)) => {
                *self.promised.lock() = next;
                self.pulse.heard(begun);
            }
            Ok(Err(error)) => debug!("a beat was not taken: {error}"),
            Err(_) => debug!("a beat was not acknowledged in time"),
        }
    }

    fn now(&self, next: Duration) -> Heartbeat {
        let (last_claim, attempts) = self.context.attempts.snapshot();
        let room = self.shown.lock().free;
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
