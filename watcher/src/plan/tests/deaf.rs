//! A watcher that does not receive its own heartbeats declares no session lost.

use super::*;

#[test]
fn while_the_watcher_is_deaf_no_silence_counts() {
    let (mut watcher, session) = (TestWatcher::new(), SessionId::new());
    watcher.fold(0, &registered("w", session));
    assert_eq!(watcher.plan(3_000), []);
    assert_eq!(watcher.plan_deaf(9_000), []);
    assert_eq!(watcher.plan(9_200), [], "every silence counts again from when it last was deaf");
    for ms in [9_900, 10_800, 11_700, 12_600, 13_500, 14_400, 15_000] {
        assert_eq!(watcher.plan(ms), []);
    }
    assert_eq!(lost(&watcher.plan(15_300)), [session]);
}

/// Even if the loop did not look whether it hears.
#[test]
fn while_the_watcher_is_deaf_no_session_is_declared_lost() {
    let (mut watcher, session) = (TestWatcher::new(), SessionId::new());
    watcher.fold(0, &registered("w", session));
    let (heard, now) = (watcher.at(3_000), watcher.at(4_500));
    watcher.state.own_heartbeat_received(heard);
    assert_eq!(plan(&watcher.state, now, LAPSE), []);
}

#[test]
fn a_watcher_whose_heartbeats_never_came_back_declares_no_session_lost() {
    let (mut watcher, session) = (TestWatcher::new(), SessionId::new());
    watcher.fold(0, &registered("w", session));
    assert_eq!(watcher.plan_deaf(60_000), []);
}

#[test]
fn a_connection_made_anew_counts_every_silence_again() {
    let (mut watcher, session) = (TestWatcher::new(), SessionId::new());
    watcher.fold(0, &registered("w", session));
    assert_eq!(watcher.plan(3_900), []);
    let now = watcher.at(3_950);
    watcher.state.restart_silences(now);
    assert_eq!(watcher.plan(9_900), []);
    assert_eq!(lost(&watcher.plan(10_000)), [session]);
}
