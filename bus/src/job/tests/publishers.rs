//! Permissions: an event in the log only has an effect if the publisher that its subject names may publish it.

use super::history::{History, Worker, publisher, spec};
use crate::{
    envelope::{Actor, Event as _},
    ids::Attempt,
    job::{
        CancelRequested, Cancelled, Claimed, Died, Expired, Finished, Job, JobEvent, LossCause, Outcome, Released, Requeued, Rescheduled,
        Returned, Started, Submitted, Usage,
    },
    spec::{
        ExecutorKind, JobSpec,
        policy::{Clock, Start},
    },
};

/// One event of each type, all valid after the history, if `worker` has the job.
fn every_event(worker: &Worker, attempt: Attempt) -> [JobEvent; 12] {
    let (session, cause) = (worker.session, LossCause::WorkerLost { worker: worker.id.clone() });
    let reason = None;
    [
        JobEvent::Submitted(Box::new(Submitted { spec: spec() })),
        JobEvent::Claimed(Claimed {
            attempt,
            worker: worker.id.clone(),
            session,
        }),
        JobEvent::Started(Started {
            attempt,
            session,
            executor: ExecutorKind::Process,
            environment: None,
        }),
        JobEvent::Finished(Box::new(Finished {
            attempt,
            session,
            outcome: Outcome::Succeeded,
            manifest: None,
            usage: Usage::default(),
            retry_after_ms: None,
        })),
        JobEvent::Returned(Returned {
            attempt,
            session,
            interrupted: false,
        }),
        JobEvent::Rescheduled(Box::new(Rescheduled {
            attempt,
            cause: cause.clone(),
            spec: spec(),
            failures: 0,
            deadline: None,
        })),
        JobEvent::Released(Box::new(Released {
            attempt,
            spec: spec(),
            failures: 0,
            deadline: None,
        })),
        JobEvent::Requeued(Box::new(Requeued {
            attempt: attempt.next(),
            spec: spec(),
            reason: None,
        })),
        JobEvent::Expired(Expired {
            clock: Clock::Queue,
            limit_ms: 5,
        }),
        JobEvent::CancelRequested(CancelRequested { reason: reason.clone() }),
        JobEvent::Cancelled(Cancelled { reason }),
        JobEvent::Died(Died { attempt, cause }),
    ]
}

/// The histories: none, queued, claimed, running, held, dead.
fn stages(worker: &Worker) -> [History; 6] {
    let queued = History::submitted();
    let none = History {
        id: queued.id,
        events: Vec::new(),
    };
    let mut claimed = queued.clone();
    claimed.apply(&worker.actor(), worker.claim(1)).expect("queued");
    let mut running = claimed.clone();
    running.apply(&worker.actor(), worker.start(1)).expect("claimed");
    let held = History::of(JobSpec {
        start: Some(Start::default()),
        ..spec()
    });
    let mut dead = History::of(JobSpec {
        max_losses: Some(1),
        ..spec()
    });
    dead.apply(&worker.actor(), worker.claim(1)).expect("queued");
    dead.apply(&Actor::Watcher, worker.give_up(1)).expect("live");
    [none, queued, claimed, running, held, dead]
}

fn effect(history: &History, publisher: Option<&Actor>, event: &JobEvent) -> bool {
    let before = Job::replay(&history.events);
    let mut history = history.clone();
    history.push(publisher.cloned(), event.clone());
    let after = Job::replay(&history.events);
    let sequence = after.as_ref().map_or(0, |job| job.sequence);
    after != before.map(|job| Job { sequence, ..job })
}

/// Each event has an effect after some history if its own publisher publishes it, and never if another one does.
#[test]
fn an_event_only_has_an_effect_from_its_permitted_publisher() {
    let (worker, other) = (Worker::new("w"), Worker::new("other"));
    let publishers = [
        None,
        Some(Actor::Api),
        Some(Actor::Watcher),
        Some(worker.actor()),
        Some(other.actor()),
    ];
    for event in every_event(&worker, Attempt::FIRST) {
        let with_effect = publishers
            .iter()
            .filter(|publisher| stages(&worker).iter().any(|history| effect(history, publisher.as_ref(), &event)))
            .cloned()
            .collect::<Vec<_>>();
        let may: Vec<Option<Actor>> = match event.kind() {
            "job.submitted.v1" | "job.rescheduled.v1" | "job.released.v1" | "job.requeued.v1" => vec![None],
            "job.claimed.v1" | "job.started.v1" | "job.finished.v1" | "job.returned.v1" => vec![Some(worker.actor())],
            "job.cancel_requested.v1" | "job.cancelled.v1" => vec![Some(Actor::Api), Some(Actor::Watcher)],
            "job.died.v1" | "job.expired.v1" => vec![Some(Actor::Watcher)],
            kind => panic!("who may say {kind}?"),
        };
        assert_eq!(with_effect, may, "{}", event.kind());
    }
}

/// A worker that publishes an event of another worker's attempt under its own name, with the right numbers.
#[test]
fn another_workers_event_about_an_attempt_has_no_effect() {
    let (worker, other) = (Worker::new("w"), Worker::new("other"));
    for history in stages(&worker) {
        for event in every_event(&worker, Attempt::FIRST) {
            let said_by_other = publisher(&other.actor(), &event).is_some();
            assert!(
                !said_by_other || !effect(&history, Some(&other.actor()), &event),
                "{}",
                event.kind()
            );
        }
    }
}

/// The right worker, but a session that does not have the attempt.
#[test]
fn another_sessions_event_about_an_attempt_has_no_effect() {
    let (worker, restarted) = (Worker::new("w"), Worker::new("w"));
    let [_, _, claimed, running, ..] = stages(&worker);
    for event in every_event(&restarted, Attempt::FIRST) {
        if matches!(
            event,
            JobEvent::Claimed(_) | JobEvent::Started(_) | JobEvent::Finished(_) | JobEvent::Returned(_)
        ) {
            assert!(!effect(&claimed, Some(&restarted.actor()), &event), "{}", event.kind());
            assert!(!effect(&running, Some(&restarted.actor()), &event), "{}", event.kind());
        }
    }
}
