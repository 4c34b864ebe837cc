//! The broker's word on connections, and when it is not believed.

use bus::ids::SessionId;
use chrono::{DateTime, TimeDelta, Utc};

use super::{Told, lost, registered, worker};
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

impl Told {
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
        self.state.hear_self(now);
        self.state.listen(now);
        self.state.disconnected(&(worker("w"), session), connection, true, now)
    }
}

/// Of a session that beats, with a connection, told by a watcher that has heard itself for three seconds.
fn settled() -> (Told, SessionId) {
    let (mut told, session) = (Told::new(), SessionId::new());
    told.see(0, &registered("w", session));
    told.made(0, session, connection("a", 1));
    told.tick(3_000, true);
    told.hear(2_900, "w", session, 0, &[]);
    (told, session)
}

#[test]
fn a_session_whose_connection_went_is_lost_when_it_had_the_time_to_make_another() {
    let (mut told, session) = settled();
    assert!(told.gone(3_000, session, &connection("a", 1)));
    assert_eq!(told.state.next_due(told.at(3_000)), Some(told.at(3_400)));
    assert_eq!(told.plan(3_399), []);
    let plan = told.plan(3_400);
    assert!(
        matches!(
            &plan[..],
            [Command::Lose {
                sign: Sign::Disconnect,
                ..
            }]
        ),
        "{plan:?}"
    );
    assert_eq!(told.state.next_due(told.at(3_400)), None, "it is not asked for again and again");
}

#[test]
fn a_session_that_connects_again_lives() {
    let (mut told, session) = settled();
    told.gone(3_000, session, &connection("a", 1));
    told.made(3_390, session, connection("b", 1));
    assert_eq!(told.plan(3_500), []);
    assert!(
        !told.gone(3_600, session, &connection("a", 1)),
        "the server that it left lets it go late"
    );
    assert_eq!(told.plan(4_200), []);
    told.hear(4_200, "w", session, 0, &[]);
    assert!(told.gone(4_300, session, &connection("b", 1)));
    assert_eq!(lost(&told.plan(4_700)), [session]);
}

#[test]
fn of_connections_that_are_listed_together_the_newest_counts() {
    let (mut told, session) = settled();
    told.made(20, session, connection("b", 9));
    told.made(10, session, connection("c", 9));
    assert!(!told.gone(3_000, session, &connection("c", 9)) && !told.gone(3_000, session, &connection("a", 1)));
    assert!(told.gone(3_000, session, &connection("b", 9)));
}

#[test]
fn a_connection_that_was_never_heard_of_may_go_too() {
    let (mut told, session) = (Told::new(), SessionId::new());
    told.see(0, &registered("w", session));
    told.tick(3_000, true);
    assert!(told.gone(3_000, session, &connection("a", 1)));
    assert_eq!(lost(&told.plan(3_400)), [session]);
}

/// What was under way when the connection went says nothing; what was sent later does.
#[test]
fn a_heartbeat_after_the_end_is_a_sign_of_life() {
    for (beat, dead) in [(3_100, true), (3_200, false), (3_399, false)] {
        let (mut told, session) = settled();
        told.gone(3_000, session, &connection("a", 1));
        told.hear(beat, "w", session, 0, &[]);
        assert_eq!(lost(&told.plan(3_400)).contains(&session), dead, "{beat}");
    }
}

#[test]
fn the_end_of_a_connection_is_not_believed_where_the_broker_is_not_well() {
    let gone = |told: &mut Told, session| told.gone(3_000, session, &connection("a", 1));

    let (mut told, session) = settled();
    let now = told.at(1_500);
    told.state.distrust(now);
    assert!(!gone(&mut told, session), "it was unwell just before");

    let (mut told, session) = settled();
    assert!(gone(&mut told, session));
    let now = told.at(3_300);
    told.state.distrust(now);
    assert_eq!(told.plan(3_400), [], "it became unwell just after");
    assert_eq!(told.plan(4_400), []);

    let (mut told, session) = settled();
    assert!(gone(&mut told, session));
    let now = told.at(3_300);
    told.state.doubt_connections(now);
    assert_eq!(told.plan(3_400), [], "the connection over which it was heard broke");

    let (mut told, session) = settled();
    assert!(gone(&mut told, session));
    assert_eq!(told.plan_deaf(3_400), [], "no heartbeat of the watcher's own came back since");

    let (mut told, session) = settled();
    assert!(
        !told.gone_suddenly(5_000, session, &connection("a", 1)),
        "the watcher was stopped meanwhile"
    );
}

#[test]
fn the_end_of_a_connection_that_the_server_ended_says_nothing() {
    let (mut told, session) = settled();
    let now = told.at(3_000);
    assert!(!told.state.disconnected(&(worker("w"), session), &connection("a", 1), false, now));
    assert_eq!(told.plan(3_900), []);
}

#[test]
fn a_session_that_is_over_or_unknown_has_nothing_to_lose() {
    let (mut told, session) = settled();
    told.see(2_950, &super::ended("w", session, false));
    assert!(!told.gone(3_000, session, &connection("a", 1)));
    assert!(!told.gone(3_000, SessionId::new(), &connection("a", 2)));
    assert_eq!(told.state.next_due(told.at(3_000)), None);
}

/// Whose server does not answer is not silent himself: until he had the time to find another one.
#[test]
fn the_silence_of_a_server_is_not_that_of_its_clients() {
    let silent = |answers: &dyn Fn(u64) -> bool| {
        let (mut told, session) = settled();
        for ms in (0..30_000).step_by(250) {
            if answers(ms) {
                let now = told.at(ms);
                told.state.server_answered("a", now);
            }
            if !told.plan(ms.max(3_000)).is_empty() {
                return (ms, session);
            }
        }
        (0, session)
    };
    // The last heartbeat came at 2,900.
    assert_eq!(silent(&|_| true).0, 7_000, "a silence of 4 s");
    assert_eq!(silent(&|ms| !(3_000..10_000).contains(&ms)).0, 14_000, "4 s after it answers again");
    assert_eq!(silent(&|ms| ms < 3_000).0, 19_000, "12 s after its last answer, and 4 s more");
    assert_eq!(silent(&|_| false).0, 7_000, "of which nobody knows");

    let (mut told, session) = settled();
    let now = told.at(3_000);
    told.state.server_answered("a", now);
    told.tick(6_000, true);
    told.made(6_000, session, connection("b", 1));
    assert_eq!(told.plan(10_000), [], "it found another one");
    assert_eq!(lost(&told.plan(10_001)), [session], "and is silent there");
}

/// The watcher's own line to the system account was on the server that fell silent, too, and finds another one before that
/// server's clients do. Its other line was not.
#[test]
fn a_server_is_silent_also_for_a_watcher_that_was_on_it() {
    let answered = |told: &mut Told, server: &str, from: u64, to: u64| {
        for ms in (from..=to).step_by(250) {
            told.tick(ms, true);
            let now = told.at(ms);
            told.state.server_answered(server, now);
        }
    };
    let (mut told, session) = settled();
    let now = told.at(3_000);
    told.state.server_answered("a", now);
    told.state.server_answered("b", now);
    // Until then it hears of no server, and nobody but this one.
    told.tick(7_500, true);
    let now = told.at(7_500);
    told.state.listen_to_connections(now);
    answered(&mut told, "b", 7_500, 8_500);
    assert_eq!(told.plan(8_500), [], "its client has not found another server yet");
    let now = told.at(8_500);
    told.state.connected(&(worker("w"), session), connection("b", 1), start(8_400), now);
    answered(&mut told, "b", 8_500, 9_400);
    told.hear(9_400, "w", session, 0, &[]);
    assert_eq!(told.plan(9_500), []);
    answered(&mut told, "b", 9_500, 13_300);
    assert_eq!(told.plan(13_400), [], "it was heard");
    answered(&mut told, "b", 13_500, 13_500);
    assert_eq!(lost(&told.plan(13_500)), [session], "whoever is silent after that is lost as ever");
}
