//! What a watcher is made of, started and ended together.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use bus::{
    ids::{Queue, SessionId},
    log::{EVENTS, connect::Bus, room::Gauge},
};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::{
    advisory, canary,
    config::Config,
    connect,
    error::Error,
    feed,
    keeper::{self, Keeper},
    snapshot::Snapshots,
    state::State,
    watch::{Begin, Incoming, Watcher},
    watchdog,
};

/// Between two questions that the broker does not answer.
const PAUSE: Duration = Duration::from_millis(500);

/// Watches until it is stopped. Waits out every outage of the broker.
///
/// # Errors
/// Only where an operator must change something; see [`Error`].
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), Error> {
    let Some(bus) = connect::connect(&config.nats, "watcher", config.replicas, &stop).await? else {
        return Ok(());
    };
    info!("watching; a worker that is silent for {:.1} s is lost", config.lapse.as_secs_f32());
    let Some(begin) = stop.run_until_cancelled(Box::pin(begin(&bus, &config))).await else {
        return Ok(());
    };
    let (feed, feeds) = mpsc::channel(4);
    let (stored, canaries) = mpsc::channel(16);
    let (advice, advices) = mpsc::channel(1_024);
    let (queues, looked_after) = watch::channel(BTreeSet::<Queue>::new());
    let hurry = Arc::new(AtomicBool::new(false));
    let beat_now = Arc::new(Notify::new());
    let mut services = JoinSet::new();
    services.spawn(feed::events(bus.clone(), begin.sequence, Arc::clone(&hurry), feed.clone()));
    services.spawn(feed::beats(bus.clone(), feed));
    services.spawn(canary::beat(
        bus.clone(),
        SessionId::new(),
        config.nats_system.is_some(),
        Arc::clone(&beat_now),
        stored,
    ));
    services.spawn(watchdog::look(bus.clone(), looked_after));
    let gauge = Arc::clone(&begin.gauge);
    services.spawn(async move { gauge.keep().await });
    match &config.nats_system {
        Some(urls) => {
            services.spawn(advisory::listen(bus.clone(), urls.clone(), advice));
        }
        None => info!(
            "no credentials of the broker's system account (--nats-system): a dead runner is noticed when its heartbeats lapse, \
             so its jobs run elsewhere within 5 s, not within 1 s"
        ),
    }
    let mut watcher = Watcher::new(&bus, &config, beat_now, hurry, begin);
    let incoming = Incoming { feeds, canaries, advices };
    tokio::select! {
        () = watcher.watch(incoming, &queues, &stop) => {}
        // None of them but the listener for advice ends by itself. Deaf on one ear, the watcher would be worse than none: whoever
        // started it starts another.
        Some(Err(ended)) = services.join_next() => if let Ok(panic) = ended.try_into_panic() { std::panic::resume_unwind(panic) },
    }
    services.shutdown().await;
    watcher.finish().await;
    info!("stopped watching");
    Ok(())
}

/// What is known without the log, and how long that is by now.
async fn begin(bus: &Bus, config: &Config) -> Begin {
    let (state, sequence, skipped, keeper) = match &config.snapshots {
        Some(wanted) => {
            let snapshots = Snapshots::new(bus, &config.nats, wanted.store.clone());
            let (state, sequence, skipped) = keeper::begin(&snapshots).await;
            let keeper = Keeper::new(snapshots, wanted, sequence, Instant::now());
            (state, sequence, skipped, Some(keeper))
        }
        None => (State::new(Instant::now()), 0, false, None),
    };
    let last = loop {
        match bus.js.get_stream(EVENTS).await {
            Ok(stream) => break stream.cached_info().state.last_sequence,
            Err(error) => debug!("cannot ask for the log's length yet: {error}"),
        }
        tokio::time::sleep(PAUSE).await;
    };
    Begin {
        state,
        sequence,
        skipped,
        last,
        keeper,
        gauge: Gauge::new(bus.js.clone()),
    }
}
