//! The watcher's slim fold against the job's own: no live attempt may be missing from it, no matter which actor publishes which event.

use std::collections::BTreeSet;

use bus::{
    envelope::{Actor, Envelope},
    ids::{Attempt, JobId, SessionId, default_token},
    job::{Command as JobCommand, Job, JobEvent, LossCause, Outcome, Recorded, Usage, decide},
    log::read::{Fact, decode},
    spec::{ExecutorKind, JobSpec},
    subjects,
};
use proptest::{collection::vec, prelude::*};

use super::{TestWatcher, claimed, ended, given_up, registered, worker};
use crate::{
    observation::{self, Observation, WaitingJob},
    state::State,
};

const NAMES: [&str; 2] = ["a", "b"];

/// Who wants what of the job, with which session; and who says it in that one's place, if anybody.
type Step = (usize, u8, usize, Option<usize>);

fn spec() -> JobSpec {
    JobSpec::new(vec!["true".to_owned()])
}

fn command(who: usize, what: u8, session: SessionId, job: &Job) -> JobCommand {
    let attempt = job.attempts.last().map_or(Attempt::FIRST, |attempt| attempt.number);
    match what {
        0..3 => JobCommand::Claim {
            attempt: job.ready_attempt().unwrap_or(attempt),
            worker: worker(NAMES[who]),
            session,
        },
        3 => JobCommand::Start {
            attempt,
            session,
            executor: ExecutorKind::Process,
            environment: None,
        },
        4 => JobCommand::Finish {
            attempt,
            session,
            outcome: Outcome::Succeeded,
            manifest: None,
            usage: Usage::default(),
        },
        5 => JobCommand::Return {
            attempt,
            session,
            interrupted: attempt.0.is_multiple_of(2),
        },
        6 => JobCommand::Release,
        7 | 8 => JobCommand::GiveUp {
            attempt,
            cause: LossCause::Orphaned {
                worker: worker(NAMES[who]),
            },
        },
        _ => JobCommand::Cancel { reason: None },
    }
}

fn actor(who: usize) -> Actor {
    match who {
        0 | 1 => Actor::Worker(worker(NAMES[who])),
        2 => Actor::Watcher,
        _ => Actor::Api,
    }
}

fn natural(event: &JobEvent, who: usize) -> Actor {
    match event {
        JobEvent::Claimed(_) | JobEvent::Started(_) | JobEvent::Finished(_) | JobEvent::Returned(_) => actor(who),
        JobEvent::Died(_) => Actor::Watcher,
        _ => Actor::Api,
    }
}

/// Stores an event as appending does, and hands it to both folds as it comes back.
fn append(
    watcher: &mut TestWatcher,
    history: &mut Vec<Recorded>,
    id: JobId,
    publisher: Actor,
    event: JobEvent,
) -> Result<(), TestCaseError> {
    let namespace = default_token();
    let subject = match event {
        JobEvent::Submitted(_) | JobEvent::Rescheduled(_) | JobEvent::Released(_) => {
            subjects::job_ready(&namespace, id, &default_token(), spec().class())
        }
        _ => subjects::job_by(&namespace, id, &publisher),
    };
    let payload = Envelope::new(publisher, event).to_json();
    watcher.sequence += 1;
    let (sequence, now) = (watcher.sequence, watcher.at(0));
    let Ok(Some(Fact::Job(recorded))) = decode(&subject, sequence, &payload) else {
        return Err(TestCaseError::fail("it does not come back"));
    };
    history.push(*recorded);
    match observation::observe(&subject, &payload) {
        Ok(Some(seen)) => watcher.state.fold(sequence, &seen, now),
        Ok(None) => {}
        Err(error) => return Err(TestCaseError::fail(error.to_string())),
    }
    Ok(())
}

fn no_live_attempt_is_missed_in(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (mut watcher, id) = (TestWatcher::new(), JobId::new());
    let sessions = [SessionId::new(), SessionId::new()];
    for (name, session) in NAMES.iter().zip(sessions) {
        watcher.fold(0, &registered(name, session));
    }
    let mut history = Vec::new();
    let submit = decide(None, JobCommand::Submit { spec: Box::new(spec()) }).expect("new");
    append(&mut watcher, &mut history, id, Actor::Api, submit)?;
    for (who, what, session, as_whom) in steps {
        let job = Job::replay(&history).expect("submitted");
        if let Ok(event) = decide(Some(&job), command(who, what, sessions[session], &job)) {
            let publisher = as_whom.map_or_else(|| natural(&event, who), actor);
            append(&mut watcher, &mut history, id, publisher, event)?;
        }
    }
    let saved = watcher.state.saved();
    let text = serde_json::to_string(&saved).expect("JSON");
    watcher.state = State::restored(serde_json::from_str(&text).expect("it is read as it was written"), watcher.at(0));
    prop_assert_eq!(watcher.state.saved(), saved, "nothing is lost in a snapshot");
    let live = Job::replay(&history).and_then(|job| job.live_attempt().map(|live| live.number));
    for (name, session) in NAMES.iter().zip(sessions) {
        watcher.fold(1, &ended(name, session, true));
    }
    // Long enough for a session to lapse that was never registered.
    let planned = given_up(&watcher.plan(5_000)).into_iter().map(|(_, attempt, _)| attempt);
    let planned = planned.collect::<BTreeSet<_>>();
    if let Some(live) = live {
        prop_assert!(planned.contains(&live), "attempt {} is live, and not among {:?}", live, planned);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_live_attempt_is_missed(steps in vec((0..2_usize, 0..10_u8, 0..2_usize, prop::option::weighted(0.3, 0..4_usize)), 1..40)) {
        no_live_attempt_is_missed_in(steps)?;
    }
}

#[test]
fn an_attempt_is_held_until_the_log_says_that_it_was_given_back() {
    let (mut watcher, session, job) = (TestWatcher::new(), SessionId::new(), JobId::new());
    watcher.fold(0, &registered("w", session));
    watcher.fold(0, &claimed("w", session, job, 1));
    // It may be said of one whose command runs, and is no more than a reason to look then.
    watcher.fold(0, &Observation::Returned { job });
    watcher.fold(1, &ended("w", session, true));
    assert_eq!(given_up(&watcher.plan(2)).len(), 1);
    let again = WaitingJob {
        job,
        next: Some(Attempt(2)),
        due: None,
        after: Vec::new(),
        not_before: None,
    };
    watcher.fold(3, &Observation::Waits(Box::new(again)));
    assert_eq!(given_up(&watcher.plan(4)), []);
}

#[test]
fn what_is_read_of_each_event() {
    let mut read = BTreeSet::new();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../bus/tests/fixtures")).expect("fixtures") {
        let path = entry.expect("a file").path();
        let payload = std::fs::read(&path).expect("it can be read");
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let kind = name.split('-').next().unwrap_or_default();
        let id = JobId::new();
        let subject = match kind {
            "job.claimed.v1" | "job.started.v1" | "job.finished.v1" | "job.returned.v1" => {
                format!("rgrid.evt.default.job.{id}.by.w-desk-1")
            }
            "job.submitted.v1" if name.contains("delayed") || name.contains("policies") || name.contains("member") => {
                format!("rgrid.evt.default.job.{id}.by.api")
            }
            "job.submitted.v1" | "job.rescheduled.v1" | "job.released.v1" | "job.requeued.v1" => {
                format!("rgrid.evt.default.job.{id}.ready.default.normal-s")
            }
            kind if kind.starts_with("batch.") => format!("rgrid.evt.default.batch.{id}"),
            "runtimes.set.v1" => subjects::RUNTIMES.to_owned(),
            kind if kind.starts_with("image.") => "rgrid.evt.sys.image.lab/py:3".to_owned(),
            kind if kind.starts_with("job.") => format!("rgrid.evt.default.job.{id}.by.watcher"),
            _ => "rgrid.evt.sys.worker.desk-1".to_owned(),
        };
        let seen = observation::observe(&subject, &payload).unwrap_or_else(|error| panic!("{name}: {error}"));
        read.extend(seen.map(|_| kind.to_owned()));
    }
    let meant = [
        "batch.advanced.v1",
        "batch.cancelled.v1",
        "batch.sealed.v1",
        "batch.stopped.v1",
        "batch.submitted.v1",
        "job.cancelled.v1",
        "job.claimed.v1",
        "job.died.v1",
        "job.expired.v1",
        "job.finished.v1",
        "job.released.v1",
        "job.requeued.v1",
        "job.rescheduled.v1",
        "job.returned.v1",
        "job.submitted.v1",
        "worker.cordoned.v1",
        "worker.equipped.v1",
        "worker.left.v1",
        "worker.lost.v1",
        "worker.registered.v1",
        "worker.restarting.v1",
        "worker.uncordoned.v1",
    ];
    assert_eq!(
        read.into_iter().collect::<Vec<_>>(),
        meant,
        "every event is read, and these mean something"
    );
}
