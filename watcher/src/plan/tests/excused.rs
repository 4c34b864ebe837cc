//! Sessions whose silence is to be borne longer: they restart, or end their attempts themselves.

use std::time::Duration;

use bus::ids::{EventId, JobId, SessionId, default_token};
use chrono::{DateTime, TimeDelta, Utc};

use super::{Told, claimed, given_up, lost, registered, worker};
use crate::{connections::Connection, seen::Seen};

fn wall(ms: u64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::milliseconds(i64::try_from(ms).expect("short"))
}

fn told() -> (Told, SessionId, JobId) {
    let (mut told, session, job) = (Told::new(), SessionId::new(), JobId::new());
    let now = told.at(0);
    told.state.tell_time(now, wall(0));
    told.see(0, &registered("w", session));
    told.see(0, &claimed("w", session, job, 1));
    (told, session, job)
}

fn restarting(session: SessionId, until: u64) -> Seen {
    Seen::Restarting {
        worker: worker("w"),
        session,
        until: wall(until),
    }
}

fn disconnect(told: &mut Told, session: SessionId, ms: u64) {
    told.tick(ms, true);
    let connection = Connection {
        server: "a".to_owned(),
        client: 1,
    };
    let now = told.at(ms);
    told.state.disconnected(&(worker("w"), session), &connection, true, now);
}

#[test]
fn who_restarts_is_waited_for_until_the_time_that_it_named() {
    let (mut told, session, _) = told();
    told.see(3_000, &restarting(session, 13_000));
    disconnect(&mut told, session, 3_100);
    for ms in [3_600, 8_000, 12_999] {
        assert_eq!(told.plan(ms), [], "{ms}");
    }
    assert_eq!(lost(&told.plan(13_000)), [session]);
}

#[test]
fn who_comes_back_from_a_restart_has_what_it_had() {
    let (mut told, session, job) = told();
    told.see(3_000, &restarting(session, 13_000));
    told.see(10_000, &registered("w", session));
    assert_eq!(told.plan(13_900), [], "it is heard from its return on");
    assert_eq!(lost(&told.plan(14_100)), [session], "which does not excuse it for ever");
    assert!(given_up(&told.plan(14_100)).is_empty());
    told.see(14_200, &super::ended("w", session, true));
    assert_eq!(given_up(&told.plan(14_300)).first().map(|(lost, ..)| *lost), Some(job));
}

#[test]
fn another_session_instead_ends_the_one_that_restarts() {
    let (mut told, session, job) = told();
    told.see(3_000, &restarting(session, 13_000));
    told.see(4_000, &registered("w", SessionId::new()));
    assert_eq!(given_up(&told.plan(4_100)).first().map(|(lost, ..)| *lost), Some(job));
}

/// Nobody may be away for ever: what is read of the event is cut.
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
    let seen = crate::seen::read("rgrid.evt.sys.worker.w", &envelope.to_json()).expect("it can be read");
    let Some(Seen::Restarting { until, .. }) = seen else {
        panic!("{seen:?}")
    };
    assert_eq!(until, said + TimeDelta::hours(1));
}

#[test]
fn who_fences_itself_has_the_time_for_it_and_the_quick_sign_does_not_count() {
    for (fence, lapse) in [(1_000, 4_000), (2_000, 4_000), (6_000, 8_000)] {
        let (mut told, session) = (Told::new(), SessionId::new());
        let registered = Seen::Registered {
            worker: worker("w"),
            session,
            queues: vec![default_token()],
            self_fence: Some(Duration::from_millis(fence)),
            event: EventId::new(),
        };
        told.see(0, &registered);
        disconnect(&mut told, session, 3_000);
        assert_eq!(told.plan(lapse), [], "{fence}");
        assert_eq!(lost(&told.plan(lapse + 1)), [session], "{fence}");
    }
}

/// What an operator says of a worker is the last word on it, behind which the next one is appended.
#[test]
fn a_cordoned_worker_can_be_lost_too() {
    let (mut told, session, _) = told();
    let last = told.see(1_000, &Seen::Said { worker: worker("w") });
    let plan = told.plan(5_000);
    assert!(
        matches!(&plan[..], [super::Command::Lose { after, .. }] if *after == last),
        "{plan:?} {session}"
    );
}

/// So is what nobody can read.
#[test]
fn a_worker_of_whom_something_unreadable_was_said_can_be_lost_too() {
    let (mut told, session, _) = told();
    let subject = bus::subjects::worker(&worker("w"));
    let said = crate::seen::unreadable(&subject).expect("it is of a worker");
    let last = told.see(1_000, &said);
    let plan = told.plan(5_000);
    assert!(
        matches!(&plan[..], [super::Command::Lose { after, .. }] if *after == last),
        "{plan:?} {session}"
    );
}
