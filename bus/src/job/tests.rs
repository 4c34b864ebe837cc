mod arbitrary;
mod claims;
mod history;
mod interleaved;
mod policies;
mod publishers;

use super::{AttemptEnd, CancelRequested, Command, End, Job, JobEvent, LossCause, Outcome, Phase, Rejection, State, decide};
use crate::{
    envelope::Actor,
    ids::Attempt,
    spec::{
        ExecutorKind,
        policy::{Clock, MAX_LOSSES},
    },
};
use history::{History, Worker};

#[test]
fn a_job_goes_from_submitted_to_succeeded() {
    let mut history = History::submitted();
    let worker = Worker::new("w");
    let mut states = vec![history.state()];
    for command in [worker.claim(1), worker.start(1), worker.finish(1, Outcome::Succeeded)] {
        history.apply(&worker.actor(), command).expect("the way of every job");
        states.push(history.state());
    }
    assert_eq!(states, [State::Queued, State::Claimed, State::Running, State::Succeeded]);
    let job = history.job();
    assert_eq!(job.finished().map(|finished| &finished.outcome), Some(&Outcome::Succeeded));
    assert!(job.ended_at.is_some() && job.live_attempt().is_none());
}

#[test]
fn an_attempt_may_finish_before_its_started_event() {
    let mut history = History::submitted();
    let worker = Worker::new("w");
    history.apply(&worker.actor(), worker.claim(1)).expect("queued");
    let error = Outcome::Error {
        message: "no such image".to_owned(),
        not_found: false,
    };
    history.apply(&worker.actor(), worker.finish(1, error)).expect("claimed");
    assert_eq!(history.state(), State::Failed);
}

#[test]
fn each_outcome_has_its_state_and_exit_code() {
    let error = |not_found| Outcome::Error {
        message: String::new(),
        not_found,
    };
    let outcomes = [
        (Outcome::Succeeded, State::Succeeded, 0),
        (Outcome::Failed { exit_code: 3 }, State::Failed, 3),
        (Outcome::Signalled { signal: 11 }, State::Failed, 139),
        (
            Outcome::TimedOut {
                limit_ms: 5,
                clock: Clock::Attempt,
            },
            State::TimedOut,
            124,
        ),
        (Outcome::OutOfMemory { limit_bytes: None }, State::OutOfMemory, 137),
        (Outcome::Cancelled, State::Cancelled, 130),
        (error(false), State::Failed, 126),
        (error(true), State::Failed, 127),
    ];
    for (outcome, state, exit_code) in outcomes {
        assert_eq!((outcome.state(), outcome.exit_code()), (state, exit_code), "{outcome:?}");
        assert!(state.is_end());
    }
    for state in State::ALL {
        assert_eq!(state.as_str().parse(), Ok(state));
    }
}

#[test]
fn the_same_submission_is_distinguished_from_another_job_with_the_same_key() {
    let history = History::submitted();
    let job = history.job();
    let again = |spec| decide(Some(&job), Command::Submit { spec: Box::new(spec) });
    assert_eq!(again(job.spec.clone()), Err(Rejection::Exists));
    let mut other = job.spec.clone();
    other.command.push("--verbose".to_owned());
    assert_eq!(again(other), Err(Rejection::KeyConflict));
}

#[test]
fn only_a_submission_creates_a_job() {
    let worker = Worker::new("w");
    for command in [
        worker.claim(1),
        worker.start(1),
        Command::Cancel { reason: None },
        worker.give_up(1),
    ] {
        assert_eq!(decide(None, command), Err(Rejection::Absent));
    }
}

/// Rows: the job's phase. Columns: claim, start, finish, return, give up (all of attempt 1, by its own worker), cancel.
#[test]
fn decisions_by_phase_and_command() {
    let stale = Rejection::Stale { attempt: Attempt(1) };
    let worker = Worker::new("w");
    let finish = || worker.finish(1, Outcome::Succeeded);
    type Row = (&'static str, Vec<Command>, [Result<&'static str, Rejection>; 6]);
    let table: [Row; 7] = [
        (
            "queued",
            vec![],
            [
                Ok("job.claimed.v1"),
                Err(stale.clone()),
                Err(stale.clone()),
                Err(stale.clone()),
                Err(stale.clone()),
                Ok("job.cancelled.v1"),
            ],
        ),
        (
            "claimed",
            vec![worker.claim(1)],
            [
                Err(Rejection::NotQueued),
                Ok("job.started.v1"),
                Ok("job.finished.v1"),
                Ok("job.returned.v1"),
                Ok("job.rescheduled.v1"),
                Ok("job.cancel_requested.v1"),
            ],
        ),
        (
            "running",
            vec![worker.claim(1), worker.start(1)],
            [
                Err(Rejection::NotQueued),
                Err(Rejection::AlreadyStarted),
                Ok("job.finished.v1"),
                Err(Rejection::AlreadyStarted),
                Ok("job.rescheduled.v1"),
                Ok("job.cancel_requested.v1"),
            ],
        ),
        (
            "being cancelled",
            vec![worker.claim(1), Command::Cancel { reason: None }],
            [
                Err(Rejection::NotQueued),
                Ok("job.started.v1"),
                Ok("job.finished.v1"),
                // Only the worker that returns the job knows that it is to be cancelled.
                Ok("job.finished.v1"),
                Ok("job.cancelled.v1"),
                Err(Rejection::AlreadyCancelling),
            ],
        ),
        (
            "given back",
            vec![worker.claim(1), worker.give_back(1)],
            [
                Err(Rejection::NotQueued),
                Err(stale.clone()),
                Err(stale.clone()),
                Err(stale.clone()),
                Err(stale.clone()),
                Ok("job.cancelled.v1"),
            ],
        ),
        (
            "queued again",
            vec![worker.claim(1), worker.give_up(1)],
            [
                Err(Rejection::NotQueued),
                Err(stale.clone()),
                Err(stale.clone()),
                Err(stale.clone()),
                Err(stale.clone()),
                Ok("job.cancelled.v1"),
            ],
        ),
        (
            "ended",
            vec![worker.claim(1), finish()],
            [
                Err(Rejection::Ended),
                Err(stale.clone()),
                Err(stale.clone()),
                Err(stale.clone()),
                Err(stale),
                Err(Rejection::Ended),
            ],
        ),
    ];
    for (name, before, decisions) in table {
        let mut history = History::submitted();
        for command in before {
            history.apply_as_permitted_actor(&worker, command).expect(name);
        }
        let commands = [
            worker.claim(1),
            worker.start(1),
            finish(),
            worker.give_back(1),
            worker.give_up(1),
            Command::Cancel { reason: None },
        ];
        for (command, decision) in commands.into_iter().zip(decisions) {
            use crate::envelope::Event as _;
            let text = format!("{name}: {command:?}");
            let decided = decide(Some(&history.job()), command);
            assert_eq!(decided.as_ref().map(JobEvent::kind).map_err(Clone::clone), decision, "{text}");
        }
    }
}

#[test]
fn a_returned_job_runs_again_without_a_failure_or_a_loss() {
    let mut history = History::submitted();
    let (full, idle) = (Worker::new("full"), Worker::new("idle"));
    for attempt in 1..=2 * MAX_LOSSES {
        history.apply(&full.actor(), full.claim(attempt)).expect("queued");
        history.apply(&full.actor(), full.give_back(attempt)).expect("claimed");
        let due = history.job().due().expect("it is to be made ready");
        assert_eq!(due.command, Command::Release);
        assert_eq!(
            history.job().phase,
            Phase::Retrying {
                next: Attempt(attempt + 1),
                due: None
            }
        );
        assert_eq!(due.at, history.job().submitted_at, "at once, whatever its worker's clock shows");
        history.apply(&Actor::Watcher, Command::Release).expect("given back");
    }
    let job = history.job();
    assert_eq!((job.failures, job.losses), (0, 0));
    assert!(
        job.attempts
            .iter()
            .all(|attempt| attempt.end == Some(AttemptEnd::Returned) && attempt.started_at.is_none())
    );
    history.apply(&idle.actor(), idle.claim(2 * MAX_LOSSES + 1)).expect("queued");
    let finish = idle.finish(2 * MAX_LOSSES + 1, Outcome::Succeeded);
    history.apply(&idle.actor(), finish).expect("live");
    assert_eq!(history.state(), State::Succeeded);
}

#[test]
fn an_interrupted_job_runs_again_without_a_failure_or_a_loss() {
    let mut history = History::submitted();
    let worker = Worker::new("w");
    for attempt in 1..=2 * MAX_LOSSES {
        history.apply(&worker.actor(), worker.claim(attempt)).expect("queued");
        if attempt % 2 == 0 {
            history.apply(&worker.actor(), worker.start(attempt)).expect("claimed");
            let unrun = history.apply(&worker.actor(), worker.give_back(attempt));
            assert_eq!(unrun, Err(Rejection::AlreadyStarted), "what runs is given back only as interrupted");
        }
        history.apply(&worker.actor(), worker.interrupt(attempt)).expect("live");
        assert_eq!(history.state(), State::Retrying);
        let late = history.apply(&worker.actor(), worker.finish(attempt, Outcome::Succeeded));
        assert_eq!(late, Err(Rejection::Stale { attempt: Attempt(attempt) }));
        history.apply(&Actor::Watcher, Command::Release).expect("given back");
    }
    let job = history.job();
    assert_eq!((job.failures, job.losses), (0, 0));
    assert!(job.attempts.iter().all(|attempt| attempt.end == Some(AttemptEnd::Interrupted)));
}

#[test]
fn an_interrupted_job_that_a_user_cancels_is_cancelled() {
    let mut history = History::submitted();
    let worker = Worker::new("w");
    history.apply(&worker.actor(), worker.claim(1)).expect("queued");
    history.apply(&worker.actor(), worker.start(1)).expect("claimed");
    history.apply(&Actor::Api, Command::Cancel { reason: None }).expect("it runs");
    history.apply(&worker.actor(), worker.interrupt(1)).expect("live");
    assert_eq!(history.state(), State::Cancelled);
}

#[test]
fn an_attempt_is_fenced_by_its_number() {
    let mut history = History::submitted();
    let (slow, quick) = (Worker::new("slow"), Worker::new("quick"));
    history.apply(&slow.actor(), slow.claim(1)).expect("queued");
    history.apply(&Actor::Watcher, slow.give_up(1)).expect("live");
    history.apply(&quick.actor(), quick.claim(2)).expect("queued again");
    for attempt in [1, 2] {
        let late = history.apply(&slow.actor(), slow.finish(attempt, Outcome::Succeeded));
        assert_eq!(
            late,
            Err(Rejection::Stale { attempt: Attempt(attempt) }),
            "neither its own nor the other's"
        );
    }
    history.apply(&quick.actor(), quick.finish(2, Outcome::Succeeded)).expect("live");
    assert_eq!(history.state(), State::Succeeded);
}

/// One session may have two attempts at a job, one after the other. Only the number distinguishes them.
#[test]
fn a_late_event_of_an_earlier_attempt_has_no_effect_even_from_the_same_session() {
    let mut history = History::submitted();
    let worker = Worker::new("w");
    history.apply(&worker.actor(), worker.claim(1)).expect("queued");
    let finished = decide(Some(&history.job()), worker.finish(1, Outcome::Succeeded)).expect("live");
    let rescheduled = decide(Some(&history.job()), worker.give_up(1)).expect("live");
    history.apply(&Actor::Watcher, worker.give_up(1)).expect("live");
    history.apply(&worker.actor(), worker.claim(2)).expect("queued again");
    let before = history.job();
    history.push(Some(worker.actor()), finished);
    history.push(None, rescheduled);
    let after = history.job();
    let sequence = after.sequence;
    assert_eq!(after, Job { sequence, ..before });
}

#[test]
fn a_waiting_job_that_is_cancelled_records_the_request() {
    let mut history = History::submitted();
    let reason = Some("a mistake".to_owned());
    history
        .apply(&Actor::Api, Command::Cancel { reason: reason.clone() })
        .expect("queued");
    let job = history.job();
    assert_eq!(
        (job.state(), job.cancel_requested.map(|(_, reason)| reason)),
        (State::Cancelled, Some(reason))
    );
}

#[test]
fn a_restarted_worker_does_not_continue_its_old_attempt() {
    let mut history = History::submitted();
    let (before, after) = (Worker::new("w"), Worker::new("w"));
    history.apply(&before.actor(), before.claim(1)).expect("queued");
    let stale = Err(Rejection::Stale { attempt: Attempt(1) });
    assert_eq!(history.apply(&after.actor(), after.start(1)), stale);
    assert_eq!(history.apply(&after.actor(), after.finish(1, Outcome::Succeeded)), stale);
}

#[test]
fn a_job_whose_workers_are_all_lost_is_dead() {
    let mut history = History::submitted();
    let worker = Worker::new("w");
    for attempt in 1..=MAX_LOSSES {
        assert_eq!(history.job().phase, Phase::Queued { next: Attempt(attempt) });
        history.apply(&worker.actor(), worker.claim(attempt)).expect("queued");
        history.apply(&Actor::Watcher, worker.give_up(attempt)).expect("live");
    }
    let cause = LossCause::WorkerLost { worker: worker.id };
    assert_eq!(history.job().phase, Phase::Ended(End::Dead(cause)));
}

#[test]
fn only_the_first_request_to_cancel_is_kept() {
    let mut history = History::submitted();
    let worker = Worker::new("w");
    history.apply(&worker.actor(), worker.claim(1)).expect("queued");
    for reason in ["first", "second"] {
        let reason = Some(reason.to_owned());
        history.push(Some(Actor::Api), JobEvent::CancelRequested(CancelRequested { reason }));
    }
    let reason = history.job().cancel_requested.map(|(_, reason)| reason);
    assert_eq!(reason, Some(Some("first".to_owned())));
}

#[test]
fn a_started_attempt_names_its_environment() {
    let mut history = History::submitted();
    let worker = Worker::new("w");
    history.apply(&worker.actor(), worker.claim(1)).expect("queued");
    history.apply(&worker.actor(), worker.start(1)).expect("claimed");
    let job = history.job();
    let attempt = job.live_attempt().expect("running");
    assert_eq!(attempt.executor, Some(ExecutorKind::Process));
    assert!(
        attempt
            .started_at
            .is_some_and(|at| at > attempt.claimed_at && attempt.claimed_at > job.submitted_at)
    );
    assert!(Job::replay(&[]).is_none());
}
