//! When a session is lost, over, or forgotten.

use super::*;

#[test]
fn a_silent_session_is_lost_and_then_its_attempts() {
    let (mut watcher, session, job) = (TestWatcher::new(), SessionId::new(), JobId::new());
    let registration = watcher.fold(0, &registered("w", session));
    watcher.fold(0, &claimed("w", session, job, 1));
    watcher.fold_heartbeat(1_000, "w", session, 0, &[]);
    assert_eq!(watcher.plan(5_000), []);
    let plan = watcher.plan(5_001);
    assert!(
        matches!(&plan[..], [Command::DeclareLost { after, silent, .. }] if *after == registration && *silent > LAPSE),
        "{plan:?}"
    );
    watcher.fold(5_002, &ended("w", session, true));
    let cause = LossCause::WorkerLost { worker: worker("w") };
    let plan = watcher.plan(5_003);
    assert_eq!((given_up(&plan), plan.len()), (vec![(job, Attempt(1), cause)], 1));
    watcher.state.release(job, Attempt(1), &(worker("w"), session));
    assert_eq!(watcher.plan(60_000), [], "nothing is left to do");
}

#[test]
fn a_session_that_waits_for_work_may_be_silent_for_longer() {
    let (mut watcher, session, job) = (TestWatcher::new(), SessionId::new(), JobId::new());
    watcher.fold(0, &registered("w", session));
    let idle = |watcher: &mut TestWatcher, ms| {
        let (beat, now) = (beat(session, 0, &[]), watcher.at(ms));
        let beat = Heartbeat {
            next_ms: Some(u32::MAX),
            ..beat
        };
        watcher.state.fold_heartbeat(&worker("w"), &beat, now);
    };
    // No session may announce a longer period than rgrid's own runner uses: three seconds between two heartbeats.
    idle(&mut watcher, 1_000);
    assert_eq!(watcher.plan(7_000), []);
    assert_eq!(lost(&watcher.plan(7_001)), [session]);
    // With work, it beats each second: from when it took that up, and not from its last heartbeat.
    idle(&mut watcher, 8_000);
    watcher.plan(11_000);
    watcher.fold(11_000, &claimed("w", session, job, 1));
    assert_eq!(watcher.plan(15_000), []);
    assert_eq!(lost(&watcher.plan(15_001)), [session]);
    // As soon as it holds none again, the period of its last heartbeat counts.
    watcher.state.release(job, Attempt(1), &(worker("w"), session));
    assert_eq!(
        watcher.plan(15_002),
        [],
        "it took up work at 11 s, and may be silent for 6 s after that"
    );
    assert_eq!(lost(&watcher.plan(17_001)), [session]);
}

#[test]
fn a_new_session_or_a_leave_gives_up_what_the_old_one_held() {
    for successor in [true, false] {
        let (mut watcher, old, job) = (TestWatcher::new(), SessionId::new(), JobId::new());
        watcher.fold(0, &registered("w", old));
        watcher.fold(0, &claimed("w", old, job, 2));
        let end = if successor {
            registered("w", SessionId::new())
        } else {
            ended("w", old, false)
        };
        watcher.fold(1, &end);
        let cause = LossCause::SessionEnded {
            worker: worker("w"),
            orderly: !successor,
        };
        let plan = watcher.plan(2);
        assert_eq!(given_up(&plan), [(job, Attempt(2), cause)]);
        let (Observation::Registered { event, .. } | Observation::SessionEnded { event, .. }) = end else {
            unreachable!()
        };
        assert!(matches!(&plan[..], [Command::GiveUp { session_end, .. }] if *session_end == Some(event)));
    }
}

#[test]
fn a_new_session_ends_no_other_workers_session() {
    let (mut watcher, session, job) = (TestWatcher::new(), SessionId::new(), JobId::new());
    watcher.fold(0, &registered("w", session));
    watcher.fold(0, &claimed("w", session, job, 1));
    watcher.fold(1, &registered("other", SessionId::new()));
    watcher.fold(1, &ended("other", session, true));
    assert_eq!(watcher.plan(2), []);
}

/// It beats under its own name, with the session of another.
#[test]
fn a_heartbeat_counts_only_for_its_own_worker() {
    let (mut watcher, session) = (TestWatcher::new(), SessionId::new());
    watcher.fold(0, &registered("w", session));
    watcher.fold(0, &registered("other", SessionId::new()));
    watcher.fold_heartbeat(6_000, "other", session, 0, &[]);
    assert!(lost(&watcher.plan(6_500)).contains(&session));
}

#[test]
fn only_queues_of_live_workers_are_served() {
    let (mut watcher, session) = (TestWatcher::new(), SessionId::new());
    assert!(watcher.state.queues().is_empty());
    watcher.fold(0, &registered("w", session));
    assert_eq!(watcher.state.queues().into_iter().collect::<Vec<_>>(), [default_token()]);
    watcher.fold(1, &ended("w", session, false));
    assert!(watcher.state.queues().is_empty());
}

/// Sessions come and go, some with a new worker name each time: the state stays bounded.
#[test]
fn sessions_that_are_over_are_forgotten_and_a_late_claim_of_one_is_given_up_all_the_same() {
    let (mut watcher, first) = (TestWatcher::new(), SessionId::new());
    watcher.fold(0, &registered("same", first));
    for number in 0..3_000 {
        watcher.fold(0, &registered("same", SessionId::new()));
        let (name, once) = (format!("once-{number}"), SessionId::new());
        watcher.fold(0, &registered(&name, once));
        watcher.fold(0, &ended(&name, once, false));
    }
    let length = |watcher: &TestWatcher| serde_json::to_string(&watcher.state.saved()).expect("JSON").len();
    let before = length(&watcher);
    for number in 0..3_000 {
        let (name, once) = (format!("more-{number}"), SessionId::new());
        watcher.fold(0, &registered(&name, once));
        watcher.fold(0, &ended(&name, once, true));
    }
    assert!(length(&watcher) < before + before / 4, "{before} bytes became {}", length(&watcher));
    assert!(before < 1_000_000, "{before} bytes");
    // What one of them claimed, who is forgotten, is given up once it is silent.
    let job = JobId::new();
    watcher.fold(0, &claimed("same", first, job, 1));
    assert_eq!(
        given_up(&watcher.plan(5_000)),
        [(job, Attempt(1), LossCause::WorkerLost { worker: worker("same") })]
    );
    watcher.state.release(job, Attempt(1), &(worker("same"), first));
    // And the last session of the worker is still the one that lives.
    assert_eq!(lost(&watcher.plan(6_500)).len(), 1);
}

#[test]
fn one_that_is_remembered_and_held_something_again_is_remembered_once_more() {
    let (mut watcher, session, job) = (TestWatcher::new(), SessionId::new(), JobId::new());
    watcher.fold(0, &registered("w", session));
    watcher.fold(0, &ended("w", session, true));
    watcher.fold(0, &claimed("w", session, job, 1));
    for number in 0..1_500 {
        let (name, once) = (format!("once-{number}"), SessionId::new());
        watcher.fold(0, &registered(&name, once));
        watcher.fold(0, &ended(&name, once, false));
    }
    let cause = LossCause::WorkerLost { worker: worker("w") };
    assert_eq!(
        given_up(&watcher.plan(1)),
        [(job, Attempt(1), cause)],
        "it holds something, so it is not forgotten"
    );
}
