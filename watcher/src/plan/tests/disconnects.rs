//! The ends of connections, and when they do not count.

use bus::ids::SessionId;
use chrono::{DateTime, TimeDelta, Utc};

use super::{TestWatcher, lost, registered, worker};
use crate::{
    connections::Connection,
    plan::{Command, Sign},
};

fn connection(server: &str, client: u64) -> Connection {
    let server = server.to_owned();
    Connection { server, client }
}

fn start(ms: u64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::milliseconds(i64::try_from(ms).expect("short"))
}

impl TestWatcher {
    fn made(&mut self, ms: u64, session: SessionId, connection: Connection) {
        let now = self.at(ms);
        self.state.connected(&(worker("w"), session), connection, start(ms), now);
    }

    /// Whether the mark counts.
    fn gone(&mut self, ms: u64, session: SessionId, connection: &Connection) -> bool {
        self.tick(ms, true);
        self.gone_suddenly(ms, session, connection)
    }

    /// As the first thing that the watcher hears since it last listened.
    fn gone_suddenly(&mut self, ms: u64, session: SessionId, connection: &Connection) -> bool {
        let now = self.at(ms);
        self.state.own_heartbeat_received(now);
        self.state.check_hearing(now);
        self.state.disconnected(&(worker("w"), session), connection, true, now)
    }
}

/// Of a session that beats, with a connection, watcher by a watcher that has heard itself for three seconds.
fn settled() -> (TestWatcher, SessionId) {
    let (mut watcher, session) = (TestWatcher::new(), SessionId::new());
    watcher.fold(0, &registered("w", session));
    watcher.made(0, session, connection("a", 1));
    watcher.tick(3_000, true);
    watcher.fold_heartbeat(2_900, "w", session, 0, &[]);
    (watcher, session)
}

#[test]
fn a_session_whose_connection_went_is_lost_when_it_had_the_time_to_make_another() {
    let (mut watcher, session) = settled();
    assert!(watcher.gone(3_000, session, &connection("a", 1)));
    assert_eq!(watcher.state.next_due(watcher.at(3_000)), Some(watcher.at(3_400)));
    assert_eq!(watcher.plan(3_399), []);
    let plan = watcher.plan(3_400);
    assert!(
        matches!(
            &plan[..],
            [Command::DeclareLost {
                sign: Sign::Disconnect,
                ..
            }]
        ),
        "{plan:?}"
    );
    assert_eq!(
        watcher.state.next_due(watcher.at(3_400)),
        None,
        "it is not asked for again and again"
    );
}

#[test]
fn a_session_that_connects_again_lives() {
    let (mut watcher, session) = settled();
    watcher.gone(3_000, session, &connection("a", 1));
    watcher.made(3_390, session, connection("b", 1));
    assert_eq!(watcher.plan(3_500), []);
    assert!(
        !watcher.gone(3_600, session, &connection("a", 1)),
        "the server that it left lets it go late"
    );
    assert_eq!(watcher.plan(4_200), []);
    watcher.fold_heartbeat(4_200, "w", session, 0, &[]);
    assert!(watcher.gone(4_300, session, &connection("b", 1)));
    assert_eq!(lost(&watcher.plan(4_700)), [session]);
}

#[test]
fn of_connections_that_are_listed_together_the_newest_counts() {
    let (mut watcher, session) = settled();
    watcher.made(20, session, connection("b", 9));
    watcher.made(10, session, connection("c", 9));
    assert!(!watcher.gone(3_000, session, &connection("c", 9)) && !watcher.gone(3_000, session, &connection("a", 1)));
    assert!(watcher.gone(3_000, session, &connection("b", 9)));
}

#[test]
fn a_connection_that_was_never_heard_of_may_go_too() {
    let (mut watcher, session) = (TestWatcher::new(), SessionId::new());
    watcher.fold(0, &registered("w", session));
    watcher.tick(3_000, true);
    assert!(watcher.gone(3_000, session, &connection("a", 1)));
    assert_eq!(lost(&watcher.plan(3_400)), [session]);
}

/// What was under way when the connection went says nothing; what was sent later does.
#[test]
fn a_heartbeat_after_the_end_is_a_sign_of_life() {
    for (beat, dead) in [(3_100, true), (3_200, false), (3_399, false)] {
        let (mut watcher, session) = settled();
        watcher.gone(3_000, session, &connection("a", 1));
        watcher.fold_heartbeat(beat, "w", session, 0, &[]);
        assert_eq!(lost(&watcher.plan(3_400)).contains(&session), dead, "{beat}");
    }
}

#[test]
fn the_end_of_a_connection_is_not_believed_where_the_broker_is_not_well() {
    let gone = |watcher: &mut TestWatcher, session| watcher.gone(3_000, session, &connection("a", 1));

    let (mut watcher, session) = settled();
    let now = watcher.at(1_500);
    watcher.state.restart_silences(now);
    assert!(!gone(&mut watcher, session), "it was unwell just before");

    let (mut watcher, session) = settled();
    assert!(gone(&mut watcher, session));
    let now = watcher.at(3_300);
    watcher.state.restart_silences(now);
    assert_eq!(watcher.plan(3_400), [], "it became unwell just after");
    assert_eq!(watcher.plan(4_400), []);

    let (mut watcher, session) = settled();
    assert!(gone(&mut watcher, session));
    let now = watcher.at(3_300);
    watcher.state.connections_doubted_until(now);
    assert_eq!(watcher.plan(3_400), [], "the connection over which it was heard broke");

    let (mut watcher, session) = settled();
    assert!(gone(&mut watcher, session));
    assert_eq!(watcher.plan_deaf(3_400), [], "no heartbeat of the watcher's own came back since");

    let (mut watcher, session) = settled();
    assert!(
        !watcher.gone_suddenly(5_000, session, &connection("a", 1)),
        "the watcher was stopped meanwhile"
    );
}

#[test]
fn the_end_of_a_connection_that_the_server_ended_says_nothing() {
    let (mut watcher, session) = settled();
    let now = watcher.at(3_000);
    assert!(!watcher.state.disconnected(&(worker("w"), session), &connection("a", 1), false, now));
    assert_eq!(watcher.plan(3_900), []);
}

#[test]
fn a_session_that_is_over_or_unknown_has_nothing_to_lose() {
    let (mut watcher, session) = settled();
    watcher.fold(2_950, &super::ended("w", session, false));
    assert!(!watcher.gone(3_000, session, &connection("a", 1)));
    assert!(!watcher.gone(3_000, SessionId::new(), &connection("a", 2)));
    assert_eq!(watcher.state.next_due(watcher.at(3_000)), None);
}

/// Whose server does not answer is not silent himself: until he had the time to find another one.
#[test]
fn the_silence_of_a_server_is_not_that_of_its_clients() {
    let silent = |answers: &dyn Fn(u64) -> bool| {
        let (mut watcher, session) = settled();
        for ms in (0..30_000).step_by(250) {
            if answers(ms) {
                let now = watcher.at(ms);
                watcher.state.server_answered("a", now);
            }
            if !watcher.plan(ms.max(3_000)).is_empty() {
                return (ms, session);
            }
        }
        (0, session)
    };
    // The last heartbeat came at 2,900.
    assert_eq!(silent(&|_| true).0, 7_000, "a silence of 4 s");
    assert_eq!(silent(&|ms| !(3_000..10_000).contains(&ms)).0, 14_000, "4 s after it answers again");
    assert_eq!(silent(&|ms| ms < 3_000).0, 19_000, "12 s after its last answer, and 4 s more");
    assert_eq!(silent(&|_| false).0, 7_000, "on an unknown server");

    let (mut watcher, session) = settled();
    let now = watcher.at(3_000);
    watcher.state.server_answered("a", now);
    watcher.tick(6_000, true);
    watcher.made(6_000, session, connection("b", 1));
    assert_eq!(watcher.plan(10_000), [], "it found another one");
    assert_eq!(lost(&watcher.plan(10_001)), [session], "and is silent there");
}

/// The watcher's own line to the system account was on the server that fell silent, too, and finds another one before that
/// server's clients do. Its other line was not.
#[test]
fn a_server_is_silent_also_for_a_watcher_that_was_on_it() {
    let answered = |watcher: &mut TestWatcher, server: &str, from: u64, to: u64| {
        for ms in (from..=to).step_by(250) {
            watcher.tick(ms, true);
            let now = watcher.at(ms);
            watcher.state.server_answered(server, now);
        }
    };
    let (mut watcher, session) = settled();
    let now = watcher.at(3_000);
    watcher.state.server_answered("a", now);
    watcher.state.server_answered("b", now);
    // Until then, no server and only this session is known.
    watcher.tick(7_500, true);
    let now = watcher.at(7_500);
    watcher.state.connections_heard_from(now);
    answered(&mut watcher, "b", 7_500, 8_500);
    assert_eq!(watcher.plan(8_500), [], "its client has not found another server yet");
    let now = watcher.at(8_500);
    watcher
        .state
        .connected(&(worker("w"), session), connection("b", 1), start(8_400), now);
    answered(&mut watcher, "b", 8_500, 9_400);
    watcher.fold_heartbeat(9_400, "w", session, 0, &[]);
    assert_eq!(watcher.plan(9_500), []);
    answered(&mut watcher, "b", 9_500, 13_300);
    assert_eq!(watcher.plan(13_400), [], "it was heard");
    answered(&mut watcher, "b", 13_500, 13_500);
    assert_eq!(
        lost(&watcher.plan(13_500)),
        [session],
        "a session that is silent after that is lost as usual"
    );
}
