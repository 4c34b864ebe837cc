//! Takes snapshots of the state from time to time, and loads the last one at the start.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{task::JoinSet, time::timeout};
use tracing::{debug, info, warn};

use crate::{
    config::SnapshotConfig,
    error::chain,
    snapshot::{Error, Place, Snapshots},
    state::State,
};

/// How long the store may take at the start; after that, the whole log is read instead.
const LOAD_PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take to store one.
const SAVE_PATIENCE: Duration = Duration::from_secs(120);
/// The pause after a snapshot is at least this many times as long as the snapshot took.
const REST: u32 = 20;

/// Takes snapshots.
#[derive(Debug)]
pub(crate) struct Snapshotter {
    snapshots: Arc<Snapshots>,
    every: u64,
    pause: Duration,
    /// The sequence of the last snapshot that was stored.
    last: u64,
    not_before: Instant,
    saving: JoinSet<(u64, Duration, Result<usize, String>)>,
    failing: bool,
}

impl Snapshotter {
    /// Takes snapshots as configured, the first one after this sequence.
    pub(crate) fn new(snapshots: Snapshots, config: &SnapshotConfig, last: u64, now: Instant) -> Self {
        Self {
            snapshots: Arc::new(snapshots),
            every: config.every,
            pause: config.pause,
            last,
            not_before: now,
            saving: JoinSet::new(),
            failing: false,
        }
    }

    /// Starts to save this state, if that is due. It is the fold of the log up to this place, without events that were `skipped` because
    /// they could not be read.
    pub(crate) fn save_if_due(&mut self, state: &State, place: &Place, skipped: bool, now: Instant) {
        while let Some(done) = self.saving.try_join_next() {
            if let Ok((sequence, took, outcome)) = done {
                self.not_before = now + self.pause.max(took.saturating_mul(REST));
                self.note(sequence, took, outcome);
            }
        }
        if self.saving.is_empty() && now >= self.not_before && place.sequence.saturating_sub(self.last) >= self.every {
            let (snapshots, saved, place) = (Arc::clone(&self.snapshots), state.saved(), place.clone());
            self.saving.spawn(async move {
                let begin = Instant::now();
                let outcome = match timeout(SAVE_PATIENCE, snapshots.save(&saved, &place, skipped)).await {
                    Ok(outcome) => outcome.map_err(|error| chain(&error)),
                    Err(_) => Err("the store does not answer".to_owned()),
                };
                (place.sequence, begin.elapsed(), outcome)
            });
        }
    }

    fn note(&mut self, sequence: u64, took: Duration, outcome: Result<usize, String>) {
        match outcome {
            Ok(bytes) => {
                debug!("saved a snapshot of {bytes} bytes at sequence {sequence}, in {took:?}");
                self.last = sequence;
                self.failing = false;
            }
            Err(error) if !std::mem::replace(&mut self.failing, true) => {
                warn!("cannot save a snapshot ({error}); trying again; a watcher that starts before then reads more of the log");
            }
            Err(error) => debug!("cannot save a snapshot yet: {error}"),
        }
    }

    /// Waits for the snapshot under way.
    pub(crate) async fn finish(&mut self, grace: Duration) {
        let all = async { while self.saving.join_next().await.is_some() {} };
        let _in_time = timeout(grace, all).await;
        self.saving.shutdown().await;
    }
}

/// The state of the last snapshot, its sequence, and whether events before that were skipped as unreadable. Without a usable snapshot,
/// an empty state.
pub(crate) async fn start(snapshots: &Snapshots) -> (State, u64, bool) {
    let loaded = timeout(LOAD_PATIENCE, snapshots.load()).await;
    match loaded {
        Ok(Ok(loaded)) => {
            let (bytes, sequence, at) = (loaded.bytes, loaded.sequence, loaded.at);
            info!("starting from a snapshot of {bytes} bytes, taken at {at:.0} of the log up to sequence {sequence}");
            return (loaded.state, sequence, loaded.skipped);
        }
        Ok(Err(Error::None | Error::NoStore(_))) => info!("there is no snapshot yet; reading the whole log"),
        Ok(Err(error)) => warn!("the last snapshot is not used: {}; reading the whole log", chain(&error)),
        Err(_) => warn!("the last snapshot is not used: the store does not answer; reading the whole log"),
    }
    (State::new(Instant::now()), 0, false)
}
