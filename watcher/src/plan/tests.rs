mod disconnects;
mod excused;
mod fold;
mod waiting;
mod world;

use std::time::{Duration, Instant};

use bus::{
    ids::{Attempt, EventId, JobId, SessionId, WorkerId, default_token},
    job::LossCause,
    worker::Heartbeat,
};
use chrono::Utc;

use super::{Command, plan};
use crate::{
    seen::{Seen, Try},
    state::State,
};

const LAPSE: Duration = Duration::from_secs(4);

/// A state that is told things at moments of the test's choosing.
struct Told {
    state: State,
    start: Instant,
    sequence: u64,
    /// Until when it listened.
    now: u64,
}

impl Told {
    fn new() -> Self {
        let start = Instant::now();
        let state = State::new(start);
        Self {
            state,
            start,
            sequence: 0,
            now: 0,
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn see(&mut self, ms: u64, seen: &Seen) -> u64 {
        self.sequence += 10;
        self.state.see(self.sequence, seen, self.at(ms));
        self.sequence
    }

    fn hear(&mut self, ms: u64, name: &str, session: SessionId, last_claim: u64, attempts: &[(JobId, Attempt)]) {
        let (worker, now) = (worker(name), self.at(ms));
        self.state.hear(&worker, &beat(session, last_claim, attempts), now);
    }

    /// Lets the watcher tick until then; it hears itself, or not.
    fn tick(&mut self, ms: u64, hears: bool) {
        while self.now < ms {
            self.now = (self.now + 250).min(ms);
            let now = self.at(self.now);
            if hears {
                self.state.hear_self(now);
            }
            self.state.listen(now);
        }
    }

    /// The plan at this moment, of a watcher that hears itself.
    fn plan(&mut self, ms: u64) -> Vec<Command> {
        self.tick(ms, true);
        let now = self.at(ms);
        self.state.hear_self(now);
        plan(&self.state, now, LAPSE)
    }

    /// One that does not.
    fn plan_deaf(&mut self, ms: u64) -> Vec<Command> {
        self.tick(ms, false);
        plan(&self.state, self.at(ms), LAPSE)
    }
}

fn worker(name: &str) -> WorkerId {
    name.parse().expect("a token")
}

fn beat(session: SessionId, last_claim: u64, attempts: &[(JobId, Attempt)]) -> Heartbeat {
    Heartbeat {
        session,
        time: Utc::now(),
        last_claim,
        cpu_milli_free: 0,
        memory_bytes_free: 0,
        load: 0.0,
        attempts: attempts.to_vec(),
        next_ms: None,
        leftovers: Vec::new(),
    }
}

fn registered(name: &str, session: SessionId) -> Seen {
    Seen::Registered {
        worker: worker(name),
        session,
        queues: vec![default_token()],
        self_fence: None,
        event: EventId::new(),
    }
}

fn ended(name: &str, session: SessionId, lost: bool) -> Seen {
    Seen::Ended {
        worker: worker(name),
        session,
        lost,
        event: EventId::new(),
    }
}

fn a_try(name: &str, session: SessionId, job: JobId, attempt: u32) -> Try {
    Try {
        job,
        attempt: Attempt(attempt),
        worker: worker(name),
        session,
    }
}

fn claimed(name: &str, session: SessionId, job: JobId, attempt: u32) -> Seen {
    Seen::Claimed(a_try(name, session, job, attempt))
}

/// What is to be given up, and why.
fn given_up(plan: &[Command]) -> Vec<(JobId, Attempt, LossCause)> {
    let given_up = plan.iter().filter_map(|command| match command {
        Command::GiveUp { job, attempt, cause, .. } => Some((*job, *attempt, cause.clone())),
        _ => None,
    });
    given_up.collect()
}

fn lost(plan: &[Command]) -> Vec<SessionId> {
    let lost = plan.iter().filter_map(|command| match command {
        Command::Lose { session, .. } => Some(*session),
        _ => None,
    });
    lost.collect()
}

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
        let beat = Heartbeat {
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

#[test]
fn what_ended_is_not_given_up() {
    let ends: [fn(SessionId, JobId) -> Seen; 3] = [
        |session, job| Seen::Finished(a_try("w", session, job, 1), crate::Ending::Well),
        |_, job| Seen::Closed {
            job,
            attempt: None,
            failed: false,
        },
        |_, job| Seen::Closed {
            job,
            attempt: Some(Attempt(1)),
            failed: false,
        },
    ];
    for end in ends {
        let (mut told, session, job) = (Told::new(), SessionId::new(), JobId::new());
        told.see(0, &registered("w", session));
        told.see(0, &claimed("w", session, job, 1));
        told.see(1, &end(session, job));
        told.see(2, &ended("w", session, true));
        assert_eq!(told.plan(3), [], "{:?}", end(session, job));
    }
}

#[test]
fn only_what_ended_is_let_go() {
    let (mut told, session, job) = (Told::new(), SessionId::new(), JobId::new());
    told.see(0, &registered("w", session));
    told.see(0, &claimed("w", session, job, 2));
    told.see(
        1,
        &Seen::Closed {
            job,
            attempt: Some(Attempt(1)),
            failed: false,
        },
    );
    told.see(
        1,
        &Seen::Closed {
            job: JobId::new(),
            attempt: None,
            failed: false,
        },
    );
    told.see(1, &Seen::Finished(a_try("w", session, job, 1), crate::Ending::Well));
    told.see(1, &Seen::Finished(a_try("other", session, job, 2), crate::Ending::Well));
    told.see(1, &Seen::Finished(a_try("w", SessionId::new(), job, 2), crate::Ending::Well));
    told.see(2, &ended("w", session, true));
    assert_eq!(given_up(&told.plan(3)).len(), 1);
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

/// It claims under its own name, with the session of another that lives: the attempt is live, and nobody's.
#[test]
fn a_claim_with_the_session_of_another_is_given_up() {
    let (mut told, session, job) = (Told::new(), SessionId::new(), JobId::new());
    told.see(0, &registered("w", session));
    let claim = told.see(0, &claimed("other", session, job, 1));
    told.hear(4_000, "w", session, claim, &[(job, Attempt(1))]);
    let cause = LossCause::WorkerLost { worker: worker("other") };
    assert_eq!(given_up(&told.plan(4_500)), [(job, Attempt(1), cause)]);
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
        let (mut told, session, job) = (Told::new(), SessionId::new(), JobId::new());
        told.see(0, &registered("w", session));
        let claim = told.see(0, &claimed("w", session, job, 1));
        for ms in &beats {
            told.hear(*ms, "w", session, if knows { claim } else { claim - 1 }, &[]);
        }
        let cause = LossCause::Orphaned { worker: worker("w") };
        let expected = if orphan { vec![(job, Attempt(1), cause)] } else { vec![] };
        let last = beats.last().copied().unwrap_or(0);
        assert_eq!(given_up(&told.plan(last + 900)), expected, "{beats:?} {knows}");
    }
}

#[test]
fn one_heartbeat_that_lists_it_makes_an_absence_begin_anew() {
    let (mut told, session, job) = (Told::new(), SessionId::new(), JobId::new());
    told.see(0, &registered("w", session));
    let claim = told.see(0, &claimed("w", session, job, 1));
    for ms in [0, 1_000, 2_000] {
        told.hear(ms, "w", session, claim, &[]);
    }
    told.hear(3_000, "w", session, claim, &[(job, Attempt(1))]);
    for ms in [4_000, 5_000, 6_000] {
        told.hear(ms, "w", session, claim, &[(job, Attempt(2))]);
    }
    assert_eq!(told.plan(6_500), []);
    told.hear(7_000, "w", session, claim, &[]);
    assert_eq!(given_up(&told.plan(7_000)).len(), 1);
}

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

#[test]
fn a_claim_of_an_unknown_session_is_given_up_when_it_is_silent() {
    let (mut told, session, job) = (Told::new(), SessionId::new(), JobId::new());
    told.see(0, &claimed("w", session, job, 1));
    told.hear(1_000, "w", session, u64::MAX, &[(job, Attempt(1))]);
    assert_eq!(told.plan(5_000), [], "whoever it is, it beats");
    let cause = LossCause::WorkerLost { worker: worker("w") };
    let plan = told.plan(5_100);
    assert_eq!((given_up(&plan), lost(&plan)), (vec![(job, Attempt(1), cause)], vec![]));
    told.state.release(job, Attempt(1), &(worker("w"), session));
    assert_eq!(told.plan(60_000), []);
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
