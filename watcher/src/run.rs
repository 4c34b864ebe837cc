//! Starts the tasks of a watcher, and stops them together.

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
    snapshot::Snapshots,
    snapshotter::{self, Snapshotter},
    state::State,
    unattended,
    watch::{Incoming, Start, Watcher},
};

/// The pause between two requests for the log's length.
const PAUSE: Duration = Duration::from_millis(500);

/// Runs a watcher until it is stopped. It waits out every outage of the broker.
///
/// # Errors
/// Only if an operator must change something; see [`Error`].
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), Error> {
    let Some(bus) = connect::connect(&config.nats, "watcher", config.replicas, &stop).await? else {
        return Ok(());
    };
    info!("watching; a worker that is silent for {:.1} s is lost", config.lapse.as_secs_f32());
    let Some(start) = stop.run_until_cancelled(Box::pin(start(&bus, &config))).await else {
        return Ok(());
    };
    let (feed, feeds) = mpsc::channel(4);
    let (stored, canaries) = mpsc::channel(16);
    let (news, connection_news) = mpsc::channel(1_024);
    let (queues, served) = watch::channel(BTreeSet::<Queue>::new());
    let low_latency = Arc::new(AtomicBool::new(false));
    let beat_now = Arc::new(Notify::new());
    let mut services = JoinSet::new();
    services.spawn(feed::events(bus.clone(), start.sequence, Arc::clone(&low_latency), feed.clone()));
    services.spawn(feed::beats(bus.clone(), feed));
    services.spawn(canary::beat(
        bus.clone(),
        SessionId::new(),
        config.nats_system.is_some(),
        Arc::clone(&beat_now),
        stored,
    ));
    services.spawn(unattended::watch(bus.clone(), served));
    let gauge = Arc::clone(&start.gauge);
    services.spawn(async move { gauge.keep().await });
    match &config.nats_system {
        Some(urls) => {
            services.spawn(advisory::listen(bus.clone(), urls.clone(), news));
        }
        None => info!(
            "no credentials of the broker's system account (--nats-system): a dead runner is noticed when its heartbeats stop, \
             so its jobs run elsewhere within 5 s, not within 1 s"
        ),
    }
    let mut watcher = Watcher::new(&bus, &config, beat_now, low_latency, start);
    let incoming = Incoming {
        feeds,
        canaries,
        connection_news,
    };
    tokio::select! {
        () = watcher.watch(incoming, &queues, &stop) => {}
        // Only the listener for connections ends on its own. If another task panics, the watcher must not run on without its input:
        // it ends, and its supervisor starts another.
        Some(Err(ended)) = services.join_next() => if let Ok(panic) = ended.try_into_panic() { std::panic::resume_unwind(panic) },
    }
    services.shutdown().await;
    watcher.finish().await;
    info!("stopped watching");
    Ok(())
}

/// Loads the last snapshot, and asks for the log's length.
async fn start(bus: &Bus, config: &Config) -> Start {
    let (state, sequence, skipped, snapshotter) = match &config.snapshots {
        Some(wanted) => {
            let snapshots = Snapshots::new(bus, &config.nats, wanted.store.clone());
            let (state, sequence, skipped) = snapshotter::start(&snapshots).await;
            let snapshotter = Snapshotter::new(snapshots, wanted, sequence, Instant::now());
            (state, sequence, skipped, Some(snapshotter))
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
    Start {
        state,
        sequence,
        skipped,
        last,
        snapshotter,
        gauge: Gauge::new(bus.js.clone()),
    }
}
