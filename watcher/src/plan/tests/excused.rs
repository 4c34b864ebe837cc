//! Sessions whose silence is to be borne longer: they restart, or end their attempts themselves.

use std::time::Duration;

use bus::ids::{EventId, JobId, SessionId, default_token};
use chrono::{DateTime, TimeDelta, Utc};

use super::{TestWatcher, claimed, given_up, lost, registered, worker};
use crate::{connections::Connection, observation::Observation};

fn wall(ms: u64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::milliseconds(i64::try_from(ms).expect("short"))
}

fn watcher() -> (TestWatcher, SessionId, JobId) {
    let (mut watcher, session, job) = (TestWatcher::new(), SessionId::new(), JobId::new());
    let now = watcher.at(0);
    watcher.state.set_clock(now, wall(0));
    watcher.fold(0, &registered("w", session));
    watcher.fold(0, &claimed("w", session, job, 1));
    (watcher, session, job)
}

fn restarting(session: SessionId, until: u64) -> Observation {
    Observation::Restarting {
        worker: worker("w"),
        session,
        until: wall(until),
    }
}

fn disconnect(watcher: &mut TestWatcher, session: SessionId, ms: u64) {
    watcher.tick(ms, true);
    let connection = Connection {
        server: "a".to_owned(),
        client: 1,
    };
    let now = watcher.at(ms);
    watcher.state.disconnected(&(worker("w"), session), &connection, true, now);
}

#[test]
fn who_restarts_is_waited_for_until_the_time_that_it_named() {
    let (mut watcher, session, _) = watcher();
    watcher.fold(3_000, &restarting(session, 13_000));
    disconnect(&mut watcher, session, 3_100);
    for ms in [3_600, 8_000, 12_999] {
        assert_eq!(watcher.plan(ms), [], "{ms}");
    }
    assert_eq!(lost(&watcher.plan(13_000)), [session]);
}

#[test]
fn who_comes_back_from_a_restart_has_what_it_had() {
    let (mut watcher, session, job) = watcher();
    watcher.fold(3_000, &restarting(session, 13_000));
    watcher.fold(10_000, &registered("w", session));
    assert_eq!(watcher.plan(13_900), [], "it is heard from its return on");
    assert_eq!(lost(&watcher.plan(14_100)), [session], "the excuse ends");
    assert!(given_up(&watcher.plan(14_100)).is_empty());
    watcher.fold(14_200, &super::ended("w", session, true));
    assert_eq!(given_up(&watcher.plan(14_300)).first().map(|(lost, ..)| *lost), Some(job));
}

#[test]
fn another_session_instead_ends_the_one_that_restarts() {
    let (mut watcher, session, job) = watcher();
    watcher.fold(3_000, &restarting(session, 13_000));
    watcher.fold(4_000, &registered("w", SessionId::new()));
    assert_eq!(given_up(&watcher.plan(4_100)).first().map(|(lost, ..)| *lost), Some(job));
}

/// No session may be away permanently: the announced time is bounded.
#[test]
fn a_restart_may_take_an_hour_at_most() {
    let said = "2026-11-22T20:00:00Z".parse::<DateTime<Utc>>().expect("a time");
    let deadline = said + TimeDelta::days(3_650);
    let event = bus::worker::WorkerEvent::Restarting(bus::worker::Restarting {
        session: SessionId::new(),
        deadline,
    });
    let mut envelope = bus::envelope::Envelope::new(bus::envelope::Actor::Worker(worker("w")), event);
    envelope.time = said;
    let seen = crate::observation::observe("rgrid.evt.sys.worker.w", &envelope.to_json()).expect("it can be read");
    let Some(Observation::Restarting { until, .. }) = seen else {
        panic!("{seen:?}")
    };
    assert_eq!(until, said + TimeDelta::hours(1));
}

#[test]
fn who_fences_itself_has_the_time_for_it_and_the_quick_sign_does_not_count() {
    for (fence, lapse) in [(1_000, 4_000), (2_000, 4_000), (6_000, 8_000)] {
        let (mut watcher, session) = (TestWatcher::new(), SessionId::new());
        let registered = Observation::Registered {
            worker: worker("w"),
            session,
            queues: vec![default_token()],
            self_fence: Some(Duration::from_millis(fence)),
            event: EventId::new(),
        };
        watcher.fold(0, &registered);
        disconnect(&mut watcher, session, 3_000);
        assert_eq!(watcher.plan(lapse), [], "{fence}");
        assert_eq!(lost(&watcher.plan(lapse + 1)), [session], "{fence}");
    }
}

/// An operator's event of a worker is its last event, behind which the next one is appended.
#[test]
fn a_cordoned_worker_can_be_lost_too() {
    let (mut watcher, session, _) = watcher();
    let last = watcher.fold(1_000, &Observation::WorkerChanged { worker: worker("w") });
    let plan = watcher.plan(5_000);
    assert!(
        matches!(&plan[..], [super::Command::DeclareLost { after, .. }] if *after == last),
        "{plan:?} {session}"
    );
}

/// So is an event that cannot be read.
#[test]
fn a_worker_of_whom_something_unreadable_was_said_can_be_lost_too() {
    let (mut watcher, session, _) = watcher();
    let subject = bus::subjects::worker(&worker("w"));
    let said = crate::observation::unreadable(&subject).expect("it is of a worker");
    let last = watcher.fold(1_000, &said);
    let plan = watcher.plan(5_000);
    assert!(
        matches!(&plan[..], [super::Command::DeclareLost { after, .. }] if *after == last),
        "{plan:?} {session}"
    );
}
