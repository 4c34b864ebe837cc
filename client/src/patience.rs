//! How long an interrupted transfer is retried.

use std::{sync::atomic::Ordering, time::Duration};

use model::Kind;
use rand::Rng as _;
use reqwest::StatusCode;
use tokio::time::{Instant, sleep};

use super::{Client, Error};

/// For how long it is tried without a byte more: a restart of the API, or a laptop that changes its network, takes less.
const PATIENCE: Duration = Duration::from_secs(60);
/// The shortest and the longest pause between two tries.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(4));
/// How often what had come over may be lost: a file that is always lost again would be sent without end.
const FALLS: u32 = 5;

/// What is left of it, for one file.
#[derive(Debug)]
pub(super) struct Patience {
    /// Since when nothing has come over.
    since: Option<Instant>,
    pause: Duration,
    /// How many bytes have come over, and how often it was fewer than before.
    reached: u64,
    falls: u32,
}

impl Patience {
    /// For a file of which so many bytes are there.
    pub(super) const fn from(reached: u64) -> Self {
        Self {
            since: None,
            pause: PAUSE.0,
            reached,
            falls: 0,
        }
    }

    /// Waits until it may be tried again, and says what is wrong if that takes a while.
    pub(super) async fn pause(&mut self, client: &Client, why: &impl std::fmt::Display) {
        // Of many files at once, one says it.
        if self.pause > PAUSE.0 && !client.in_trouble.swap(true, Ordering::Relaxed) {
            let why = why.to_string();
            let stop = if why.ends_with(['.', '?']) { "" } else { "." };
            client.notice(&format!("{why}{stop} Retrying."));
        }
        // Many clients, and each of their files, are in trouble at once.
        let jitter = rand::rng().random_range(0.5..1.0);
        sleep(self.pause.mul_f32(jitter)).await;
        self.pause = (self.pause * 2).min(PAUSE.1);
    }

    /// So many bytes have come over by now.
    pub(super) fn reached(&mut self, bytes: u64) {
        if bytes > self.reached {
            (self.since, self.pause) = (None, PAUSE.0);
        } else if bytes < self.reached {
            self.falls += 1;
        }
        self.reached = bytes;
    }

    /// Whether another try may help.
    pub(super) fn holds(&mut self) -> bool {
        let since = self.since.get_or_insert_with(Instant::now);
        since.elapsed() < PATIENCE && self.falls <= FALLS
    }
}

impl Client {
    /// A transfer went well; the next trouble is told again.
    pub(super) fn is_well(&self) {
        self.in_trouble.store(false, Ordering::Relaxed);
    }
}

impl Error {
    /// Whether a transfer that ended so may be gone on with: nobody answers, or a part of the grid is away.
    pub(super) fn breaks_off(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } => true,
            Self::Problem(problem) => problem.handled_as() == Kind::Unavailable,
            Self::NotRgrid { status, .. } => matches!(
                *status,
                StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
            ),
            Self::Answer { .. } | Self::TooLong { .. } | Self::Setup(_) => false,
        }
    }

    /// Whether the API says that something does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Problem(problem) if problem.handled_as() == Kind::NotFound)
    }

    /// Whether what had arrived is not there any more, or does not fit.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Problem(problem) if problem.handled_as() == Kind::Conflict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_lasts_for_as_long_as_bytes_come_over() {
        let mut patience = Patience::from(10);
        // Between two breaks of a good line lie hours.
        for reached in 11..20 {
            sleep(PATIENCE * 60).await;
            patience.reached(reached);
            assert!(patience.holds());
            sleep(PATIENCE / 2).await;
            // A try that fails at once does not end it, nor shorten what the next one has.
            patience.reached(reached);
            assert!(patience.holds());
        }
        sleep(PATIENCE).await;
        patience.reached(19);
        assert!(!patience.holds());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_lost_again_and_again_ends_it() {
        let mut patience = Patience::from(0);
        for _ in 0..FALLS {
            patience.reached(100);
            assert!(patience.holds());
            patience.reached(0);
            assert!(patience.holds(), "an API may restart");
        }
        patience.reached(100);
        patience.reached(0);
        assert!(!patience.holds());
    }
}
