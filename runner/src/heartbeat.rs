//! A worker's beats. The session's own loop sends them, and where it is late, a thread of its own does, over a connection of its own:
//! whatever a job has the loop do, nobody takes its worker for dead. But a loop that stands still for longer than [`STANDSTILL`] will
//! not come back, and its worker falls silent.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream::{self, message::PublishMessage};
use bus::{stream::connect, subjects, worker::Beat};
use chrono::{SubsecRound as _, Utc};
use tokio::{runtime::Builder, sync::oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    attempt::Context,
    config::Config,
    presence::{Free, Pulse},
};

/// How long the broker keeps a beat before it announces the worker's silence.
const BEAT_TTL: &str = "5s";
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
    free: Free,
    /// When the last one was acknowledged.
    pulse: Pulse,
    /// When the session's loop turned last.
    turned: Pulse,
}

impl Heart {
    /// Of a session that was just registered, which beats from now on.
    pub(crate) fn new(context: &Arc<Context>, config: &Config, free: Free, pulse: Pulse) -> Self {
        Self {
            context: Arc::clone(context),
            subject: subjects::beat(&config.worker),
            // A runner that ends its attempts when it is not heard must not do so for one beat that was lost.
            period: config.self_fence.map_or(config.heartbeat, |fence| config.heartbeat.min(fence / 4)),
            free,
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
            self.send(&self.context.js).await;
        }
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
                match connect::patiently(&nats, &name).await {
                    Ok(bus) => self.relieve(&bus.js).await,
                    Err(error) => warn!("no thread of its own beats for this worker: {}", crate::stage::chain(&error)),
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
        let (late, mut hung) = (self.period + self.period / 4, false);
        loop {
            tokio::time::sleep(late.saturating_sub(self.pulse.elapsed()).max(self.period / 8)).await;
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
            if connected && self.pulse.elapsed() >= late {
                debug!("the loop is late; beating for it");
                self.send(js).await;
            }
        }
    }

    /// Sends one beat, and waits for its acknowledgement a while: one that waits is worth less than the next one.
    async fn send(&self, js: &jetstream::Context) {
        let Ok(payload) = serde_json::to_vec(&self.now()) else { return };
        let message = PublishMessage::build().header("Nats-TTL", BEAT_TTL).payload(payload.into());
        let begun = Instant::now();
        let sent = async { js.send_publish(self.subject.clone(), message).await?.await };
        match tokio::time::timeout(self.period.max(ANSWER), sent).await {
            Ok(Ok(_)) => self.pulse.heard(begun),
            Ok(Err(error)) => debug!("a beat was not taken: {error}"),
            Err(_) => debug!("a beat was not acknowledged in time"),
        }
    }

    fn now(&self) -> Beat {
        let (last_claim, attempts) = self.context.attempts.snapshot();
        let room = *self.free.lock();
        Beat {
            session: self.context.session,
            time: Utc::now().trunc_subsecs(6),
            last_claim,
            cpu_milli_free: room.cpu_milli,
            memory_bytes_free: room.memory_bytes,
            load: load(),
            attempts,
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
