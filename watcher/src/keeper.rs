//! When a snapshot is taken, and what came of it.

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

/// How long the store may take at the start; then the log is read instead.
const LOAD_PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take to store one.
const SAVE_PATIENCE: Duration = Duration::from_secs(120);
/// A snapshot that took long is not taken again before so many times as long.
const REST: u32 = 20;

/// Takes snapshots.
#[derive(Debug)]
pub(crate) struct Keeper {
    snapshots: Arc<Snapshots>,
    every: u64,
    pause: Duration,
    /// Up to where the last one goes that was stored.
    kept: u64,
    not_before: Instant,
    saving: JoinSet<(u64, Duration, Result<usize, String>)>,
    failing: bool,
}

impl Keeper {
    /// Takes them as it is told to, after one that goes up to a sequence.
    pub(crate) fn new(snapshots: Snapshots, config: &SnapshotConfig, kept: u64, now: Instant) -> Self {
        Self {
            snapshots: Arc::new(snapshots),
            every: config.every,
            pause: config.pause,
            kept,
            not_before: now,
            saving: JoinSet::new(),
            failing: false,
        }
    }

    /// Begins to keep this state, the fold of the log up to this place but for what was `skipped` as unreadable, if it is time for that.
    pub(crate) fn consider(&mut self, state: &State, place: &Place, skipped: bool, now: Instant) {
        while let Some(done) = self.saving.try_join_next() {
            if let Ok((sequence, took, kept)) = done {
                self.not_before = now + self.pause.max(took.saturating_mul(REST));
                self.note(sequence, took, kept);
            }
        }
        if self.saving.is_empty() && now >= self.not_before && place.sequence.saturating_sub(self.kept) >= self.every {
            let (snapshots, saved, place) = (Arc::clone(&self.snapshots), state.saved(), place.clone());
            self.saving.spawn(async move {
                let begin = Instant::now();
                let kept = match timeout(SAVE_PATIENCE, snapshots.save(&saved, &place, skipped)).await {
                    Ok(kept) => kept.map_err(|error| chain(&error)),
                    Err(_) => Err("the store does not answer".to_owned()),
                };
                (place.sequence, begin.elapsed(), kept)
            });
        }
    }

    fn note(&mut self, sequence: u64, took: Duration, kept: Result<usize, String>) {
        match kept {
            Ok(bytes) => {
                debug!("kept a snapshot of {bytes} bytes at sequence {sequence}, in {took:?}");
                self.kept = sequence;
                self.failing = false;
            }
            Err(error) if !std::mem::replace(&mut self.failing, true) => {
                warn!("cannot keep a snapshot ({error}); it is tried again, and a watcher that starts before reads more of the log");
            }
            Err(error) => debug!("cannot keep a snapshot yet: {error}"),
        }
    }

    /// Lets what is under way end.
    pub(crate) async fn finish(&mut self, grace: Duration) {
        let all = async { while self.saving.join_next().await.is_some() {} };
        let _in_time = timeout(grace, all).await;
        self.saving.shutdown().await;
    }
}

/// The state that the last snapshot holds, the sequence up to which it goes, and whether something before that was skipped as
/// unreadable; where there is none that can be used, one that knows nothing.
pub(crate) async fn begin(snapshots: &Snapshots) -> (State, u64, bool) {
    let loaded = timeout(LOAD_PATIENCE, snapshots.load()).await;
    match loaded {
        Ok(Ok(loaded)) => {
            let (bytes, sequence, at) = (loaded.bytes, loaded.sequence, loaded.at);
            info!("goes on from a snapshot of {bytes} bytes, taken at {at:.0} of the log up to sequence {sequence}");
            return (loaded.state, sequence, loaded.skipped);
        }
        Ok(Err(Error::None | Error::NoStore(_))) => info!("there is no snapshot yet; reading the whole log"),
        Ok(Err(error)) => warn!("the last snapshot is not used: {}; reading the whole log", chain(&error)),
        Err(_) => warn!("the last snapshot is not used: the store does not answer; reading the whole log"),
    }
    (State::new(Instant::now()), 0, false)
}
