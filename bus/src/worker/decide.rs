//! The state of a worker, and what an operator may do with it.

use chrono::{DateTime, Utc};

use super::{Cordoned, Registered, Uncordoned, WorkerEvent};
use crate::ids::SessionId;

/// The state of a worker: the fold of its events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Worker {
    /// The current session; `None` if there is none.
    pub session: Option<SessionId>,
    /// Whether and how an operator has cordoned the worker.
    pub cordon: Option<Cordoned>,
}

/// A command from an operator, or from the worker's own runner after a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Take no new jobs. A worker that drains continues to drain.
    Cordon {
        /// The reason; `None`: keep the previous reason.
        reason: Option<String>,
    },
    /// Take no new jobs, and give up the jobs that the worker has.
    Drain {
        /// When commands that still run are interrupted; `None`: keep the previous deadline.
        deadline: Option<DateTime<Utc>>,
        /// The reason; `None`: keep the previous reason.
        reason: Option<String>,
    },
    /// Take jobs again.
    Uncordon,
    /// Its runner, which has restarted, registers the session that it left.
    Resume(Box<Registered>),
}

/// Why `decide` rejected a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The worker does not exist.
    #[error("there is no such worker")]
    Absent,
    /// The worker is in that state.
    #[error("the worker is already in that state")]
    Unchanged,
    /// The session was given up, or another one was registered.
    #[error("the session is over")]
    SessionOver,
}

/// Decides which event a command leads to.
///
/// # Errors
/// A [`Rejection`] if the worker does not exist, or if the command would change nothing.
pub fn decide(worker: Option<&Worker>, command: &Command) -> Result<WorkerEvent, Rejection> {
    let worker = worker.ok_or(Rejection::Absent)?;
    let before = worker.cordon.clone().unwrap_or_default();
    let after = match command {
        Command::Cordon { reason } => Some(Cordoned {
            reason: reason.clone().or(before.reason),
            ..before
        }),
        Command::Drain { deadline, reason } => Some(Cordoned {
            drain: true,
            deadline: deadline.or(before.deadline),
            reason: reason.clone().or(before.reason),
        }),
        Command::Uncordon => None,
        Command::Resume(registered) if worker.session == Some(registered.session) => {
            return Ok(WorkerEvent::Registered((**registered).clone()));
        }
        Command::Resume(_) => return Err(Rejection::SessionOver),
    };
    if after == worker.cordon {
        return Err(Rejection::Unchanged);
    }
    Ok(after.map_or_else(|| WorkerEvent::Uncordoned(Uncordoned {}), WorkerEvent::Cordoned))
}

impl Worker {
    /// Folds one event into the worker's state.
    #[must_use]
    pub fn evolve(worker: Option<Self>, event: &WorkerEvent) -> Self {
        let mut worker = worker.unwrap_or_default();
        match event {
            WorkerEvent::Registered(registered) => worker.session = Some(registered.session),
            WorkerEvent::Lost(lost) => worker.over(lost.session),
            WorkerEvent::Left(left) => worker.over(left.session),
            WorkerEvent::Cordoned(cordoned) => worker.cordon = Some(cordoned.clone()),
            WorkerEvent::Uncordoned(_) => worker.cordon = None,
            WorkerEvent::Restarting(_) | WorkerEvent::Equipped(_) => {}
        }
        worker
    }

    /// Folds all events, oldest first; `None` if there are none.
    pub fn replay<'a>(events: impl IntoIterator<Item = &'a WorkerEvent>) -> Option<Self> {
        events.into_iter().fold(None, |worker, event| Some(Self::evolve(worker, event)))
    }

    fn over(&mut self, session: SessionId) {
        self.session = self.session.filter(|open| *open != session);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::worker::{Left, Lost};

    fn cordon(reason: &str) -> Command {
        Command::Cordon {
            reason: Some(reason.to_owned()),
        }
    }

    /// A sequence of commands, each with whether it changes anything, and the worker's state after it.
    #[test]
    fn an_operators_command_changes_the_worker_or_is_rejected() {
        let at = Some(DateTime::UNIX_EPOCH);
        let drain = |deadline, reason: Option<&str>| Command::Drain {
            deadline,
            reason: reason.map(str::to_owned),
        };
        let cordoned = |drain, deadline, reason: &str| {
            Some(Cordoned {
                drain,
                deadline,
                reason: Some(reason.to_owned()),
            })
        };
        let steps = [
            (Command::Uncordon, false, None),
            (cordon("disk"), true, cordoned(false, None, "disk")),
            (cordon("disk"), false, cordoned(false, None, "disk")),
            (Command::Cordon { reason: None }, false, cordoned(false, None, "disk")),
            (drain(at, None), true, cordoned(true, at, "disk")),
            (drain(None, Some("move")), true, cordoned(true, at, "move")),
            (cordon("disk"), true, cordoned(true, at, "disk")),
            (Command::Uncordon, true, None),
        ];
        let mut worker = Some(Worker::default());
        for (command, changes, after) in steps {
            match decide(worker.as_ref(), &command) {
                Ok(event) => {
                    assert!(changes, "{command:?}");
                    worker = Some(Worker::evolve(worker, &event));
                }
                Err(rejection) => assert_eq!((rejection, changes), (Rejection::Unchanged, false), "{command:?}"),
            }
            assert_eq!(worker.as_ref().and_then(|worker| worker.cordon.clone()), after, "{command:?}");
        }
        assert_eq!(decide(None, &cordon("disk")), Err(Rejection::Absent));
    }

    #[test]
    fn a_restarted_runner_resumes_its_session_unless_that_is_over() {
        let ours = Registered {
            session: SessionId::new(),
            cpu_milli: 1_000,
            memory_bytes: 0,
            queues: Vec::new(),
            executors: Vec::new(),
            labels: BTreeMap::new(),
            versions: BTreeMap::new(),
            host: String::new(),
            pid: 1,
            self_fence_ms: None,
        };
        let other = Registered {
            session: SessionId::new(),
            ..ours.clone()
        };
        let resume = Command::Resume(Box::new(ours.clone()));
        let registered = |by: &Registered| WorkerEvent::Registered(by.clone());
        let lost = WorkerEvent::Lost(Lost {
            session: ours.session,
            last_beat: None,
        });
        assert_eq!(decide(None, &resume), Err(Rejection::Absent));
        let open = Worker::replay([&registered(&ours)]);
        assert_eq!(decide(open.as_ref(), &resume), Ok(registered(&ours)));
        for over in [lost, registered(&other)] {
            let worker = Worker::evolve(open.clone(), &over);
            assert_eq!(decide(Some(&worker), &resume), Err(Rejection::SessionOver));
        }
    }

    #[test]
    fn a_session_ends_only_by_its_own_events() {
        let (ours, other) = (SessionId::new(), SessionId::new());
        let lost = |session| WorkerEvent::Lost(Lost { session, last_beat: None });
        let open = Some(Worker {
            session: Some(ours),
            cordon: None,
        });
        assert_eq!(Worker::evolve(open.clone(), &lost(other)).session, Some(ours));
        assert_eq!(Worker::evolve(open.clone(), &lost(ours)).session, None);
        assert_eq!(Worker::evolve(open, &WorkerEvent::Left(Left { session: ours })).session, None);
    }
}
