//! The runner's own shutdown, and whether it is what ended a command.
//!
//! Where everything on a machine gets a SIGTERM at once (a service manager that signals a whole control group, Ray, a machine that is
//! shut down), a command may die some milliseconds before the runner learns of its own signal. Such an end says nothing of the job:
//! it is handed back, and made again elsewhere.

use std::time::Duration;

use bus::job::Outcome;
use tokio_util::sync::CancellationToken;

use crate::{
    attempt::end::{Broken, Done},
    executor, packages,
};

/// How long the end of a command that a shutdown may have caused is held back, to see whether one begins. Only such ends wait, and
/// they take up no room meanwhile.
const HOLD: Duration = Duration::from_millis(300);

/// The signals that a shutdown sends to everybody: SIGHUP, SIGINT, SIGKILL, SIGTERM.
const SIGNALS: [i32; 4] = [1, 2, 9, 15];

/// Whether the runner is ending.
#[derive(Debug, Clone)]
pub(crate) struct Shutdown {
    /// It was told to stop.
    pub(crate) stop: CancellationToken,
    /// It was told to restart.
    pub(crate) restart: CancellationToken,
}

impl Shutdown {
    /// Whether a shutdown ended a command that nobody asked to end; waits a moment for one that begins just now.
    pub(crate) async fn ended(&self, ran: &Result<Done, Broken>) -> bool {
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

/// Whether a command's end looks like that of something that a shutdown took with it: by one of its signals, which a shell passes on
/// as 128 and its number, or because Docker or the spawn helper went first.
fn may_have_ended(ran: &Result<Done, Broken>) -> bool {
    match ran {
        Ok(done) => match done.outcome {
            Outcome::Signalled { signal } => SIGNALS.contains(&signal),
            Outcome::Failed { exit_code } => SIGNALS.contains(&(exit_code - 128)),
            Outcome::Succeeded | Outcome::TimedOut { .. } | Outcome::OutOfMemory { .. } | Outcome::Cancelled | Outcome::Error { .. } => {
                false
            }
        },
        Err(Broken::Executor(executor::Error::Broken(_))) => true,
        Err(Broken::Packages(error)) => matches!(
            error,
            packages::Error::Failed { .. } | packages::Error::Executor(executor::Error::Broken(_))
        ),
        Err(
            Broken::Place(_)
            | Broken::Stage(_)
            | Broken::Secrets(_)
            | Broken::Executor(executor::Error::NotFound(_) | executor::Error::Unrunnable(_))
            | Broken::Log(_)
            | Broken::Output(_)
            | Broken::Manifest(_),
        ) => false,
    }
}

#[cfg(test)]
mod tests {
    use bus::{job::Usage, spec::policy::Clock};

    use super::*;

    fn ran(outcome: Outcome) -> Result<Done, Broken> {
        Ok(Done {
            outcome,
            usage: Usage::default(),
        })
    }

    #[test]
    fn only_what_a_shutdown_can_do_to_a_command_is_taken_for_one() {
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
        let executor = |error| Err(Broken::Executor(error));
        assert!(may_have_ended(&executor(executor::Error::Broken(
            "the daemon went away".to_owned()
        ))));
        assert!(!may_have_ended(&executor(executor::Error::Unrunnable(
            "no such program".to_owned()
        ))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_that_begins_a_moment_later_counts_and_nothing_else_waits() {
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
