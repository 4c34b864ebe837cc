//! Whether a session wants new work, and until when what runs in it may go on.

use std::time::{Duration, Instant};

use bus::{
    log::room::{Addition, Fill},
    worker::Cordoned,
};
use chrono::Utc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::session::ending::Ending;

/// What a session is told from outside the log.
pub(crate) struct Told {
    /// To end, once its attempts have had their time.
    pub(crate) stop: CancellationToken,
    /// To restart.
    pub(crate) restart: CancellationToken,
    /// That it was not heard for too long.
    pub(crate) unheard: CancellationToken,
    /// How much time attempts have.
    pub(crate) drain: Duration,
    /// How full the log is.
    pub(crate) fill: watch::Receiver<Fill>,
}

/// What an operator and the one who started the runner said.
#[derive(Debug, Default)]
pub(crate) struct Mode {
    /// No new work is wanted here.
    cordon: Option<Cordoned>,
    /// When the session ends at the latest, because the runner was told to stop.
    closing: Option<Instant>,
    /// The log has room only for what ends jobs.
    log_is_full: bool,
}

impl Mode {
    /// Whether work is to be asked for.
    #[must_use]
    pub(crate) const fn wants_work(&self) -> bool {
        self.cordon.is_none() && self.closing.is_none() && !self.log_is_full
    }

    /// Whether the session is ending.
    #[must_use]
    pub(crate) const fn closes(&self) -> bool {
        self.closing.is_some()
    }

    /// No new work from now on; the session ends when what runs has, or its time is over.
    pub(crate) fn close(&mut self, drain: Duration, running: usize) {
        self.closing = Some(Instant::now() + drain);
        if running > 0 {
            info!(
                "taking no new work; {running} running jobs have {:.0} s to end by themselves",
                drain.as_secs_f32()
            );
        }
    }

    /// Takes in how full the log is.
    pub(crate) const fn filled(&mut self, fill: Fill) {
        self.log_is_full = !fill.has_room(Addition::Attempts);
    }

    /// Takes in an operator's word.
    pub(crate) fn cordoned(&mut self, cordon: Option<Cordoned>) {
        match (&self.cordon, &cordon) {
            (Some(_), None) => info!("the worker is uncordoned: taking work again"),
            (before, Some(now)) if before.as_ref() != Some(now) => {
                let reason = now.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
                info!("the worker is cordoned{reason}: taking no new work");
            }
            (_, _) => {}
        }
        self.cordon = cordon;
    }

    /// When a drain ends what still runs.
    #[must_use]
    pub(crate) fn drained_at(&self, idle: bool) -> Option<Instant> {
        let deadline = self.cordon.as_ref().filter(|cordon| cordon.drain && !idle)?.deadline?;
        Some(Instant::now() + (deadline - Utc::now()).to_std().unwrap_or_default())
    }

    /// Whether the time of the session, or of what runs in it, is over.
    #[must_use]
    pub(crate) fn over(&self, idle: bool) -> Option<Ending> {
        if self.closing.is_some_and(|until| until <= Instant::now() || idle) {
            return Some(Ending::Stopped);
        }
        self.drained_at(idle)
            .is_some_and(|at| at <= Instant::now())
            .then_some(Ending::Drained)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn drain(ms: i64) -> Option<Cordoned> {
        Some(Cordoned {
            drain: true,
            deadline: Some(Utc::now() + TimeDelta::milliseconds(ms)),
            reason: None,
        })
    }

    #[test]
    fn a_drain_ends_what_runs_at_its_deadline_and_a_worker_that_is_idle_goes_on() {
        let mut mode = Mode::default();
        assert!(mode.wants_work() && mode.over(false).is_none());
        mode.cordoned(drain(60_000));
        assert!(!mode.wants_work() && mode.over(false).is_none() && mode.drained_at(false).is_some());
        mode.cordoned(drain(-1));
        assert_eq!((mode.over(false), mode.over(true)), (Some(Ending::Drained), None));
        mode.cordoned(None);
        assert!(mode.wants_work() && mode.over(false).is_none());
    }

    #[test]
    fn no_work_is_wanted_while_the_log_has_room_only_for_ends() {
        let mut mode = Mode::default();
        mode.filled(Fill { used: 96, max: 100 });
        assert!(!mode.wants_work() && mode.over(false).is_none() && mode.over(true).is_none());
        mode.filled(Fill { used: 96, max: 1_000 });
        assert!(mode.wants_work());
    }

    #[test]
    fn a_runner_that_is_told_to_stop_ends_when_it_is_idle_or_its_time_is_over() {
        let mut mode = Mode::default();
        mode.close(Duration::from_secs(60), 1);
        assert_eq!((mode.over(false), mode.over(true)), (None, Some(Ending::Stopped)));
        mode.close(Duration::ZERO, 1);
        assert_eq!(mode.over(false), Some(Ending::Stopped));
    }
}
