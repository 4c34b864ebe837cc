//! When a session is lost, over, or forgotten.

use super::*;

#[test]
fn a_silent_session_is_lost_and_then_its_attempts() {
    let (mut told, session, job) = (Told::new(), SessionId::new(), JobId::new());
    let registration = told.see(0, &registered("w", session));
    told.see(0, &claimed("w", session, job, 1));
    told.hear(1_000, "w", session, 0, &[]);
    assert_eq!(told.plan(5_000), []);
    let plan = told.plan(5_001);
    assert!(
        matches!(&plan[..], [Command::Lose { after, silent, .. }] if *after == registration && *silent > LAPSE),
        "{plan:?}"
    );
    told.see(5_002, &ended("w", session, true));
    let cause = LossCause::WorkerLost { worker: worker("w") };
    let plan = told.plan(5_003);
    assert_eq!((given_up(&plan), plan.len()), (vec![(job, Attempt(1), cause)], 1));
    told.state.release(job, Attempt(1), &(worker("w"), session));
    assert_eq!(told.plan(60_000), [], "nothing is left to do");
}

#[test]
fn one_that_waits_for_work_may_be_silent_for_as_much_longer_as_it_said() {
    let (mut told, session, job) = (Told::new(), SessionId::new(), JobId::new());
    told.see(0, &registered("w", session));
    let idle = |told: &mut Told, ms| {
        let (beat, now) = (beat(session, 0, &[]), told.at(ms));
        let beat = Beat {
            next_ms: Some(u32::MAX),
            ..beat
        };
        told.state.hear(&worker("w"), &beat, now);
    };
    // Nobody may ask for more patience than rgrid's own runner needs: three seconds from one to the next.
    idle(&mut told, 1_000);
    assert_eq!(told.plan(7_000), []);
    assert_eq!(lost(&told.plan(7_001)), [session]);
    // With work, it beats each second: from when it took that up, and not from its last heartbeat.
    idle(&mut told, 8_000);
    told.plan(11_000);
    told.see(11_000, &claimed("w", session, job, 1));
    assert_eq!(told.plan(15_000), []);
    assert_eq!(lost(&told.plan(15_001)), [session]);
    // As soon as it has none again, its last word counts.
    told.state.release(job, Attempt(1), &(worker("w"), session));
    assert_eq!(
        told.plan(15_002),
        [],
        "it took up work at 11 s, and may be silent for 6 s after that"
    );
    assert_eq!(lost(&told.plan(17_001)), [session]);
}

#[test]
fn a_new_session_or_a_leave_gives_up_what_the_old_one_held() {
    for successor in [true, false] {
        let (mut told, old, job) = (Told::new(), SessionId::new(), JobId::new());
        told.see(0, &registered("w", old));
        told.see(0, &claimed("w", old, job, 2));
        let end = if successor {
            registered("w", SessionId::new())
        } else {
            ended("w", old, false)
        };
        told.see(1, &end);
        let cause = LossCause::SessionEnded {
            worker: worker("w"),
            orderly: !successor,
        };
        let plan = told.plan(2);
        assert_eq!(given_up(&plan), [(job, Attempt(2), cause)]);
        let (Seen::Registered { event, .. } | Seen::Ended { event, .. }) = end else {
            unreachable!()
        };
        assert!(matches!(&plan[..], [Command::GiveUp { because, .. }] if *because == Some(event)));
    }
}

#[test]
fn another_workers_new_session_ends_nothing() {
    let (mut told, session, job) = (Told::new(), SessionId::new(), JobId::new());
    told.see(0, &registered("w", session));
    told.see(0, &claimed("w", session, job, 1));
    told.see(1, &registered("other", SessionId::new()));
    told.see(1, &ended("other", session, true));
    assert_eq!(told.plan(2), []);
}

/// It beats under its own name, with the session of another.
#[test]
fn nobody_beats_for_another() {
    let (mut told, session) = (Told::new(), SessionId::new());
    told.see(0, &registered("w", session));
    told.see(0, &registered("other", SessionId::new()));
    told.hear(6_000, "other", session, 0, &[]);
    assert!(lost(&told.plan(6_500)).contains(&session));
}

#[test]
fn only_queues_of_live_workers_are_served() {
    let (mut told, session) = (Told::new(), SessionId::new());
    assert!(told.state.queues().is_empty());
    told.see(0, &registered("w", session));
    assert_eq!(told.state.queues().into_iter().collect::<Vec<_>>(), [default_token()]);
    told.see(1, &ended("w", session, false));
    assert!(told.state.queues().is_empty());
}

/// Runners that come and go for ever, some under a new name each time: what is known of them stays bounded.
#[test]
fn sessions_that_are_over_are_forgotten_and_a_late_claim_of_one_is_given_up_all_the_same() {
    let (mut told, first) = (Told::new(), SessionId::new());
    told.see(0, &registered("same", first));
    for number in 0..3_000 {
        told.see(0, &registered("same", SessionId::new()));
        let (name, once) = (format!("once-{number}"), SessionId::new());
        told.see(0, &registered(&name, once));
        told.see(0, &ended(&name, once, false));
    }
    let length = |told: &Told| serde_json::to_string(&told.state.saved()).expect("JSON").len();
    let before = length(&told);
    for number in 0..3_000 {
        let (name, once) = (format!("more-{number}"), SessionId::new());
        told.see(0, &registered(&name, once));
        told.see(0, &ended(&name, once, true));
    }
    assert!(length(&told) < before + before / 4, "{before} bytes became {}", length(&told));
    assert!(before < 1_000_000, "{before} bytes");
    // What one of them claimed, who is forgotten, is given up once it is silent.
    let job = JobId::new();
    told.see(0, &claimed("same", first, job, 1));
    assert_eq!(
        given_up(&told.plan(5_000)),
        [(job, Attempt(1), LossCause::WorkerLost { worker: worker("same") })]
    );
    told.state.release(job, Attempt(1), &(worker("same"), first));
    // And the last session of the worker is still the one that lives.
    assert_eq!(lost(&told.plan(6_500)).len(), 1);
}

#[test]
fn one_that_is_remembered_and_held_something_again_is_remembered_once_more() {
    let (mut told, session, job) = (Told::new(), SessionId::new(), JobId::new());
    told.see(0, &registered("w", session));
    told.see(0, &ended("w", session, true));
    told.see(0, &claimed("w", session, job, 1));
    for number in 0..1_500 {
        let (name, once) = (format!("once-{number}"), SessionId::new());
        told.see(0, &registered(&name, once));
        told.see(0, &ended(&name, once, false));
    }
    let cause = LossCause::WorkerLost { worker: worker("w") };
    assert_eq!(
        given_up(&told.plan(1)),
        [(job, Attempt(1), cause)],
        "it holds something, so it is not forgotten"
    );
}
