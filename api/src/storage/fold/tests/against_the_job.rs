//! What is kept of a job decides the same as the whole job would.

use bus::{
    job::{Expired, Released, Rescheduled, Returned, Started},
    spec::{
        ExecutorKind,
        policy::{Clock, Start},
    },
};
use proptest::prelude::*;

use super::*;

/// Which event, whose word it is (above 4: whose it must be), of which attempt (above 3: the one that it must be), and a choice of its own.
type Step = (u8, u8, u32, bool);

/// Who may say an event of this kind: the first worker, the API, the watcher, nobody by name.
fn right(kind: u8) -> u8 {
    match kind {
        1..=6 => 0,
        8 | 9 => 2,
        10 | 13 => 3,
        _ => 4,
    }
}

fn event(step: Step, job: Option<&Job>, sessions: &[SessionId; 2]) -> (JobEvent, Option<Actor>) {
    let (kind, who, attempt, choice) = step;
    let who = if who > 4 { right(kind) } else { who };
    let current = match job.map(|job| &job.phase) {
        Some(Phase::Queued { next } | Phase::Retrying { next, .. }) => *next,
        Some(Phase::Claimed { attempt } | Phase::Running { attempt }) => *attempt,
        _ => Attempt::FIRST,
    };
    let attempt = if attempt > 3 { current } else { Attempt(attempt) };
    let session = sessions[usize::from(who % 2)];
    let worker = ["a", "b"][usize::from(who % 2)].parse().expect("a name");
    let publisher = match who {
        0 | 1 => Some(Actor::Worker(["a", "b"][usize::from(who)].parse().expect("a name"))),
        2 => Some(Actor::Api),
        3 => Some(Actor::Watcher),
        _ => None,
    };
    let start = choice.then(|| Start {
        delay_ms: Some(1),
        ..Start::default()
    });
    let spec = JobSpec { start, ..spec() };
    let cause = LossCause::WorkerLost { worker: default_token() };
    let event = match kind {
        0 => JobEvent::Submitted(Box::new(Submitted { spec })),
        1 | 2 => JobEvent::Claimed(Claimed { attempt, worker, session }),
        3 => JobEvent::Started(Started {
            attempt,
            session,
            executor: ExecutorKind::Process,
            environment: None,
        }),
        4 | 5 => JobEvent::Finished(Box::new(Finished {
            attempt,
            session,
            outcome: Outcome::Succeeded,
            manifest: None,
            usage: Usage::default(),
            retry_after_ms: choice.then_some(5),
        })),
        6 => JobEvent::Returned(Returned {
            attempt,
            session,
            interrupted: choice,
        }),
        7 => JobEvent::Rescheduled(Box::new(Rescheduled {
            attempt,
            cause,
            spec,
            failures: 0,
            deadline: None,
        })),
        8 => JobEvent::CancelRequested(CancelRequested { reason: None }),
        9 => JobEvent::Cancelled(Cancelled { reason: None }),
        10 => JobEvent::Died(Died { attempt, cause }),
        11 | 12 => JobEvent::Released(Box::new(Released {
            attempt,
            spec,
            failures: 0,
            deadline: None,
        })),
        13 => JobEvent::Expired(Expired {
            clock: Clock::Queue,
            limit_ms: 1,
        }),
        _ => JobEvent::Requeued(Box::new(Requeued {
            attempt,
            spec,
            reason: None,
        })),
    };
    (event, publisher)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn it_has_ended_and_is_claimed_when_the_whole_job_says_so(
        steps in prop::collection::vec((0..15_u8, 0..20_u8, 1..20_u32, any::<bool>()), 1..30)
    ) {
        let (id, sessions) = (JobId::new(), [SessionId::new(), SessionId::new()]);
        let (mut fold, mut job) = (Fold::default(), None::<Job>);
        let first = (0, 4, 1, false);
        for (sequence, step) in (1..).zip(std::iter::once(first).chain(steps)) {
            let (event, publisher) = event(step, job.as_ref(), &sessions);
            let recorded = Recorded {
                namespace: default_token(),
                job: id,
                publisher,
                sequence,
                envelope: Envelope::new(Actor::Api, event),
            };
            let payload = recorded.envelope.to_json();
            fold.job(&recorded, &payload, 7);
            job = match job {
                Some(job) => Job::evolve(Some(job), &recorded),
                None => Job::from_ready(&recorded).or_else(|| Job::evolve(None, &recorded)),
            };
            let live = fold.live.get(&id);
            let stands = job.as_ref().and_then(Standing::of);
            prop_assert_eq!(live.map(|live| &live.standing), stands.as_ref());
            let claimed = job.as_ref().is_some_and(|job| matches!(job.phase, Phase::Claimed { .. } | Phase::Running { .. }));
            prop_assert_eq!(live.is_some_and(|live| live.claimed.is_some()), claimed);
            job = job.filter(|job| !matches!(job.phase, Phase::Ended(_)));
            fold = read_back(&fold);
        }
    }
}
