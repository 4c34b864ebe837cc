//! The checker must be able to fail: one whole history, and every way to break it.

use bus::ids::{Attempt, JobId, SessionId, WorkerId};

use super::{
    Micros, SECOND,
    check::{Evidence, Kind, check},
    fault::{Fault, Harm, Part},
    ledger::Ledger,
    log::{Event, What, Word},
    trace::Trace,
};

/// A history in the making, in milliseconds.
#[derive(Clone)]
struct Story {
    job: JobId,
    sessions: [SessionId; 2],
    events: Vec<Event>,
    evidence: Evidence,
}

fn worker(number: usize) -> WorkerId {
    format!("worker-{number}").parse().expect("a token")
}

fn ms(ms: i64) -> Micros {
    ms * 1_000
}

impl Story {
    /// One job, accepted and not yet claimed.
    fn new() -> Self {
        let job = JobId::new();
        let mut story = Self {
            job,
            sessions: [SessionId::new(), SessionId::new()],
            events: Vec::new(),
            evidence: Evidence::default(),
        };
        story.evidence.acknowledged.push((job, ms(1)));
        story.say(0, Word::Submitted { held: false })
    }

    fn event(mut self, at: i64, what: What) -> Self {
        let sequence = self.events.len() as u64 + 1;
        self.events.push(Event {
            sequence,
            at: ms(at),
            what,
        });
        self
    }

    fn say(self, at: i64, word: Word) -> Self {
        let (job, counted) = (self.job, true);
        self.event(at, What::Job { job, word, counted })
    }

    fn refused(self, at: i64, word: Word) -> Self {
        let (job, counted) = (self.job, false);
        self.event(at, What::Job { job, word, counted })
    }

    /// Worker 1 takes attempt 1, worker 2 the others.
    fn claimed(self, at: i64, attempt: u32) -> Self {
        let who = usize::from(attempt > 1);
        let session = self.sessions[who];
        self.say(at, Word::Claimed(Attempt(attempt), worker(who + 1), session))
    }

    fn finish(&self, attempt: u32) -> Word {
        Word::Finished {
            attempt: Attempt(attempt),
            session: self.sessions[usize::from(attempt > 1)],
            succeeded: true,
            again: false,
        }
    }

    fn finished(self, at: i64, attempt: u32) -> Self {
        let word = self.finish(attempt);
        self.say(at, word)
    }

    fn rescheduled(self, at: i64, attempt: u32) -> Self {
        self.say(at, Word::Rescheduled(Attempt(attempt)))
    }

    fn returned(self, at: i64, attempt: u32) -> Self {
        let session = self.sessions[usize::from(attempt > 1)];
        self.say(at, Word::Returned(Attempt(attempt), session))
    }

    fn lost(self, at: i64, number: usize) -> Self {
        let session = self.sessions[number - 1];
        self.event(at, What::Lost(worker(number), session))
    }

    fn ran(mut self, attempt: u32, start: i64, last: i64, ended: bool) -> Self {
        let pid = 100 + u32::try_from(self.evidence.traces.len()).expect("few");
        self.evidence.traces.push(Trace {
            job: self.job,
            attempt: Attempt(attempt),
            pid,
            start: ms(start),
            last: ms(last),
            end: ended.then_some(ms(last)),
        });
        self
    }

    fn fault(mut self, harm: Harm, part: Part, from: i64, to: i64) -> Self {
        let (from, to) = (ms(from), ms(to));
        self.evidence.faults.push(Fault { harm, part, from, to });
        self
    }

    fn kinds(mut self) -> Vec<Kind> {
        self.evidence.ledger = Ledger::of(&self.events);
        let mut kinds = check(&self.evidence)
            .violations
            .iter()
            .map(|violation| violation.kind)
            .collect::<Vec<_>>();
        kinds.dedup();
        kinds
    }

    fn holds(self) {
        assert_eq!(self.kinds(), []);
    }

    #[track_caller]
    fn breaks(self, kind: Kind) {
        assert!(self.clone().kinds().contains(&kind), "{:?}, and not {kind:?}", self.kinds());
    }
}

/// It ran once, and ended.
fn plain() -> Story {
    Story::new().claimed(10, 1).ran(1, 20, 500, true).finished(510, 1)
}

/// Its worker was killed at 300, and another one ran it.
fn moved() -> Story {
    Story::new()
        .claimed(10, 1)
        .ran(1, 20, 300, false)
        .fault(Harm::Kill, Part::Runner(1), 300, 3_000)
        .lost(750, 1)
        .rescheduled(760, 1)
        .claimed(770, 2)
        .ran(2, 780, 1_500, true)
        .finished(1_510, 2)
}

/// Its worker was frozen from 300 to 7,000, and did not notice that it had been given up.
fn zombie() -> Story {
    Story::new()
        .claimed(10, 1)
        .fault(Harm::Freeze, Part::Runner(1), 300, 7_000)
        .lost(4_500, 1)
        .rescheduled(4_510, 1)
        .claimed(4_520, 2)
        .ran(1, 20, 7_100, false)
        .ran(2, 4_530, 9_000, true)
        .finished(9_010, 2)
}

/// Its first worker had no room for it.
fn given_back() -> Story {
    Story::new()
        .claimed(10, 1)
        .returned(210, 1)
        .say(215, Word::Released(Attempt(2)))
        .claimed(220, 2)
        .ran(2, 230, 500, true)
        .finished(510, 2)
}

#[test]
fn what_is_well_is_found_well() {
    plain().holds();
    moved().holds();
    zombie().holds();
    given_back().holds();
    Story::new().say(5, Word::Cancelled).holds();
}

#[test]
fn an_acknowledged_job_that_is_not_in_the_log_is_found() {
    let mut story = plain();
    story.evidence.acknowledged.push((JobId::new(), ms(5)));
    story.breaks(Kind::Lost);
}

#[test]
fn a_job_that_never_ends_is_found() {
    Story::new().breaks(Kind::Lost);
    Story::new().claimed(10, 1).ran(1, 20, 30, false).breaks(Kind::Lost);
    let mut story = moved();
    story.events.pop();
    story.breaks(Kind::Lost);
}

#[test]
fn two_results_are_found() {
    plain().finished(520, 1).breaks(Kind::Doubled);
    moved().finished(1_600, 1).breaks(Kind::Doubled);
    plain().say(600, Word::Cancelled).breaks(Kind::Doubled);
    plain().rescheduled(600, 1).breaks(Kind::Doubled);
}

#[test]
fn an_attempt_that_ran_although_it_was_given_back_is_found() {
    given_back().ran(1, 20, 30, true).breaks(Kind::Disagreement);
    given_back().finished(520, 1).breaks(Kind::Doubled);
    let began = Story::new().claimed(10, 1);
    let started = Word::Started(Attempt(1), began.sessions[0]);
    began.say(20, started).returned(30, 1).breaks(Kind::Doubled);
}

#[test]
fn a_result_of_an_attempt_that_was_given_up_is_found() {
    let late = Story::new()
        .claimed(10, 1)
        .fault(Harm::Freeze, Part::Runner(1), 300, 7_000)
        .lost(4_500, 1)
        .rescheduled(4_510, 1)
        .ran(1, 20, 5_000, true);
    late.clone().finished(7_010, 1).breaks(Kind::Doubled);
    late.claimed(4_520, 2)
        .ran(2, 4_530, 9_000, false)
        .finished(7_010, 1)
        .breaks(Kind::Doubled);
}

/// The last fence held; but whoever stored it had not looked.
#[test]
fn a_late_word_that_was_stored_is_found() {
    let story = zombie();
    let late = story.finish(1);
    story.refused(9_500, late).breaks(Kind::Unfenced);
}

#[test]
fn a_claim_of_what_is_taken_is_found() {
    let story = plain();
    let thief = Word::Claimed(Attempt(1), worker(2), story.sessions[1]);
    Story::new()
        .claimed(10, 1)
        .say(15, thief)
        .ran(1, 20, 500, true)
        .finished(510, 1)
        .breaks(Kind::Doubled);
}

#[test]
fn a_trace_that_the_log_does_not_know_is_found() {
    plain().ran(2, 20, 30, true).breaks(Kind::Disagreement);
    let mut story = plain();
    story.evidence.traces[0].job = JobId::new();
    story.breaks(Kind::Disagreement);
}

#[test]
fn a_success_without_its_traces_is_found() {
    Story::new().claimed(10, 1).finished(510, 1).breaks(Kind::Disagreement);
    Story::new()
        .claimed(10, 1)
        .ran(1, 20, 400, false)
        .finished(510, 1)
        .breaks(Kind::Disagreement);
    Story::new()
        .claimed(10, 1)
        .ran(1, 20, 900, true)
        .finished(510, 1)
        .breaks(Kind::Disagreement);
}

#[test]
fn an_attempt_that_ran_twice_or_too_early_is_found() {
    plain().ran(1, 30, 500, true).breaks(Kind::Disagreement);
    Story::new()
        .claimed(10, 1)
        .ran(1, 5, 500, true)
        .finished(510, 1)
        .breaks(Kind::Disagreement);
}

#[test]
fn an_overlap_without_a_reason_is_found() {
    // The commands of a dead runner die with it; these two ran side by side.
    let story = Story::new()
        .claimed(10, 1)
        .ran(1, 20, 1_200, false)
        .fault(Harm::Kill, Part::Runner(1), 300, 3_000)
        .lost(750, 1)
        .rescheduled(760, 1)
        .claimed(770, 2)
        .ran(2, 780, 1_500, true)
        .finished(1_510, 2);
    story.breaks(Kind::Overlap);
    let mut story = zombie();
    story.evidence.faults[0].part = Part::Runner(2);
    story.breaks(Kind::Overlap);
}

#[test]
fn an_overlap_that_began_before_the_first_was_given_up_is_found() {
    let mut story = zombie();
    story.evidence.traces[1].start = ms(4_400);
    story.breaks(Kind::Overlap);
}

#[test]
fn a_zombie_that_is_not_ended_is_found() {
    let mut story = zombie();
    story.evidence.traces[0].last = ms(7_000) + 6 * SECOND;
    story.breaks(Kind::Overlap);
}

#[test]
fn a_healthy_worker_that_was_given_up_is_found() {
    plain().lost(100, 2).breaks(Kind::HealthyLost);
    plain()
        .fault(Harm::Freeze, Part::Nats, 50, 10_050)
        .lost(10_100, 2)
        .breaks(Kind::HealthyLost);
    // What was done to it long ago is no reason; but the broker may have hidden it.
    let long_ago = plain().fault(Harm::Kill, Part::Runner(2), 20, 30).lost(15_000, 2);
    long_ago.clone().breaks(Kind::HealthyLost);
    long_ago.fault(Harm::Freeze, Part::Nats, 40, 10_000).holds();
}

/// It died of its only attempt, and an operator revived it.
fn revived() -> Story {
    Story::new()
        .claimed(10, 1)
        .say(100, Word::Died(Attempt(1)))
        .say(200, Word::Requeued(Attempt(2)))
        .claimed(210, 2)
        .ran(2, 220, 300, true)
        .finished(310, 2)
}

#[test]
fn what_waits_is_released_or_expires_and_what_died_may_be_revived() {
    let late = Story::new().say(900, Word::Expired);
    late.clone().holds();
    late.say(950, Word::Requeued(Attempt(1)))
        .claimed(960, 1)
        .ran(1, 970, 980, true)
        .finished(990, 1)
        .holds();
    revived().holds();
    revived().say(400, Word::Requeued(Attempt(3))).breaks(Kind::Doubled);
    Story::new().claimed(10, 1).say(20, Word::Expired).breaks(Kind::Doubled);
    Story::new()
        .say(5, Word::Released(Attempt(1)))
        .say(6, Word::Cancelled)
        .breaks(Kind::Doubled);
}

#[test]
fn a_failure_that_is_tried_again_is_no_end() {
    let story = Story::new().claimed(10, 1).ran(1, 20, 90, true);
    let (attempt, session) = (Attempt(1), story.sessions[0]);
    let failed = Word::Finished {
        attempt,
        session,
        succeeded: false,
        again: true,
    };
    let waits = story.say(100, failed);
    waits.clone().breaks(Kind::Lost);
    let again = waits.clone().say(1_100, Word::Released(Attempt(2))).claimed(1_110, 2);
    again.ran(2, 1_120, 1_200, true).finished(1_210, 2).holds();
    waits.claimed(110, 2).ran(2, 120, 200, true).finished(210, 2).breaks(Kind::Doubled);
}

#[test]
fn what_cannot_be_read_is_found() {
    plain()
        .event(700, What::Unreadable("no envelope".to_owned()))
        .breaks(Kind::Unreadable);
}
