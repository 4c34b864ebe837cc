//! Which attempts are given up.

use super::*;

#[test]
fn what_ended_is_not_given_up() {
    let ends: [fn(SessionId, JobId) -> Observation; 3] = [
        |session, job| Observation::Finished(held_attempt("w", session, job, 1), crate::Ending::Succeeded),
        |_, job| Observation::Closed {
            job,
            attempt: None,
            failed: false,
        },
        |_, job| Observation::Closed {
            job,
            attempt: Some(Attempt(1)),
            failed: false,
        },
    ];
    for end in ends {
        let (mut watcher, session, job) = (TestWatcher::new(), SessionId::new(), JobId::new());
        watcher.fold(0, &registered("w", session));
        watcher.fold(0, &claimed("w", session, job, 1));
        watcher.fold(1, &end(session, job));
        watcher.fold(2, &ended("w", session, true));
        assert_eq!(watcher.plan(3), [], "{:?}", end(session, job));
    }
}

#[test]
fn only_what_ended_is_let_go() {
    let (mut watcher, session, job) = (TestWatcher::new(), SessionId::new(), JobId::new());
    watcher.fold(0, &registered("w", session));
    watcher.fold(0, &claimed("w", session, job, 2));
    watcher.fold(
        1,
        &Observation::Closed {
            job,
            attempt: Some(Attempt(1)),
            failed: false,
        },
    );
    watcher.fold(
        1,
        &Observation::Closed {
            job: JobId::new(),
            attempt: None,
            failed: false,
        },
    );
    watcher.fold(
        1,
        &Observation::Finished(held_attempt("w", session, job, 1), crate::Ending::Succeeded),
    );
    watcher.fold(
        1,
        &Observation::Finished(held_attempt("other", session, job, 2), crate::Ending::Succeeded),
    );
    watcher.fold(
        1,
        &Observation::Finished(held_attempt("w", SessionId::new(), job, 2), crate::Ending::Succeeded),
    );
    watcher.fold(2, &ended("w", session, true));
    assert_eq!(given_up(&watcher.plan(3)).len(), 1);
}

/// A worker claims with the session of another live worker: the attempt is live, and no session holds it.
#[test]
fn a_claim_with_the_session_of_another_is_given_up() {
    let (mut watcher, session, job) = (TestWatcher::new(), SessionId::new(), JobId::new());
    watcher.fold(0, &registered("w", session));
    let claim = watcher.fold(0, &claimed("other", session, job, 1));
    watcher.fold_heartbeat(4_000, "w", session, claim, &[(job, Attempt(1))]);
    let cause = LossCause::WorkerLost { worker: worker("other") };
    assert_eq!(given_up(&watcher.plan(4_500)), [(job, Attempt(1), cause)]);
}

/// A heartbeat leaves an attempt out: how late the last of them is, whether they say the claim was known, and what follows.
#[test]
fn an_orphan_is_left_out_for_a_while_by_one_who_knows_of_its_claim() {
    let table = [
        (vec![0], true, false),
        (vec![0, 1_000, 2_000], true, false),
        (vec![0, 2_499], true, false),
        (vec![0, 2_500], true, true),
        (vec![0, 1_000, 2_000, 3_000], true, true),
        (vec![0, 1_000, 2_000, 3_000, 4_000, 5_000], false, false),
    ];
    for (beats, knows, orphan) in table {
        let (mut watcher, session, job) = (TestWatcher::new(), SessionId::new(), JobId::new());
        watcher.fold(0, &registered("w", session));
        let claim = watcher.fold(0, &claimed("w", session, job, 1));
        for ms in &beats {
            watcher.fold_heartbeat(*ms, "w", session, if knows { claim } else { claim - 1 }, &[]);
        }
        let cause = LossCause::Orphaned { worker: worker("w") };
        let expected = if orphan { vec![(job, Attempt(1), cause)] } else { vec![] };
        let last = beats.last().copied().unwrap_or(0);
        assert_eq!(given_up(&watcher.plan(last + 900)), expected, "{beats:?} {knows}");
    }
}

#[test]
fn one_heartbeat_that_lists_it_makes_an_absence_begin_anew() {
    let (mut watcher, session, job) = (TestWatcher::new(), SessionId::new(), JobId::new());
    watcher.fold(0, &registered("w", session));
    let claim = watcher.fold(0, &claimed("w", session, job, 1));
    for ms in [0, 1_000, 2_000] {
        watcher.fold_heartbeat(ms, "w", session, claim, &[]);
    }
    watcher.fold_heartbeat(3_000, "w", session, claim, &[(job, Attempt(1))]);
    for ms in [4_000, 5_000, 6_000] {
        watcher.fold_heartbeat(ms, "w", session, claim, &[(job, Attempt(2))]);
    }
    assert_eq!(watcher.plan(6_500), []);
    watcher.fold_heartbeat(7_000, "w", session, claim, &[]);
    assert_eq!(given_up(&watcher.plan(7_000)).len(), 1);
}

#[test]
fn a_claim_of_an_unknown_session_is_given_up_when_it_is_silent() {
    let (mut watcher, session, job) = (TestWatcher::new(), SessionId::new(), JobId::new());
    watcher.fold(0, &claimed("w", session, job, 1));
    watcher.fold_heartbeat(1_000, "w", session, u64::MAX, &[(job, Attempt(1))]);
    assert_eq!(watcher.plan(5_000), [], "it sends heartbeats, so it is alive");
    let cause = LossCause::WorkerLost { worker: worker("w") };
    let plan = watcher.plan(5_100);
    assert_eq!((given_up(&plan), lost(&plan)), (vec![(job, Attempt(1), cause)], vec![]));
    watcher.state.release(job, Attempt(1), &(worker("w"), session));
    assert_eq!(watcher.plan(60_000), []);
}
