//! Conditions, retries, time limits, requeues: decisions and the resulting states.

use chrono::{DateTime, TimeDelta, Utc};

use super::history::{History, Worker, spec};
use crate::{
    envelope::Actor,
    ids::{Attempt, JobId},
    job::{Command, DependencyState, Due, End, Job, JobEvent, LossCause, Outcome, Phase, Rejection, State, decide},
    spec::{
        JobSpec,
        policy::{Clock, Dependency, DependsOn, Retry, Start},
    },
};

const FAILED: Outcome = Outcome::Failed { exit_code: 3 };

fn delayed() -> JobSpec {
    JobSpec {
        start: Some(Start {
            delay_ms: Some(60_000),
            ..Start::default()
        }),
        ..spec()
    }
}

fn retrying(max: u32) -> JobSpec {
    JobSpec {
        retry: Some(Retry { max, ..Retry::default() }),
        ..spec()
    }
}

/// A worker claims the job, and its attempt ends with this outcome.
fn ended(history: &mut History, worker: &Worker, outcome: Outcome) {
    let Phase::Queued { next } = history.job().phase else {
        panic!("not queued: {:?}", history.job().phase)
    };
    history.apply(&worker.actor(), worker.claim(next.0)).expect("queued");
    history.apply(&worker.actor(), worker.finish(next.0, outcome)).expect("claimed");
}

fn release(history: &mut History) {
    history.apply(&Actor::Watcher, Command::Release).expect("it waits");
}

fn requeue() -> Command {
    Command::Requeue {
        reason: Some("once more".to_owned()),
    }
}

fn due(job: &Job) -> Option<(DateTime<Utc>, Command)> {
    job.due().map(|Due { at, command }| (at, command))
}

#[test]
fn a_held_job_cannot_be_claimed_until_it_is_released() {
    let mut history = History::of(delayed());
    let (job, worker) = (history.job(), Worker::new("w"));
    let until = job.submitted_at + TimeDelta::minutes(1);
    assert_eq!((job.state(), job.phase.clone()), (State::Held, Phase::Held { until: Some(until) }));
    assert_eq!(due(&job), Some((until, Command::Release)));
    assert_eq!(decide(Some(&job), worker.claim(1)), Err(Rejection::NotQueued));
    assert_eq!(decide(Some(&job), worker.give_up(1)), Err(Rejection::Stale { attempt: Attempt(1) }));
    release(&mut history);
    assert_eq!(history.job().phase, Phase::Queued { next: Attempt::FIRST });
    assert_eq!(decide(Some(&history.job()), Command::Release), Err(Rejection::NotWaiting));
    ended(&mut history, &worker, Outcome::Succeeded);
    assert_eq!(history.state(), State::Succeeded);
    assert_eq!(decide(Some(&history.job()), Command::Release), Err(Rejection::Ended));
}

#[test]
fn a_job_that_waits_for_others_is_not_released_by_the_clock() {
    let after = vec![Dependency {
        job: JobId::new(),
        on: DependsOn::Succeeded,
    }];
    let start = Start {
        delay_ms: Some(1),
        after: after.clone(),
        ..Start::default()
    };
    let mut history = History::of(JobSpec {
        start: Some(start),
        total_timeout_ms: Some(10),
        ..spec()
    });
    let job = history.job();
    assert_eq!(job.dependencies(), after);
    // But it may exceed its total time limit.
    assert_eq!(due(&job).map(|(_, command)| command), Some(Command::Expire { clock: Clock::Total }));
    release(&mut history);
    assert_eq!(history.job().dependencies(), []);
}

#[test]
fn a_dependency_is_met_pending_or_never_met() {
    let (worker, mut other) = (Worker::new("w"), History::submitted());
    let on = |on| Dependency { job: other.id, on };
    let (well, anyhow) = (on(DependsOn::Succeeded), on(DependsOn::Ended));
    let never = |standing| matches!(standing, DependencyState::Never(reason) if reason.contains(&well.job.to_string()));
    assert!(never(well.state(None)));
    assert_eq!(
        [&well, &anyhow].map(|one| one.state(Some(&other.job()))),
        [DependencyState::Pending, DependencyState::Pending]
    );
    let mut good = other.clone();
    ended(&mut good, &worker, Outcome::Succeeded);
    assert_eq!(
        [&well, &anyhow].map(|one| one.state(Some(&good.job()))),
        [DependencyState::Met, DependencyState::Met]
    );
    ended(&mut other, &worker, FAILED);
    assert!(never(well.state(Some(&other.job()))));
    assert_eq!(anyhow.state(Some(&other.job())), DependencyState::Met);
    // A failed attempt that is retried has not ended the job.
    let mut again = History::of(retrying(1));
    ended(&mut again, &worker, FAILED);
    let anyhow = Dependency {
        job: again.id,
        on: DependsOn::Ended,
    };
    assert_eq!(anyhow.state(Some(&again.job())), DependencyState::Pending);
}

#[test]
fn a_job_is_retried_at_most_max_times_and_each_event_has_its_pause() {
    let (mut history, worker) = (History::of(retrying(2)), Worker::new("w"));
    for failures in 1..=2 {
        ended(&mut history, &worker, FAILED);
        let (job, last) = (history.job(), history.events.last().expect("an event").clone());
        let JobEvent::Finished(finished) = &last.envelope.event else {
            panic!("{last:?}")
        };
        let pause = TimeDelta::milliseconds(i64::try_from(finished.retry_after_ms.expect("again")).expect("short"));
        let (next, due_at) = (Attempt(failures + 1), last.envelope.time + pause);
        assert_eq!(
            (job.state(), job.phase.clone()),
            (State::Retrying, Phase::Retrying { next, due: Some(due_at) })
        );
        assert_eq!((job.failures, due(&job)), (failures, Some((due_at, Command::Release))));
        assert!(job.finished().is_none(), "what it left behind does not count");
        assert_eq!(decide(Some(&job), worker.claim(1)), Err(Rejection::NotQueued));
        release(&mut history);
        // A worker learns from the event what it needs to decide on the next failure.
        let Some(JobEvent::Released(released)) = history.events.last().map(|last| &last.envelope.event) else {
            panic!("not released")
        };
        assert_eq!((released.attempt, released.failures), (next, failures));
        let as_met = Job::from_ready(history.events.last().expect("an event")).expect("a ready event");
        assert_eq!((as_met.phase, as_met.failures), (Phase::Queued { next }, failures));
    }
    ended(&mut history, &worker, FAILED);
    let job = history.job();
    assert_eq!((job.state(), job.attempts.len()), (State::Failed, 3));
    assert!(job.finished().is_some() && job.due().is_none());
}

#[test]
fn some_outcomes_are_not_retried() {
    let only = Retry {
        max: 5,
        on: vec![75],
        ..Retry::default()
    };
    let worker = Worker::new("w");
    let state = |spec: JobSpec, outcome: Outcome| {
        let mut history = History::of(spec);
        ended(&mut history, &worker, outcome);
        history.state()
    };
    let on_75 = || JobSpec {
        retry: Some(only.clone()),
        ..spec()
    };
    assert_eq!(state(on_75(), FAILED), State::Failed);
    assert_eq!(state(on_75(), Outcome::Failed { exit_code: 75 }), State::Retrying);
    assert_eq!(state(spec(), FAILED), State::Failed);
    assert_eq!(state(retrying(5), Outcome::Succeeded), State::Succeeded);
    assert_eq!(state(retrying(5), Outcome::Cancelled), State::Cancelled);
    // A job that is to be cancelled is not retried.
    let mut history = History::of(retrying(5));
    history.apply(&worker.actor(), worker.claim(1)).expect("queued");
    history.apply(&Actor::Api, Command::Cancel { reason: None }).expect("claimed");
    history.apply(&worker.actor(), worker.finish(1, FAILED)).expect("live");
    assert_eq!(history.state(), State::Failed);
}

#[test]
fn losses_and_failures_are_counted_separately_and_orderly_losses_not_at_all() {
    let worker = Worker::new("w");
    let mut history = History::of(JobSpec {
        max_losses: Some(2),
        ..retrying(2)
    });
    let lost = |attempt: u32, orderly: bool| Command::GiveUp {
        attempt: Attempt(attempt),
        cause: LossCause::SessionEnded {
            worker: worker.id.clone(),
            orderly,
        },
    };
    for attempt in 1..=5 {
        history.apply(&worker.actor(), worker.claim(attempt)).expect("queued");
        history.apply(&Actor::Watcher, lost(attempt, true)).expect("live");
    }
    assert_eq!((history.job().losses, history.state()), (0, State::Queued));
    ended(&mut history, &worker, FAILED);
    release(&mut history);
    history.apply(&worker.actor(), worker.claim(7)).expect("queued");
    history.apply(&Actor::Watcher, lost(7, false)).expect("live");
    let job = history.job();
    assert_eq!((job.losses, job.failures, job.state()), (1, 1, State::Queued));
    // The next worker reads the number of failures from the ready event.
    let as_met = Job::from_ready(history.events.last().expect("an event")).expect("a ready event");
    assert_eq!(as_met.failures, 1);
    history.apply(&worker.actor(), worker.claim(8)).expect("queued");
    history.apply(&Actor::Watcher, lost(8, false)).expect("live");
    assert_eq!(history.state(), State::Dead);
}

#[test]
fn each_time_limit_ends_the_job_in_its_phase() {
    let limits = JobSpec {
        queue_timeout_ms: Some(1_000),
        total_timeout_ms: Some(5_000),
        ..retrying(3)
    };
    let (mut history, worker) = (History::of(limits), Worker::new("w"));
    let expire = |clock| Command::Expire { clock };
    let job = history.job();
    let (begun, total) = (job.submitted_at, job.submitted_at + TimeDelta::seconds(5));
    assert_eq!(job.deadline, Some(total));
    assert_eq!(due(&job), Some((begun + TimeDelta::seconds(1), expire(Clock::Queue))));
    let mut in_queue = history.clone();
    in_queue.apply(&Actor::Watcher, expire(Clock::Queue)).expect("queued");
    let end = End::Expired {
        clock: Clock::Queue,
        limit_ms: 1_000,
    };
    assert_eq!((in_queue.state(), in_queue.job().phase), (State::TimedOut, Phase::Ended(end)));
    assert_eq!(decide(Some(&in_queue.job()), worker.claim(1)), Err(Rejection::Ended));
    // While a worker has it, the worker minds the clocks.
    history.apply(&worker.actor(), worker.claim(1)).expect("queued");
    assert_eq!(history.job().due(), None);
    for clock in [Clock::Queue, Clock::Total] {
        assert_eq!(decide(Some(&history.job()), expire(clock)), Err(Rejection::NotWaiting));
    }
    // Pauses count towards the total time limit, but not towards the time in the queue.
    history.apply(&worker.actor(), worker.finish(1, FAILED)).expect("live");
    assert_eq!(decide(Some(&history.job()), expire(Clock::Queue)), Err(Rejection::NotWaiting));
    assert_eq!(history.job().deadline, Some(total));
    history.apply(&Actor::Watcher, expire(Clock::Total)).expect("it waits");
    let job = history.job();
    assert_eq!((job.state(), job.finished()), (State::TimedOut, None));
    assert_eq!(decide(Some(&job), expire(Clock::Total)), Err(Rejection::Ended));
    assert_eq!(
        decide(Some(&History::submitted().job()), expire(Clock::Total)),
        Err(Rejection::NotWaiting)
    );
}

#[test]
fn a_requeued_job_starts_again_after_its_earlier_attempts() {
    let worker = Worker::new("w");
    let mut history = History::of(JobSpec {
        max_losses: Some(1),
        total_timeout_ms: Some(5_000),
        ..retrying(1)
    });
    ended(&mut history, &worker, FAILED);
    release(&mut history);
    history.apply(&worker.actor(), worker.claim(2)).expect("queued");
    history.apply(&Actor::Watcher, worker.give_up(2)).expect("live");
    let before = history.job();
    assert_eq!((before.state(), before.failures, before.losses), (State::Dead, 1, 1));
    history.apply(&Actor::Api, requeue()).expect("dead");
    let job = history.job();
    assert_eq!(
        (job.phase.clone(), job.failures, job.losses),
        (Phase::Queued { next: Attempt(3) }, 0, 0)
    );
    assert_eq!((job.ended_at, job.attempts.len()), (None, 2));
    assert!(job.deadline > before.deadline, "its clocks begin anew");
    assert_eq!(decide(Some(&job), requeue()), Err(Rejection::NotDead));
    // The earlier attempts stay fenced.
    assert_eq!(
        decide(Some(&job), worker.finish(2, Outcome::Succeeded)),
        Err(Rejection::Stale { attempt: Attempt(2) })
    );
    ended(&mut history, &worker, FAILED);
    assert_eq!(history.state(), State::Retrying);
}

#[test]
fn only_dead_and_expired_jobs_can_be_requeued() {
    let worker = Worker::new("w");
    let mut expired = History::of(JobSpec {
        queue_timeout_ms: Some(1),
        ..spec()
    });
    assert_eq!(decide(None, requeue()), Err(Rejection::Absent));
    assert_eq!(decide(Some(&expired.job()), requeue()), Err(Rejection::NotDead));
    expired
        .apply(&Actor::Watcher, Command::Expire { clock: Clock::Queue })
        .expect("queued");
    expired.apply(&Actor::Api, requeue()).expect("expired");
    assert_eq!(expired.job().phase, Phase::Queued { next: Attempt::FIRST });
    for outcome in [Outcome::Succeeded, FAILED, Outcome::Cancelled] {
        let mut history = History::submitted();
        ended(&mut history, &worker, outcome);
        assert_eq!(decide(Some(&history.job()), requeue()), Err(Rejection::NotDead));
    }
}

#[test]
fn a_waiting_job_is_cancelled_at_once_and_only_once() {
    let worker = Worker::new("w");
    let mut paused = History::of(retrying(1));
    ended(&mut paused, &worker, FAILED);
    for mut history in [History::of(delayed()), History::submitted(), paused] {
        history.apply(&Actor::Api, Command::Cancel { reason: None }).expect("it waits");
        let job = history.job();
        assert_eq!((job.state(), job.due()), (State::Cancelled, None));
        assert_eq!(decide(Some(&job), Command::Cancel { reason: None }), Err(Rejection::Ended));
        assert_eq!(decide(Some(&job), Command::Release), Err(Rejection::Ended));
        assert_eq!(decide(Some(&job), requeue()), Err(Rejection::NotDead));
    }
}

#[test]
fn a_late_event_has_no_effect() {
    let (mut history, worker) = (History::of(delayed()), Worker::new("w"));
    let released = decide(Some(&history.job()), Command::Release).expect("held");
    release(&mut history);
    history.apply(&worker.actor(), worker.claim(1)).expect("queued");
    let before = history.job();
    history.push(None, released);
    let after = history.job();
    let sequence = after.sequence;
    assert_eq!(after, Job { sequence, ..before });
}
