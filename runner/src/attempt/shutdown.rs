//! The runner's own shutdown, and whether it is what ended a command.
//!
//! Where all processes of a machine get a SIGTERM at once (a service manager that signals a whole control group, Ray, a machine that shuts
//! down), a command may end some milliseconds before the runner receives its own signal. Such an end says nothing about the job: the
//! runner returns the job, and another worker runs it again.

use std::time::Duration;

use bus::job::Outcome;
use tokio_util::sync::CancellationToken;

use crate::{
    attempt::end::{AttemptError, CommandEnd},
    executor, packages,
};

/// How long the end of a command that a shutdown may have caused is delayed, to see whether a shutdown begins. Only such ends wait, and
/// their slot is free meanwhile.
const HOLD: Duration = Duration::from_millis(300);

/// The signals that a shutdown sends to all processes: SIGHUP, SIGINT, SIGKILL, SIGTERM.
const SIGNALS: [i32; 4] = [1, 2, 9, 15];

/// Whether the runner is ending.
#[derive(Debug, Clone)]
pub(crate) struct Shutdown {
    /// The runner was asked to stop.
    pub(crate) stop: CancellationToken,
    /// The runner was asked to restart.
    pub(crate) restart: CancellationToken,
}

impl Shutdown {
    /// Whether a shutdown ended a command that was not asked to end; waits a moment for a shutdown that begins just now.
    pub(crate) async fn ended(&self, ran: &Result<CommandEnd, AttemptError>) -> bool {
        if !may_have_ended(ran) {
            return false;
        }
        let begun = async {
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = self.restart.cancelled() => {}
            }
        };
        tokio::time::timeout(HOLD, begun).await.is_ok()
    }
}

/// Whether a shutdown may have ended a command: by one of its signals, which a shell reports as 128 plus its number, or because Docker or
/// the spawn helper ended first.
fn may_have_ended(ran: &Result<CommandEnd, AttemptError>) -> bool {
    match ran {
        Ok(done) => match done.outcome {
            Outcome::Signalled { signal } => SIGNALS.contains(&signal),
            Outcome::Failed { exit_code } => SIGNALS.contains(&(exit_code - 128)),
            Outcome::Succeeded | Outcome::TimedOut { .. } | Outcome::OutOfMemory { .. } | Outcome::Cancelled | Outcome::Error { .. } => {
                false
            }
        },
        Err(AttemptError::Executor(executor::Error::Broken(_))) => true,
        Err(AttemptError::Packages(error)) => matches!(
            error,
            packages::Error::Failed { .. } | packages::Error::Executor(executor::Error::Broken(_))
        ),
        Err(
            AttemptError::Workspace(_)
            | AttemptError::Stage(_)
            | AttemptError::Secrets(_)
            | AttemptError::Executor(executor::Error::NotFound(_) | executor::Error::Unrunnable(_))
            | AttemptError::Log(_)
            | AttemptError::Output(_)
            | AttemptError::Manifest(_),
        ) => false,
    }
}

#[cfg(test)]
mod tests {
    use bus::{job::Usage, spec::policy::Clock};

    use super::*;

    fn ran(outcome: Outcome) -> Result<CommandEnd, AttemptError> {
        Ok(CommandEnd {
            outcome,
            usage: Usage::default(),
        })
    }

    #[test]
    fn only_ends_that_a_shutdown_can_cause_count() {
        let (failed, signalled) = (|exit_code| Outcome::Failed { exit_code }, |signal| Outcome::Signalled { signal });
        let timed_out = Outcome::TimedOut {
            limit_ms: 1,
            clock: Clock::Attempt,
        };
        let cases = [
            (signalled(15), true),
            (signalled(9), true),
            (signalled(2), true),
            (signalled(1), true),
            (signalled(11), false),
            (failed(143), true),
            (failed(137), true),
            (failed(130), true),
            (failed(129), true),
            (failed(1), false),
            (failed(139), false),
            (Outcome::Succeeded, false),
            (Outcome::Cancelled, false),
            (Outcome::OutOfMemory { limit_bytes: None }, false),
            (timed_out, false),
        ];
        for (outcome, expected) in cases {
            assert_eq!(may_have_ended(&ran(outcome.clone())), expected, "{outcome:?}");
        }
        let executor = |error| Err(AttemptError::Executor(error));
        assert!(may_have_ended(&executor(executor::Error::Broken(
            "the daemon went away".to_owned()
        ))));
        assert!(!may_have_ended(&executor(executor::Error::Unrunnable(
            "no such program".to_owned()
        ))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_that_begins_a_moment_later_counts_and_other_ends_do_not_wait() {
        let shutdown = Shutdown {
            stop: CancellationToken::new(),
            restart: CancellationToken::new(),
        };
        let begun = tokio::time::Instant::now();
        assert!(!shutdown.ended(&ran(Outcome::Succeeded)).await);
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert!(!shutdown.ended(&ran(Outcome::Signalled { signal: 15 })).await);
        assert_eq!(begun.elapsed(), HOLD);
        let died = ran(Outcome::Signalled { signal: 15 });
        let (ended, ()) = tokio::join!(shutdown.ended(&died), async {
            tokio::time::sleep(HOLD / 2).await;
            shutdown.restart.cancel();
        });
        assert!(ended && shutdown.ended(&died).await);
    }
}
