//! A watcher that does not receive its own heartbeats declares no session lost.

use super::*;

#[test]
fn a_deaf_watcher_believes_in_no_silence() {
    let (mut told, session) = (Told::new(), SessionId::new());
    told.see(0, &registered("w", session));
    assert_eq!(told.plan(3_000), []);
    assert_eq!(told.plan_deaf(9_000), []);
    assert_eq!(told.plan(9_200), [], "every silence counts again from when it last was deaf");
    for ms in [9_900, 10_800, 11_700, 12_600, 13_500, 14_400, 15_000] {
        assert_eq!(told.plan(ms), []);
    }
    assert_eq!(lost(&told.plan(15_300)), [session]);
}

/// Even if the loop did not look whether it hears.
#[test]
fn no_plan_loses_anybody_while_deaf() {
    let (mut told, session) = (Told::new(), SessionId::new());
    told.see(0, &registered("w", session));
    let (heard, now) = (told.at(3_000), told.at(4_500));
    told.state.hear_self(heard);
    assert_eq!(plan(&told.state, now, LAPSE), []);
}

#[test]
fn a_watcher_that_never_heard_itself_loses_nobody() {
    let (mut told, session) = (Told::new(), SessionId::new());
    told.see(0, &registered("w", session));
    assert_eq!(told.plan_deaf(60_000), []);
}

#[test]
fn a_connection_made_anew_counts_every_silence_again() {
    let (mut told, session) = (Told::new(), SessionId::new());
    told.see(0, &registered("w", session));
    assert_eq!(told.plan(3_900), []);
    let now = told.at(3_950);
    told.state.distrust(now);
    assert_eq!(told.plan(9_900), []);
    assert_eq!(lost(&told.plan(10_000)), [session]);
}
