//! Whether a session asks for work, and until when its attempts may run.

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

/// What the runner asks of a session.
pub(crate) struct RunnerSignals {
    /// To stop, once its attempts have had time to end.
    pub(crate) stop: CancellationToken,
    /// To restart.
    pub(crate) restart: CancellationToken,
    /// That no heartbeat was acknowledged for too long.
    pub(crate) unacknowledged: CancellationToken,
    /// How much time attempts have.
    pub(crate) drain: Duration,
    /// How full the log is.
    pub(crate) fill: watch::Receiver<Fill>,
}

/// What an operator, the runner and the log allow the session to do.
#[derive(Debug, Default)]
pub(crate) struct Mode {
    /// The worker is cordoned.
    cordon: Option<Cordoned>,
    /// When the session ends at the latest, because the runner was asked to stop.
    stopping_until: Option<Instant>,
    /// The log has room only for what ends jobs.
    log_is_full: bool,
}

impl Mode {
    /// Whether the session asks for work.
    #[must_use]
    pub(crate) const fn wants_work(&self) -> bool {
        self.cordon.is_none() && self.stopping_until.is_none() && !self.log_is_full
    }

    /// Whether the session is stopping.
    #[must_use]
    pub(crate) const fn is_stopping(&self) -> bool {
        self.stopping_until.is_some()
    }

    /// Stops asking for work; the session ends when its attempts have ended, or when their time is over.
    pub(crate) fn stop(&mut self, drain: Duration, running: usize) {
        self.stopping_until = Some(Instant::now() + drain);
        if running > 0 {
            info!(
                "taking no new work; {running} running jobs have {:.0} s to end",
                drain.as_secs_f32()
            );
        }
    }

    /// Sets how full the log is.
    pub(crate) const fn set_fill(&mut self, fill: Fill) {
        self.log_is_full = !fill.has_room(Addition::Attempts);
    }

    /// Sets the worker's cordon.
    pub(crate) fn set_cordon(&mut self, cordon: Option<Cordoned>) {
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

    /// When a drain ends the attempts that still run.
    #[must_use]
    pub(crate) fn drain_deadline(&self, idle: bool) -> Option<Instant> {
        let deadline = self.cordon.as_ref().filter(|cordon| cordon.drain && !idle)?.deadline?;
        Some(Instant::now() + (deadline - Utc::now()).to_std().unwrap_or_default())
    }

    /// How the session ends, if it is to end now.
    #[must_use]
    pub(crate) fn ending(&self, idle: bool) -> Option<Ending> {
        if self.stopping_until.is_some_and(|until| until <= Instant::now() || idle) {
            return Some(Ending::Stopped);
        }
        self.drain_deadline(idle)
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
    fn a_drain_ends_attempts_at_its_deadline_and_an_idle_worker_continues() {
        let mut mode = Mode::default();
        assert!(mode.wants_work() && mode.ending(false).is_none());
        mode.set_cordon(drain(60_000));
        assert!(!mode.wants_work() && mode.ending(false).is_none() && mode.drain_deadline(false).is_some());
        mode.set_cordon(drain(-1));
        assert_eq!((mode.ending(false), mode.ending(true)), (Some(Ending::Drained), None));
        mode.set_cordon(None);
        assert!(mode.wants_work() && mode.ending(false).is_none());
    }

    #[test]
    fn a_session_asks_for_no_work_while_the_log_has_room_only_for_the_ends_of_jobs() {
        let mut mode = Mode::default();
        mode.set_fill(Fill { used: 96, max: 100 });
        assert!(!mode.wants_work() && mode.ending(false).is_none() && mode.ending(true).is_none());
        mode.set_fill(Fill { used: 96, max: 1_000 });
        assert!(mode.wants_work());
    }

    #[test]
    fn a_stopping_session_ends_when_it_is_idle_or_its_time_is_over() {
        let mut mode = Mode::default();
        mode.stop(Duration::from_secs(60), 1);
        assert_eq!((mode.ending(false), mode.ending(true)), (None, Some(Ending::Stopped)));
        mode.stop(Duration::ZERO, 1);
        assert_eq!(mode.ending(false), Some(Ending::Stopped));
    }
}
